"""One item of an upstream's answer: what it has said so far, and which deltas say the rest of it.

Three kinds: what is spoken (messages, reasoning) and calls are told piece by piece, under ids of ours; everything else
is passed on as it came. A track knows nothing of other items and of their order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import packed
from ore.backends.free_text import FreeText
from ore.backends.responses.items import kept_reasoning
from ore.core.callable_tools import CallableTool
from ore.core.deltas import (
    Annotation,
    Begin,
    CallKind,
    Delta,
    ItemBegun,
    ItemEvent,
    Reasoning,
    ReasoningState,
    ReasoningSummary,
    Refusal,
    Text,
    ToolArguments,
    ToolCall,
    WholeItem,
)
from ore.ids import NewId
from ore.protocol.items import awaits_client

MESSAGE: Final = "message"
REASONING: Final = "reasoning"

Spoke = type[Text] | type[Refusal] | type[Reasoning] | type[ReasoningSummary]

_PARTS: Final[dict[str, tuple[Spoke, str]]] = {
    "output_text": (Text, "text"),
    "text": (Text, "text"),
    "refusal": (Refusal, "refusal"),
    "reasoning_text": (Reasoning, "text"),
    "summary_text": (ReasoningSummary, "text"),
}
"""Type of a part -> the delta that says it, and the field that holds it."""

_WHOLES: Final[dict[str, tuple[CallKind, str]]] = {
    "function_call": ("function_call", "arguments"),
    "custom_tool_call": ("custom_tool_call", "input"),
}
"""Type of a call -> its kind, and the field that holds what the model wrote."""

_NOT_FIELDS: Final = ("type", "sequence_number", "output_index", "obfuscation")
"""What of an event is not about its item."""


class Known(Struct, frozen=True):
    """What is known before the answer begins.

    `names` are the functions that stand for tools of other shapes, as the model was shown them; `new_id` names calls
    that their upstream did not.
    """

    origin: str
    names: Mapping[str, CallableTool]
    new_id: NewId


class Track:
    """What all items have. `over`: it seems to have said all; `done`: it has."""

    def __init__(self, item: JsonObject) -> None:
        self.kind: str = item["type"]
        self.key: tuple[Any, Any] = (None, None)
        self.item = item
        self.over = False
        self.done = False
        self.held: list[Delta] = []

    @property
    def awaits_client(self) -> bool:
        """Whether the client has to answer it."""
        return awaits_client(self.item)

    def learn(self, item: JsonObject) -> Sequence[Delta]:
        """The item as it begins."""
        raise NotImplementedError

    def complete(self, item: JsonObject) -> Sequence[Delta]:
        """What was not said of the item, now that it is whole."""
        raise NotImplementedError

    def break_off(self) -> Sequence[Delta]:
        """What was not said of an item that does not come to its end."""
        return ()

    def agrees(self, item: JsonObject) -> bool:
        """Whether what was said is the beginning of that item."""
        return bool(item["type"] == self.kind)

    def leave(self) -> Sequence[Delta]:
        """Another item speaks now. What this one may still say comes anew."""
        return ()


class Spoken(Track):
    """A message or a reasoning item: parts, each of pieces of text."""

    def __init__(self, item: JsonObject, origin: str) -> None:
        super().__init__(item)
        self._origin = origin
        self._begun = False
        self._stated = False
        self._part: tuple[Spoke, int] | None = None
        self._said: dict[tuple[Spoke, int], list[str]] = {}
        self._cited: dict[int, int] = {}

    def learn(self, item: JsonObject) -> Sequence[Delta]:
        self.item = item
        return ()

    def leave(self) -> Sequence[Delta]:
        self._begun, self._part = False, None
        return self._tell_state(self._so_far()) if self.kind == REASONING and self._said else ()

    def say(self, makes: Spoke, index: Any, text: str, logprobs: Any = None) -> Sequence[Delta]:
        """A piece of a part; a new part, and the item itself, begin with it."""
        self.over = False
        tokens = _tokens(logprobs) if logprobs and makes is Text else ()
        if not text and not tokens:
            return ()
        part = (makes, index if isinstance(index, int) else 0)
        delta = _piece(part, text, tokens)
        if part == self._part:
            self._said[part].append(text)
            return (delta,)
        deltas = self._enter(part)
        self._said[part].append(text)
        return [*deltas, delta]

    def say_rest(self, makes: Spoke, index: Any, whole: str, logprobs: Any = None) -> Sequence[Delta]:
        """What of a part's whole text was not said. One that is not what was said is not said again."""
        part = (makes, index if isinstance(index, int) else 0)
        said = "".join(self._said.get(part, ()))
        if not whole.startswith(said):
            return ()
        return self.say(makes, index, whole[len(said) :], None if said else logprobs)

    def say_part(self, part: JsonObject, index: Any) -> Sequence[Delta]:
        """What was not said of a part that is whole, with its citations."""
        makes, field = self._made(part)
        whole, annotations = part.get(field), part.get("annotations")
        deltas: list[Delta] = []
        if makes is not None and isinstance(whole, str):
            deltas += self.say_rest(makes, index, whole, part.get("logprobs"))
        if makes is Text and isinstance(annotations, list):
            for annotation in annotations[self._cited.get(index if isinstance(index, int) else 0, 0) :]:
                deltas += self.annotate(index, annotation) if isinstance(annotation, dict) else ()
        return deltas

    def annotate(self, index: Any, annotation: JsonObject) -> Sequence[Delta]:
        index = index if isinstance(index, int) else 0
        self._cited[index] = self._cited.get(index, 0) + 1
        return [*self._enter((Text, index)), Annotation(annotation)]

    def complete(self, item: JsonObject) -> Sequence[Delta]:
        begins, self.item = not self._said and not self._cited, item
        if begins and self.kind == MESSAGE and not all(self._made(part)[0] for part in _parts(item, "content")):
            return (WholeItem(item),)
        deltas = list(self._say_parts(item))
        if self.kind == REASONING and not self._stated:
            deltas += [*self._begin(), *self._tell_state(item)]
        return deltas

    def break_off(self) -> Sequence[Delta]:
        return self._say_parts(self.item)

    def _tell_state(self, item: JsonObject) -> Sequence[Delta]:
        """What the upstream wants back: once, for a state that comes too late would be an item of its own."""
        if self._stated:
            return ()
        self._stated = True
        return (ReasoningState(packed(self._origin, kept_reasoning(item))),)

    def _so_far(self) -> JsonObject:
        """The reasoning item as far as it was said."""
        parts: dict[Spoke, list[JsonObject]] = {Reasoning: [], ReasoningSummary: []}
        for (makes, _), pieces in self._said.items():
            kind = "summary_text" if makes is ReasoningSummary else "reasoning_text"
            parts[makes].append({"type": kind, "text": "".join(pieces)})
        return {"id": self.item.get("id"), "summary": parts[ReasoningSummary], "content": parts[Reasoning]}

    def agrees(self, item: JsonObject) -> bool:
        wholes = {key: str(part.get(field) or "") for key, field, part in self._placed(item)}
        return all(wholes.get(key, "").startswith("".join(pieces)) for key, pieces in self._said.items())

    def _say_parts(self, item: JsonObject) -> list[Delta]:
        if not self.agrees(item):
            return []
        return [delta for (_, index), _, part in self._placed(item) for delta in self.say_part(part, index)]

    def _placed(self, item: JsonObject) -> list[tuple[tuple[Spoke, int], str, JsonObject]]:
        """Each part that can be said: where it is, the field of its text, and itself."""
        placed = []
        for parts in ("summary", "content"):
            for index, part in enumerate(_parts(item, parts)):
                makes, field = self._made(part)
                if makes is not None:
                    placed.append(((makes, index), field, part))
        return placed

    def _made(self, part: JsonObject) -> tuple[Spoke | None, str]:
        makes, field = _PARTS.get(str(part.get("type")), (None, ""))
        return (Reasoning, field) if makes is Text and self.kind == REASONING else (makes, field)

    def _begin(self) -> list[Delta]:
        if self._begun:
            return []
        self._begun = True
        phase = self.item.get("phase")
        if self.kind == REASONING:
            return [Begin("reasoning")]
        return [Begin("message", phase if phase in ("commentary", "final_answer") else None)]

    def _enter(self, part: tuple[Spoke, int]) -> list[Delta]:
        """Go on with that part. Where its kind does not tell it from the one before, it is said to begin."""
        if part == self._part:
            return []
        before, self._part = self._part, part
        self._said.setdefault(part, [])
        anew = before is not None and before[0] is part[0] and part[0] is not ReasoningSummary
        return [*self._begin(), *([Begin("part")] if anew else [])]


