"""What of a JSON Schema the Messages API can hold Claude to, and how much of it in one request.

Its constrained decoding takes a subset: closed objects, no recursion, few keywords. `closed` says a schema in it, with
what cannot be said as a hint in the description; the response is checked against the whole schema afterwards, by
others. It refuses to guess: a schema whose meaning would change has no form in the subset.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject

_KEPT: Final = frozenset({"type", "enum", "const", "description", "title", "required"})
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_SILENT: Final = frozenset({"$schema", "$id", "$comment", "$anchor", "additionalProperties", "default", "examples"})
"""Keywords that are left out without a hint: they say nothing to a model."""
_UNSAYABLE: Final = frozenset({"patternProperties", "prefixItems", "unevaluatedProperties", "$dynamicRef", "not", "if"})
_UNIONS: Final = ("anyOf", "oneOf", "allOf")
_NAMED: Final = ("$defs", "definitions", "properties")


class _Unsayable(Exception):
    """A schema that has no form in the subset."""


class Room(Struct):
    """How much constrained decoding one request has room for: tools, optional properties, unions."""

    tools: int = 20
    optional: int = 24
    unions: int = 16

    def takes(self, schema: JsonObject, *, tool: bool = True) -> bool:
        """Whether a schema fits beside those before it; then it has its place."""
        optional, unions = _cost(schema)
        left = (self.tools - tool, self.optional - optional, self.unions - unions)
        if min(left) < 0:
            return False
        self.tools, self.optional, self.unions = left
        return True


def closed(schema: JsonObject) -> JsonObject | None:
    """The schema in the subset; None when it has no form there."""
    try:
        if _is_recursive(schema):
            return None
        return _closed(schema)
    except (_Unsayable, RecursionError):
        return None


def tool_schema(parameters: JsonObject) -> JsonObject:
    """Parameters as a tool's `input_schema`: an object at the root, where the API takes no unions."""
    unions: JsonObject = {key: parameters[key] for key in _UNIONS if key in parameters}
    schema = {"type": "object", **{key: value for key, value in parameters.items() if key not in unions}}
    if unions:
        schema["description"] = _described(str(schema.get("description") or ""), unions)
    return schema


def _closed(schema: Any) -> JsonObject:
    if not isinstance(schema, dict) or not schema or _UNSAYABLE & schema.keys():
        raise _Unsayable
    if "$ref" in schema:
        return {"$ref": schema["$ref"]} | _definitions(schema)
    said = {key: value for key, value in schema.items() if key in _KEPT} | _definitions(schema)
    for key in _UNIONS:
        if key in schema:
            said["anyOf" if key == "oneOf" else key] = [_closed(each) for each in schema[key]]
    if _is("object", schema):
        said |= {"properties": _properties(schema), "additionalProperties": False}
    if isinstance(schema.get("items"), dict):
        said["items"] = _closed(schema["items"])
    if schema.get("minItems") in (0, 1):
        said["minItems"] = schema["minItems"]
    if schema.get("format") in _FORMATS:
        said["format"] = schema["format"]
    if not said.keys() & {"type", "enum", "const", "anyOf", "allOf"}:
        raise _Unsayable
    unsaid = {key: value for key, value in schema.items() if key not in said and key not in _SILENT and key != "oneOf"}
    return {**said, "description": _described(said.get("description", ""), unsaid)} if unsaid else said


def _definitions(schema: JsonObject) -> JsonObject:
    kept = {key: schema[key] for key in ("$defs", "definitions") if isinstance(schema.get(key), dict)}
    return {key: {name: _closed(each) for name, each in value.items()} for key, value in kept.items()}


def _properties(schema: JsonObject) -> JsonObject:
    """An object's properties. One that takes any others, and names none, would be empty when it is closed."""
    named, others = schema.get("properties"), schema.get("additionalProperties", True)
    if isinstance(others, dict) or (others is True and not named):
        raise _Unsayable
    return {name: _closed(each) for name, each in (named or {}).items()}


def _described(description: str, unsaid: JsonObject) -> str:
    hint = "It must keep to: " + msgspec.json.encode(unsaid).decode()
    return f"{description}\n\n{hint}" if description else hint


def _is(kind: str, schema: JsonObject) -> bool:
    asked = schema.get("type")
    return asked == kind or (isinstance(asked, list) and kind in asked)


def _is_recursive(schema: JsonObject) -> bool:
    """Whether a definition leads to itself, or a reference to anything but a definition."""
    defined = {f"#/{key}/{name}": each for key in _NAMED[:2] for name, each in (schema.get(key) or {}).items()}
    uses = {name: set(_references(each)) for name, each in defined.items()}
    if any(each not in defined for each in _references(schema)):
        return True
    while uses:
        free = [name for name, used in uses.items() if not used & uses.keys()]
        if not free:
            return True
        for name in free:
            del uses[name]
    return False


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for each in schema.values():
            yield from _references(each)


def _cost(schema: Any) -> tuple[int, int]:
    """Optional properties and unions, all through a schema."""
    if isinstance(schema, list):
        costs = [_cost(each) for each in schema]
        return sum(optional for optional, _ in costs), sum(unions for _, unions in costs)
    if not isinstance(schema, dict):
        return 0, 0
    optional, unions = _cost(list(schema.values()))
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = schema.get("required")
        optional += len(properties.keys() - set(required if isinstance(required, list) else ()))
    return optional, unions + (isinstance(schema.get("type"), list) or "anyOf" in schema)
