"""How a model marks its reasoning, its answer and its calls: the vocabulary in which `families` writes its table.

Values only, small enough to travel to the process that compiles grammars. It refuses to read output (`output_parser`)
and to write grammars (`grammar`); both follow the same rows.
"""

import re
from typing import Final

from msgspec import Struct

_MARKER: Final = re.compile(r"<\|?/?[\w:\u2581\uff5c|/]+\|?>|\[/?[A-Z_]+\]")


class Parameters(Struct, frozen=True, kw_only=True):
    """How arguments are written one by one instead of as JSON: before_key, the key, before_value, pad, the text, pad,
    close, after.

    A string is written as it is, up to the first `close`; every other value as JSON.
    """

    before_key: str
    before_value: str
    pad: str = ""
    close: str
    after: str = "\n"


class CallForm(Struct, frozen=True, kw_only=True):
    """How a family writes calls: open, lead, calls with `join` between them, close; `between` two such sections.

    One call is before_name, the name, before_id, an id that matches `id`, before_arguments, the arguments, after. Where
    the input is raw text, `before_raw` and `after_raw` stand around it instead. `join` None: one call in a section.
    `between` None: one section in an output.
    """

    family: str
    open: str = ""
    lead: str = ""
    before_name: str = ""
    before_id: str = ""
    id: str = ""
    before_arguments: str
    after: str = ""
    before_raw: str
    after_raw: str = ""
    close: str = ""
    join: str | None = None
    between: str | None = None
    whole: bool = False
    """A call is a whole message that begins like one. `open` may be left out."""
    raw_ends: bool = False
    """A raw input goes on to the end of the output, because nothing could close it."""
    parameters: Parameters | None = None
    """None: arguments are a JSON object. Else tools whose schema cannot be written so are called in another form."""

    def written(self, name: str, arguments: str) -> str:
        """One call with JSON arguments, alone."""
        call = self.before_name + name + self.before_arguments + arguments + self.after
        return ("" if self.whole else self.open) + self.lead + call + self.close

    @property
    def item(self) -> str:
        """What the next call of a section begins with."""
        start = self.before_name.lstrip()
        marker = _MARKER.match(start)
        return marker[0] if marker else start[:1]

    @property
    def several(self) -> bool:
        """Whether there can be more than one call in an output."""
        return self.join is not None or self.between is not None


HERMES: Final = CallForm(
    family="hermes",
    open="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    after="}\n",
    before_raw='"}\n',
    after_raw="\n",
    close="</tool_call>",
    between="\n",
)
"""The form that we show ourselves to models whose template knows no tools."""


class Channels(Struct, frozen=True, kw_only=True):
    """Of a family that writes everything in blocks: a header, the content, the block's end.

    A header goes from one of `starts` to `header_end`. One that matches `recipient` is a call's (group 1 is the name),
    one that holds `thought` is reasoning's, any other is a message's. `again` comes before a block after the first.
    """

    starts: tuple[str, ...] = ()
    header_end: str = ""
    ends: tuple[str, ...] = ()
    recipient: str = ""
    thought: str = ""
    commentary: str = ""
    comment_open: str = ""
    comment_close: str = ""
    answer_open: str = ""
    answer_close: str = ""
    again: str = ""

    def __bool__(self) -> bool:
        return bool(self.starts)


class Markup(Struct, frozen=True, kw_only=True):
    """What a model's template and vocabulary make of its family's markers.

    `special` are the markers that are control tokens (invisible to a grammar of bytes), with the token's number.
    `thinks`: the model may open with a think block; `thinking`: the prompt has already opened it. `wrappers` stand
    around answers and mean nothing.
    """

    call: CallForm = HERMES
    special: dict[str, int] = {}
    think_open: str = "<think>"
    think_close: str = "</think>"
    thinks: bool = False
    thinking: bool = False
    wrappers: tuple[str, ...] = ()
    channels: Channels = Channels()

    @property
    def markers(self) -> tuple[str, ...]:
        """Whatever might be a control token, each once."""
        call, channels = self.call, self.channels
        texts = [call.open, call.lead, call.before_name, call.before_id, call.before_arguments, call.after, call.close]
        texts += [call.before_raw, call.after_raw, self.think_open, self.think_close, *self.wrappers]
        if channels:
            texts += [*channels.starts, *channels.ends, channels.header_end, channels.answer_open]
        return tuple(dict.fromkeys(marker for text in texts for marker in _MARKER.findall(text)))

    def pieces(self, text: str) -> list[str]:
        """A text cut around its control tokens, in order; nothing is lost and nothing is empty."""
        if not self.special:
            return [text] if text else []
        tokens = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))
        return [piece for piece in re.split(f"({tokens})", text) if piece]