class Call(Track):
    """A function or custom call of the client's."""

    awaits_client = True

    def __init__(self, item: JsonObject, known: Known) -> None:
        super().__init__(item)
        self._call_kind, self._field = _WHOLES[self.kind]
        self._known = known
        self._fields: JsonObject = {}
        self._pieces: list[str] = []
        self._begun = False
        self._free: FreeText | None = None

    def learn(self, item: JsonObject) -> Sequence[Delta]:
        """Who is called. The call begins when both its name and its id are known; done events may tell them too."""
        known = {key: item[key] for key in ("call_id", "name", "namespace") if _is_text(item.get(key))}
        self._fields = known | self._fields
        if "id" in item or "call_id" in item:
            self.item = item
        return self._begin() if {"call_id", "name"} <= self._fields.keys() else ()

    def leave(self) -> Sequence[Delta]:
        self.done = True
        return self._left()

    def say(self, text: str) -> Sequence[Delta]:
        self.over = False
        self._pieces.append(text)
        return self._arguments(text) if self._begun else ()

    def say_rest(self, whole: str) -> Sequence[Delta]:
        said = "".join(self._pieces)
        rest = whole[len(said) :] if whole.startswith(said) else ""
        return self.say(rest) if rest else ()

    def complete(self, item: JsonObject) -> Sequence[Delta]:
        whole = item.get(self._field)
        if whole is not None and not isinstance(whole, str):
            whole = msgspec.json.encode(whole).decode()
        deltas = [*self.learn(item)]
        self.item = item
        if not self._begun:
            given = item.get("id")
            call_id = given if _is_text(given) else self._known.new_id("call")
            self._fields = {"call_id": call_id, "name": ""} | self._fields
            deltas += self._begin()
        deltas += self.say_rest(whole) if whole else ()
        return [*deltas, *self._left()]

    def break_off(self) -> Sequence[Delta]:
        return self.complete(self.item)

    def agrees(self, item: JsonObject) -> bool:
        whole = item.get(self._field)
        return isinstance(whole, str) and whole.startswith("".join(self._pieces))

    def _begin(self) -> list[Delta]:
        """Under the client's name; a custom tool's text is taken out of the argument that it stands in."""
        if self._begun:
            return []
        self._begun = True
        call_id, name = self._fields["call_id"], self._fields["name"]
        tool = self._known.names.get(name)
        if tool is not None and tool.kind == "custom_tool_call" and self.kind == "function_call":
            self._free = FreeText()
        if tool is None:
            call = ToolCall(call_id, name, self._call_kind, self._fields.get("namespace"))
        else:
            call = ToolCall(call_id, tool.name, tool.kind, tool.namespace)
        return [call, *self._arguments("".join(self._pieces))]

    def _arguments(self, written: str) -> list[Delta]:
        text = written if self._free is None else self._free.feed(written)
        return [ToolArguments(text)] if text else []

    def _left(self) -> list[Delta]:
        """What of free text is certain only when no more follows."""
        text = "" if self._free is None else self._free.end()
        return [ToolArguments(text)] if text else []


