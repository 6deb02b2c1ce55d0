"""Arguments that a model writes one by one, as `Parameters` says: what of a schema can be held so, and how it is read.

Pure. Strings stand there as they are, and all else as JSON. It refuses to guess: a schema that raw text cannot hold to
the letter is no plain one, and its tool is called with JSON.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.local.markup import Parameters
from ore.backends.markers import certain
from ore.core.callable_tools import CallableTool

NOTES: Final = frozenset({"description", "title", "default", "examples", "deprecated", "$comment"})
"""Keywords that hold nobody to anything."""
_ROOT: Final = frozenset({"type", "properties", "required", "additionalProperties", "$schema"}) | NOTES
_KEY: Final = re.compile(r"[A-Za-z_][\w.-]*")
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}


class Parameter(Struct, frozen=True):
    """One argument. `words`: the only texts it may be; `raw`: written as it is; else JSON that matches `schema`."""

    key: str
    required: bool
    schema: JsonObject
    raw: bool
    words: tuple[str, ...] = ()


def plain_parameters(tool: CallableTool) -> list[Parameter] | None:
    """A tool's parameters in order, or None where they can only be held as JSON."""
    schema = tool.parameters
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not schema.keys() <= _ROOT or not isinstance(properties, dict) or not isinstance(required, list):
        return None
    if (not properties and schema.get("additionalProperties") is not False) or not set(required) <= properties.keys():
        return None
    made = [_parameter(key, inner, required=key in required) for key, inner in properties.items()]
    return None if None in made else [each for each in made if each is not None]


def _parameter(key: str, schema: Any, *, required: bool) -> Parameter | None:
    if not isinstance(schema, dict) or not _KEY.fullmatch(key) or "$ref" in msgspec.json.encode(schema).decode():
        return None
    types, rest = _types(schema), schema.keys() - NOTES - {"type"}
    if types is not None and "string" not in types:
        return Parameter(key, required, schema, raw=False)
    if not rest:
        return Parameter(key, required, schema, raw=True)
    words = schema.get("enum", ())
    if rest == {"enum"} and types == ["string"] and all(isinstance(word, str) and _is_word(word) for word in words):
        return Parameter(key, required, schema, raw=True, words=tuple(words))
    return None


def _types(schema: JsonObject) -> list[Any] | None:
    kind = schema.get("type")
    return kind if isinstance(kind, list) or kind is None else [kind]


def _is_word(text: str) -> bool:
    return text.strip("\n") == text != "" and "<" not in text


class ArgumentReader:
    """Gives the arguments of one call, up to one of `ends`, as a JSON object; of custom tools, the input itself."""

    def __init__(self, row: Parameters, ends: Iterable[str], tool: CallableTool | None, *, custom: bool) -> None:
        self._row = row
        self._ends = tuple(filter(None, ends))
        head = re.escape(self._row.before_key) + r"\s*([^\s<>=]+?)\s*" + _flexible(self._row.before_value)
        self._head = re.compile(head)
        properties = tool.parameters.get("properties") if tool else None
        self._schemas: JsonObject = properties if isinstance(properties, dict) else {}
        self._custom = custom
        self._began = False
        self._key = ""
        self._opened = False
        self.done = False

    def feed(self, text: str) -> tuple[str, int]:
        """The piece to pass on, and how many characters were used."""
        pieces, at = [], 0
        while not self.done:
            piece, size = self._step(text[at:])
            pieces.append(piece)
            at += size
            if not size:
                break
        return "".join(pieces), at

    def rest(self) -> str:
        """What is missing where the model ended without the last marker."""
        return "" if self.done or self._key or self._custom else self._closing()

    def _step(self, text: str) -> tuple[str, int]:
        if self._key:
            return self._value(text)
        end = min((at for at in map(text.find, self._ends) if at >= 0), default=-1)
        head = self._head.search(text)
        if head and (end < 0 or head.start() < end):
            return self._begin(head[1]), head.end()
        if end < 0:
            return "", 0
        self.done = True
        return ("" if self._custom else self._closing()), end

    def _closing(self) -> str:
        return "}" if self._began else "{}"

    def _begin(self, key: str) -> str:
        self._key, self._opened = key, False
        lead = ", " if self._began else "{"
        self._began = True
        return "" if self._custom else f"{lead}{msgspec.json.encode(key).decode()}: "

    def _value(self, text: str) -> tuple[str, int]:
        closed = text.find(self._row.close)
        if self._is_string():
            return self._string(text, closed)
        if closed < 0:
            return "", 0
        piece = self._typed(_unpadded(text[:closed], self._row.pad))
        self._key = ""
        return piece, closed + len(self._row.close)

    def _string(self, text: str, closed: int) -> tuple[str, int]:
        """A string goes out as it comes, but for the padding."""
        pad, quote = self._row.pad, "" if self._custom else '"'
        start, lead = 0, ""
        if not self._opened:
            if len(text) < len(pad) or (closed < 0 and len(text) < len(self._row.close)):
                return "", 0
            start = len(pad) if pad and text.startswith(pad) else 0
            self._opened, lead = True, quote
        if closed < 0:
            end = certain(text, pad + self._row.close) if pad else len(text)
            end = max(start, min(end, certain(text, self._row.close)))
            return lead + self._shown(text[start:end]), end
        end = closed - len(pad) if pad and text[start:closed].endswith(pad) else closed
        self._key = ""
        return lead + self._shown(text[start:end]) + quote, closed + len(self._row.close)

    def _shown(self, text: str) -> str:
        return text if self._custom else msgspec.json.encode(text).decode()[1:-1]

    def _is_string(self) -> bool:
        schema = self._schemas.get(self._key)
        return self._custom or (isinstance(schema, dict) and _types(schema) == ["string"])

    def _typed(self, text: str) -> str:
        schema = self._schemas.get(self._key)
        types = _types(schema) if isinstance(schema, dict) else None
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return msgspec.json.encode(text).decode()
        if isinstance(value, str) or (types is not None and not any(_is_a(value, str(kind)) for kind in types)):
            return msgspec.json.encode(text).decode()
        return text.strip()


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return kind in _TYPES and isinstance(value, _TYPES[kind])


def _unpadded(text: str, pad: str) -> str:
    return text.removeprefix(pad).removesuffix(pad) if pad else text


def _flexible(text: str) -> str:
    return r"\s*".join(map(re.escape, text.split()))