SPACES: Final = " \t\r\n"
"""JSON's. Other letters count as spaces in one library and not in the next."""
NAME: Final = r'"([^"\\<>\s]{1,128})"'
_TYPED: Final = ('"type"', ":", '"function"', ",")
_PIECE: Final = re.compile(r"\s+|[{},:]|[^\s{},:]+")


WHOLE_HEADS: Final = (
    *(
        ("{", *typed, '"name"', ":", NAME, ",", key, ":")
        for typed in ((), _TYPED)
        for key in ('"parameters"', '"arguments"')
    ),
    ("{", '"name"', ":", NAME, "}", "\n"),
)
"""What a call begins with that has no marker: JSON in pieces between which there may be spaces. The last way is that of
raw text, which begins on the next line."""


def head_pattern(row: CallForm) -> str:
    """A regular expression for all from the open marker to the arguments, spaces aside. Group 1 is the name."""
    if row.whole:
        return whole_pattern(WHOLE_HEADS[:-1])
    return _before(row) + _loose(row.before_arguments)


def whole_pattern(ways: tuple[tuple[str, ...], ...]) -> str:
    """A regular expression for these ways to begin. Group 1, or the one of the way that matches, is the name."""
    spaces = r"[ \t\r\n]*"
    joined = (spaces.join(NAME if each == NAME else _letters(each) for each in way) for way in ways)
    return f"{spaces}(?:{'|'.join(joined)})".replace(spaces + r"\n", r"\n")


def _letters(text: str) -> str:
    return re.escape(text).replace("\\\n", r"\n")


def raw_head_pattern(row: CallForm) -> str:
    """The same for raw text. Spaces at its end are counted, since what follows is the text."""
    if row.whole:
        return whole_pattern(WHOLE_HEADS[-1:])
    bare = row.before_raw.rstrip("\n")
    return _before(row) + _loose(bare).removesuffix(r"\s*") + re.escape(row.before_raw[len(bare) :])


def name_in(head: re.Match[str]) -> str:
    """The name in a match of one of these patterns."""
    return head[head.lastindex or 0]


def _before(row: CallForm) -> str:
    """Up to the name and the id."""
    lead = rf"(?:\s*{re.escape(row.lead)})?" if row.lead else ""
    name = r'([^"\\<>\s]{1,128})' if row.before_name.endswith('"') else r"([\w.-]{1,128})(?=[^\w.-])"
    return lead + r"\s*" + _loose(row.before_name) + name + _loose(row.before_id) + row.id


def _loose(text: str) -> str:
    """A pattern for a text in which spaces do not matter."""
    pieces = [_loose_piece(piece) for piece in _PIECE.findall(text)]
    return re.sub(r"(?:\\s\*)+", r"\\s*", "".join(pieces))


def _loose_piece(piece: str) -> str:
    if piece.isspace():
        return r"\s*"
    if piece in "{},:":
        return rf"\s*{re.escape(piece)}\s*"
    return '"(?:arguments|parameters)"' if piece in ('"arguments"', '"parameters"') else re.escape(piece)


def could_begin(text: str) -> bool:
    """Whether a text may yet become a call without a marker."""
    return any(_could_be(way, text) for way in WHOLE_HEADS)


def _could_be(way: tuple[str, ...], text: str) -> bool:
    for piece in way:
        text = text if piece == "\n" else text.lstrip(SPACES)
        if piece == NAME:
            match = re.match(NAME, text)
            if match is None:
                return re.fullmatch(r'(?:"[^"\\<>\s]{0,128})?', text) is not None
            text = text[match.end() :]
        elif not text.startswith(piece):
            return piece.startswith(text)
        else:
            text = text[len(piece) :]
    return True