class Passed(Track):
    """An item that the upstream makes by itself, or that has a type of its own. `quiet`: only as it came out."""

    def __init__(self, item: JsonObject, *, quiet: bool = False) -> None:
        super().__init__(item)
        self._quiet = quiet

    def learn(self, item: JsonObject) -> Sequence[Delta]:
        return () if self._quiet else (ItemBegun(item),)

    def note(self, kind: str, event: JsonObject) -> Sequence[Delta]:
        if self._quiet:
            return ()
        return (ItemEvent(kind, {key: value for key, value in event.items() if key not in _NOT_FIELDS}),)

    def complete(self, item: JsonObject) -> Sequence[Delta]:
        self.item = item
        return (WholeItem(item),)


def track_of(item: JsonObject, known: Known) -> Track:
    """The track of an item, as far as it is told; at least its `type` is.

    A call that a program made, and waits for, must go back with its caller: it is passed on, but its arguments are no
    events that a client would know what to do with.
    """
    kind = item["type"]
    if kind in (MESSAGE, REASONING):
        return Spoken(item, known.origin)
    if kind not in _WHOLES:
        return Passed(item)
    caller = item.get("caller")
    by_program = isinstance(caller, dict) and caller.get("type") == "program"
    return Passed(item, quiet=True) if by_program else Call(item, known)


def _piece(part: tuple[Spoke, int], text: str, tokens: tuple[JsonObject, ...]) -> Delta:
    makes, index = part
    if makes is ReasoningSummary:
        return ReasoningSummary(text, index)
    return Text(text, tokens) if makes is Text else makes(text)


def _tokens(logprobs: Any) -> tuple[JsonObject, ...]:
    """Entries with all keys of section 6: OpenAI's deltas have no `bytes`."""
    return tuple({**each, "top_logprobs": _entries(each.get("top_logprobs"))} for each in _entries(logprobs))


def _entries(told: Any) -> list[JsonObject]:
    return [_with_bytes(each) for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def _with_bytes(entry: JsonObject) -> JsonObject:
    given = entry.get("bytes")
    return {**entry, "bytes": list(str(entry.get("token", "")).encode()) if given is None else given}


def _parts(item: JsonObject, field: str) -> list[JsonObject]:
    parts = item.get(field)
    if isinstance(parts, str):
        parts = [{"type": "output_text", "text": parts}]
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
