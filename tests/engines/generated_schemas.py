"""JSON Schemas by dice, for the strictness kit: what real clients send, small enough that random weights finish.

Every string is bounded by a length, an enum, a pattern or a format, and every list by a size, because a model that
knows nothing ends none by itself. One in twelve has a keyword that no engine can enforce (`UNENFORCEABLE`), which must
be refused by its name.
"""

import random
from collections.abc import Callable
from typing import Any, Final

Schema = dict[str, Any]

WORDS: Final = (
    "red",
    "blue",
    "\u00e9t\u00e9",
    "\u4f60\u597d",
    'quo"te',
    "back\\slash",
    "",
    "two words",
    "0",
    "null",
    "</s>",
)
NAMES: Final = ("a", "name", "value_2", "\u00fcber", "with space", "$id_", "x-y", "items", "type")
FORMATS: Final = ("date", "time", "date-time", "duration", "uuid", "ipv4", "ipv6", "hostname", "email")
PATTERNS: Final = (
    "^[a-c]{2,4}$",
    "^\\d{3}-\\d{4}$",
    "^(yes|no|maybe)$",
    "^[A-Z][a-z]{0,5}$",
    "^[0-9a-f]{8}$",
    "^v\\d{1,2}\\.\\d{1,2}$",
    "^[^\\s]{1,4}$",
    "^(?:ab){1,3}c?$",
)
UNENFORCEABLE: Final[tuple[tuple[str, Schema], ...]] = (
    ("not", {"type": "integer", "not": {"const": 3}}),
    ("if", {"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 5}}),
    ("uniqueItems", {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}),
    ("contains", {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "contains": {"const": 1}}),
    ("propertyNames", {"type": "object", "propertyNames": {"maxLength": 3}, "maxProperties": 1}),
    ("dependentRequired", {"type": "object", "properties": {"a": {"const": 1}}, "dependentRequired": {"a": ["b"]}}),
    ("unevaluatedProperties", {"type": "object", "unevaluatedProperties": False}),
)


def schemas(count: int, seed: int = 0) -> list[tuple[Schema, str]]:
    """Schemas, each with the keyword that must be named when it is refused; empty: it must be enforced or refused."""
    return [_schema(random.Random(f"{seed}/{number}"), number) for number in range(count)]


def _schema(dice: random.Random, number: int) -> tuple[Schema, str]:
    if number % 12 == 11:
        keyword, inner = UNENFORCEABLE[number // 12 % len(UNENFORCEABLE)]
        return _object(dice, 1, {"held": inner}), keyword
    if number % 12 == 5:
        return _recursive(dice), ""
    return _object(dice, 0, {}), ""


def _object(dice: random.Random, depth: int, properties: dict[str, Schema]) -> Schema:
    names = dice.sample(NAMES, dice.randint(1, 3))
    properties = {**{name: _value(dice, depth + 1) for name in names}, **properties}
    required = list(properties) if dice.random() < 0.7 else dice.sample(sorted(properties), 1)
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    if dice.random() < 0.8:
        schema["additionalProperties"] = False
    if dice.random() < 0.2:
        schema |= {"title": "T", "description": 'what it "is"', "$comment": "none"}
    return schema


def _recursive(dice: random.Random) -> Schema:
    """A list or a tree that refers to itself; it is as likely to end as to go on."""
    leaf = _scalar(dice)
    node = {
        "type": "object",
        "properties": {"leaf": leaf, "next": {"anyOf": [{"type": "null"}, leaf, {"$ref": "#/$defs/node"}]}},
        "required": ["leaf", "next"],
        "additionalProperties": False,
    }
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}


def _value(dice: random.Random, depth: int) -> Schema:
    if depth >= 3 or dice.random() < 0.5:
        return _scalar(dice)
    return dice.choice(NESTED)(dice, depth)


def _scalar(dice: random.Random) -> Schema:
    return dice.choice(SCALARS)(dice)


def _enum(dice: random.Random) -> Schema:
    return {"enum": dice.sample([*WORDS, 0, 1, -7, 2.5, True, None, [1, "x"], {"k": []}], dice.randint(1, 5))}


def _const(dice: random.Random) -> Schema:
    return {"const": dice.choice([*WORDS, 3, None, False, {"deep": [1, None, "\u00e9"]}])}


def _integer(dice: random.Random) -> Schema:
    low = dice.randint(-1000, 1000)
    schema: Schema = {"type": "integer", "minimum": low, "maximum": low + dice.randint(0, 500)}
    if dice.random() < 0.2:
        schema = {"type": "integer", "minimum": 0, "maximum": 99, "multipleOf": dice.choice([2, 5, 7])}
    return schema


def _number(dice: random.Random) -> Schema:
    low = dice.randint(-20, 20)
    edge = dice.choice(["minimum", "exclusiveMinimum"])
    return {"type": "number", edge: low, dice.choice(["maximum", "exclusiveMaximum"]): low + dice.randint(1, 9)}


def _text(dice: random.Random) -> Schema:
    low = dice.randint(0, 3)
    return {"type": "string", "minLength": low, "maxLength": low + dice.randint(0, 5)}


def _pattern(dice: random.Random) -> Schema:
    return {"type": "string", "pattern": dice.choice(PATTERNS)}


def _format(dice: random.Random) -> Schema:
    name = dice.choice(FORMATS)
    return {"type": "string", "format": name} | ({"maxLength": 24} if name in ("hostname", "email") else {})


def _types(dice: random.Random) -> Schema:
    return {"type": dice.sample(["string", "boolean", "null"], 2), "maxLength": 4}


def _array(dice: random.Random, depth: int) -> Schema:
    least = dice.randint(0, 2)
    return {
        "type": "array",
        "items": _value(dice, depth + 1),
        "minItems": least,
        "maxItems": least + dice.randint(0, 2),
    }


def _tuple(dice: random.Random, depth: int) -> Schema:
    items = [_value(dice, depth + 1) for _ in range(dice.randint(1, 3))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _either(dice: random.Random, depth: int) -> Schema:
    return {"anyOf": [_value(dice, depth + 1) for _ in range(dice.randint(2, 3))]}


def _kinds(dice: random.Random, depth: int) -> Schema:
    """A union told apart by a constant, as clients write them."""
    ways = [_object(dice, depth, {"kind": {"const": kind}}) for kind in ("a", "b")]
    return {"anyOf": [way | {"required": list(way["properties"]), "additionalProperties": False} for way in ways]}


def _inner(dice: random.Random, depth: int) -> Schema:
    return _object(dice, depth, {})


def _pairs(dice: random.Random, _: int) -> Schema:
    """An object whose keys are not known before."""
    return {
        "type": "object",
        "patternProperties": {"^k[0-9]$": _scalar(dice)},
        "additionalProperties": False,
        "maxProperties": 2,
    }


SCALARS: Final[tuple[Callable[[random.Random], Schema], ...]] = (
    _enum,
    _const,
    _integer,
    _number,
    _text,
    _pattern,
    _format,
    _types,
    lambda _: {"type": "boolean"},
    lambda _: {"type": "null"},
)
NESTED: Final[tuple[Callable[[random.Random, int], Schema], ...]] = (_array, _tuple, _either, _kinds, _inner, _pairs)
