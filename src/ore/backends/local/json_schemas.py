"""Judges clients' JSON Schemas before a token is sampled: can the grammar hold a model to them?

A schema passes when llguidance can compile it, when it says nothing that llguidance would silently ignore, and when
it is of a sane size. Nothing here fetches anything: a reference to another document is an error. It refuses to repair
a schema, and leaves the last look at the text to `ore.core.structured`.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject

MAX_BYTES: Final = 512 * 1024
MAX_DEPTH: Final = 60
MAX_PROPERTIES: Final = 1_000
MAX_ENUM_VALUES: Final = 5_000
MAX_PATTERN: Final = 1_000

UNENFORCED: Final = frozenset(
    {
        "$dynamicRef",
        "$recursiveRef",
        "additionalItems",
        "contains",
        "contentSchema",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "disallow",
        "divisibleBy",
        "else",
        "extends",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
"""Keywords that constrain, and that llguidance refuses or ignores."""

_ONE: Final = frozenset({"items", "additionalProperties"} | UNENFORCED - {"dependentRequired", "uniqueItems"})
_MANY: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

_VALUES: Final = frozenset({"enum", "const", "default", "examples"})
_TIMES: Final = ("time", "date-time")
_NO_LEAP_SECOND: Final = "^[^:]*:[^:]*:[0-5]"

_CLOSABLE: Final = frozenset({"items", "prefixItems", "additionalProperties"})
_COMBINING: Final = frozenset(
    {"$ref", "anyOf", "oneOf", "patternProperties", "minProperties", "maxProperties"} | UNENFORCED
)

LAYOUT: Final[JsonObject] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One line, as Python's `json` prints it and as models are trained: where blanks are free, a model that has lost its
way prints them for ever (llguidance 1.9's bounded `whitespace_pattern` is not bounded in llama.cpp's older copy)."""

Schema = JsonObject | bool

_KNOWN_DIALECT: Final = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/20(19-09|20-12))/schema#?\Z")


class Verdict(Struct, frozen=True):
    """`problem` is a sentence, empty when the schema can be enforced as it is; `grammar` is a `%json` body."""

    problem: str
    grammar: str


def check_schema(schema: Schema) -> Verdict:
    """Whether the schema can be enforced exactly. A hostile one can take for ever: see `grammar_process`."""
    return _judge(schema, lenient=False)


def loosen_schema(schema: Schema) -> Verdict:
    """The same, ignoring keywords that cannot be enforced: for schemas that are not strict."""
    return _judge(schema, lenient=True)


def _key(schema: Schema) -> bytes:
    try:
        return msgspec.json.encode(schema)
    except RecursionError:
        return b"[" * (MAX_BYTES + 1)


def _plain(schema: Schema) -> Schema:
    """Without `x-guidance`, which would let a client switch the enforcement off, and without an unknown dialect."""
    if isinstance(schema, bool):
        return schema
    dropped = {"x-guidance"} if _KNOWN_DIALECT.match(str(schema.get("$schema", ""))) else {"x-guidance", "$schema"}
    return {key: value for key, value in schema.items() if key not in dropped}


def _judge(schema: Schema, *, lenient: bool) -> Verdict:
    if len(_key(schema)) > MAX_BYTES:
        return Verdict(f"the schema is larger than {MAX_BYTES} bytes or nested too deeply", "")
    if problem := _look(schema, lenient=lenient):
        return Verdict(problem, "")
    plain = _plain(schema)
    if plain is False:
        return Verdict("the schema false allows nothing", "")
    body: JsonObject = plain if isinstance(plain, dict) else {}
    if not any(_is_joined(node) for node, _ in _walk(body)) and (closed := _closed(body)) != body:
        verdict = _compile(closed, lenient=lenient)
        if not verdict.problem:
            return verdict
    return _compile(body, lenient=lenient)


def _compile(body: JsonObject, *, lenient: bool) -> Verdict:
    options = LAYOUT | ({"lenient": True} if lenient else {})
    text = msgspec.json.encode({**_timely(body), "x-guidance": options}).decode()
    problem = compile_problem(f"%llguidance {{}}\nstart: %json {text}\n")
    return Verdict(problem, "" if problem else text)


