"""What the scheduler needs of a tokenizer: `Vocabulary`, made from a `tokenizer.json` or from a list of tokens.

The bytes of each token, the tokens that end a turn, control tokens, grammars over them, and text that comes out piece
by piece. It refuses to break a character apart.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ore.backends.local.faults import refused

Encode = Callable[[str, bool, bool], list[int]]
"""Text, whether to add what opens every prompt, and whether markers of control tokens count as such."""


class Vocabulary:
    """The tokens of a model. `pieces` are their bytes; `end_tokens` end a turn; `control` ones are no text."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        encode: Encode,
        matchable: Any,
        *,
        end_tokens: Iterable[int],
        control: Iterable[int] = (),
        strips_lead: bool = False,
    ) -> None:
        self.size = len(pieces)
        self.pieces = pieces
        self.end_tokens = frozenset(end_tokens)
        self.control = frozenset(control) | self.end_tokens
        self.strips_lead = strips_lead
        """Whether texts begin with a space that is not theirs."""
        self._encode = encode
        self._matchable = matchable

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """As `Engine.tokenize`."""
        return self._encode(text, add_special, parse_special)

    @property
    def adds_bos(self) -> bool:
        return bool(self.encode("", add_special=True))

    def matcher(self, grammar: str) -> Any:
        """llguidance's matcher for a grammar, at its start. Raises `InvalidRequest`. Lets other threads run."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._matchable, grammar, log_level=0)
        if matcher.is_error():
            raise refused(matcher.get_error())
        return matcher

    def text_of(self, token: int) -> str:
        """A token by itself, for logprobs: what is no whole character is replaced."""
        return self.pieces[token].decode("utf-8", "replace")


class Detokenizer:
    """The text of one answer. Control tokens are silent, but for those in `visible`."""

    def __init__(self, vocabulary: Vocabulary, visible: Iterable[str] = (), *, strip: bool = False) -> None:
        self._pieces = vocabulary.pieces
        shown = {marker.encode() for marker in visible}
        self.silent = {token for token in vocabulary.control if self._pieces[token] not in shown}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip and vocabulary.strips_lead

    def feed(self, token: int) -> str:
        """The characters that are whole now."""
        if token in self.silent:
            return ""
        text = self._decoder.decode(self._pieces[token])
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text

    @property
    def whole(self) -> bool:
        """Whether all bytes so far have come out."""
        return not self._decoder.getstate()[0]

    def finish(self) -> str:
        """What is left of a character that never became whole."""
        return self._decoder.decode(b"", final=True)


def from_tokenizer_json(source: str, end_tokens: Sequence[int]) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, given as its text. Raises `ValueError` when it cannot be read.

    llguidance takes each added token like `<this>` for a control token, whatever the file says. So must we, or
    a grammar that spells it out would never meet it; those that the file calls text stay visible.
    """
    from llguidance import LLTokenizer
    from tokenizers import Tokenizer

    described = json.loads(source)
    described["truncation"] = described["padding"] = None
    added = described.get("added_tokens", [])
    silent = {entry["id"] for entry in added if entry.get("special")}
    for entry in added:
        entry["special"] = entry["special"] or _is_marker(entry["content"])
    whole = json.dumps(described)
    matchable = LLTokenizer(whole, eos_token=list(end_tokens))
    parsing, plain = Tokenizer.from_str(whole), Tokenizer.from_str(whole)
    plain.encode_special_tokens = True

    def encode(text: str, add_special: bool, parse_special: bool) -> list[int]:
        tokenizer = parsing if parse_special else plain
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=add_special).ids
        return tokens

    pieces = [matchable.decode_bytes([token]) for token in range(matchable.vocab_size)]
    for entry in added:
        pieces[entry["id"]] = entry["content"].encode()
    return Vocabulary(
        pieces,
        encode,
        matchable,
        end_tokens=end_tokens,
        control=silent,
        strips_lead=_strips_lead(described.get("decoder")),
    )


def from_pieces(pieces: Sequence[bytes], encode: Encode, end_tokens: Sequence[int]) -> Vocabulary:
    """A vocabulary without a file: `pieces` are all tokens in order, of which `end_tokens` are no text."""
    from llguidance import LLTokenizer, TokenizerWrapper

    wrapped = TokenizerWrapper(_Bare(pieces, encode, end_tokens))
    matchable = LLTokenizer(wrapped, eos_token=list(end_tokens))
    return Vocabulary(pieces, encode, matchable, end_tokens=end_tokens)


class _Bare:
    """What llguidance wants of a tokenizer."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[bytes], encode: Encode, end_tokens: Sequence[int]) -> None:
        self.tokens = list(pieces)
        self.eos_token_id = end_tokens[0]
        self.special_token_ids = list(end_tokens)
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text, False, False)


def _is_marker(content: str) -> bool:
    return len(content) > 2 and content.startswith("<") and content.endswith(">")


def _strips_lead(decoder: Any) -> bool:
    """Whether decoding takes a space away from the start of a text."""
    if not isinstance(decoder, dict):
        return False
    kind = decoder.get("type")
    if kind == "Sequence":
        return any(_strips_lead(inner) for inner in decoder.get("decoders", ()))
    if kind == "Strip":
        return decoder.get("content") == " " and decoder.get("start", 0) > 0
    return kind == "Metaspace" and decoder.get("prepend_scheme", "always") != "never"