def _timely(node: Any) -> Any:
    """The schema without second 60, which llguidance always allows, and which is valid at the end of a UTC day only."""
    if isinstance(node, list):
        return [_timely(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    held = {keyword: value if keyword in _VALUES else _timely(value) for keyword, value in node.items()}
    if node.get("format") in _TIMES and "pattern" not in node:
        held["pattern"] = _NO_LEAP_SECOND
    return held


def _is_joined(node: Any) -> bool:
    """Whether an object's properties may come from two places: closing one place would shut out the other's."""
    return isinstance(node, dict) and ("allOf" in node or ("$ref" in node and "properties" in node))


def _closed(node: Any) -> Any:
    """The schema with `additionalProperties: false` where it lists properties and does not say.

    What it lets through is still valid; what it keeps out is a small model's endless invention of further properties.
    """
    if isinstance(node, list):
        return [_closed(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    whole = not _COMBINING.intersection(node)
    closed = {
        keyword: {name: _closed(inner) for name, inner in value.items()}
        if keyword in _NAMED and isinstance(value, dict)
        else _closed(value)
        if keyword in _CLOSABLE or (keyword in {"anyOf", "oneOf"} and "properties" not in node)
        else value
        for keyword, value in node.items()
    }
    properties = node.get("properties")
    if whole and isinstance(properties, dict) and properties and set(node.get("required", ())) <= set(properties):
        closed.setdefault("additionalProperties", False)
    return closed


def compile_problem(lark: str) -> str:
    """Compile a grammar, and take one step; the first line of what is wrong, or an empty string."""
    import llguidance

    limits = llguidance.LLParserLimits(verbose_errors=False)
    grammar = llguidance.LLMatcher.grammar_from_lark(lark)
    matcher = llguidance.LLMatcher(_byte_tokenizer(), grammar, limits=limits, log_level=0)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if not matcher.is_error():
        return ""
    return _first_line(matcher.get_error())


def _first_line(message: str) -> str:
    """Without the position in our grammar and the picture of it: neither means anything to a client."""
    line = message.split("\n", 1)[0].strip()
    if "regex parse error" in message:
        line = "a pattern is not a regular expression that can be enforced (no look-around, no back-references)"
    return re.sub(r"^at \d+\(\d+\): ", "", line).removeprefix("failed to compile JSON schema: ").rstrip(":.")


def _look(schema: Schema, *, lenient: bool) -> str:
    """What llguidance would not tell: caps, and keywords it would pass over. Walks schemas, not their values."""
    properties = 0
    for node, depth in _walk(schema):
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            return "a schema must be an object or a boolean"
        if depth > MAX_DEPTH:
            return f"the schema is nested more than {MAX_DEPTH} levels deep"
        properties += len(node.get("properties") or ())
        if properties > MAX_PROPERTIES:
            return f"the schema has more than {MAX_PROPERTIES} properties"
        if problem := _look_at(node, lenient=lenient):
            return problem
    return ""


def _walk(schema: Schema) -> Iterator[tuple[Any, int]]:
    """Every schema inside, and how deep it stands."""
    open_schemas: list[tuple[Any, int]] = [(schema, 0)]
    while open_schemas:
        node, depth = open_schemas.pop()
        yield node, depth
        if isinstance(node, dict):
            open_schemas.extend((inner, depth + 1) for inner in _inner(node))


def _look_at(node: JsonObject, *, lenient: bool) -> str:
    unenforced = sorted(UNENFORCED.intersection(node))
    if unenforced and not lenient:
        return f"the keyword {unenforced[0]!r} cannot be enforced"
    if isinstance(node.get("items"), list) and not lenient:
        return "'items' must be one schema; use 'prefixItems' for tuples"
    if len(node.get("enum") or ()) > MAX_ENUM_VALUES:
        return f"an 'enum' has more than {MAX_ENUM_VALUES} values"
    if len(str(node.get("pattern", ""))) > MAX_PATTERN:
        return f"a 'pattern' is longer than {MAX_PATTERN} characters"
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        return "a '$ref' points outside the schema; only references that begin with '#' can be followed"
    return ""


def _inner(node: JsonObject) -> Iterator[Any]:
    for keyword, value in node.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from value.values()
        elif keyword in _MANY and isinstance(value, list):
            yield from value
        elif keyword in _ONE and isinstance(value, dict):
            yield value


@functools.cache
def _byte_tokenizer() -> Any:
    import llguidance

    return llguidance.LLTokenizer("byte")
