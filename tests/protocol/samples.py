"""Examples made out of a description: of a type of the `openai` package, or of a published schema. Not a test.

From every description come a value with its required keys only, one with all keys, and for each key one value for each
further alternative. So a new kind of item or tool in either source is a new test case.
"""

import collections.abc
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, is_typeddict

import typing_extensions as t

PNG = "data:image/png;base64,iVBORw0KGgo="
WORDS = {
    "image_url": PNG,
    "video_url": "https://a.example/v",
    "url": "https://a.example",
    "schema": "s",
    "status": "completed",
}
NUMBERS = {"top_logprobs": 20}
DEEP = 3


def of_type(kind: Any, name: str = "", depth: int = 0) -> list[Any]:
    """Values of a type as the `openai` package annotates it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (t.Required, t.NotRequired, t.Annotated):
        return of_type(args[0], name, depth)
    if origin in (Union, types.UnionType):
        return [value for arm in args for value in of_type(arm, name, depth)]
    if origin is t.Literal:
        return list(args)
    if is_typeddict(kind) or t.is_typeddict(kind):
        hints = t.get_type_hints(kind, include_extras=True)
        fields = {key: (lambda hint=hint, key=key: of_type(hint, key, depth + 1)) for key, hint in hints.items()}
        required = {key for key, hint in hints.items() if kind.__total__ or get_origin(hint) is t.Required}
        return list(_objects(fields, required, depth))
    if origin is dict or origin is collections.abc.Mapping:
        return [{"key": value} for value in of_type(args[1], name, depth)[:1]]
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence):
        return [[value] for value in of_type(args[0], name, depth)]
    scalars: dict[Any, list[Any]] = {
        str: [WORDS.get(name, "text")],
        int: [NUMBERS.get(name, 1000)],
        float: [0.5],
        bool: [True, False],
        type(None): [None],
        object: [{"type": "object"} if name == "parameters" else "anything"],  # a schema, says the contract
        Any: ["anything"],
    }
    return scalars[kind]


def of_schema(schema: dict[str, Any], schemas: dict[str, Any], name: str = "", depth: int = 0) -> list[Any]:
    """Values of a JSON Schema of the published document."""
    if "$ref" in schema:
        return of_schema(schemas[schema["$ref"].rpartition("/")[2]], schemas, name, depth)
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return [value for arm in schema[union] for value in of_schema(arm, schemas, name, depth)]
    if "allOf" in schema:
        return of_schema(schema["allOf"][0], schemas, name, depth)
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("type") == "object":
        fields = {
            key: (lambda value=value, key=key: of_schema(value, schemas, key, depth + 1))
            for key, value in schema.get("properties", {}).items()
        }
        return list(_objects(fields, set(schema.get("required", ())), depth))
    if schema.get("type") == "array":
        return [[value] for value in of_schema(schema["items"], schemas, name, depth)] or [[]]
    scalars: dict[Any, list[Any]] = {
        "string": [WORDS.get(name, "text")[: schema.get("maxLength")]],
        "integer": [schema.get("minimum", 1)],
        "number": [0.5],
        "boolean": [True, False],
        "null": [None],
        None: ["anything"],
    }
    return scalars[schema.get("type")]


def holds_nothing(value: Any) -> bool:
    """An image or file part without any source somewhere in `value`: valid by type, but nobody could read it."""
    if isinstance(value, list):
        return any(map(holds_nothing, value))
    if not isinstance(value, dict):
        return False
    sources = {"input_image": ("image_url", "file_id"), "input_file": ("file_data", "file_url", "file_id")}
    needed = sources.get(value["type"], ()) if isinstance(value.get("type"), str) else ()
    missing = bool(needed) and all(value.get(key) is None for key in needed)
    return missing or any(map(holds_nothing, value.values()))


def _objects(fields: dict[str, Any], required: set[str], depth: int) -> Iterator[dict[str, Any]]:
    if depth > DEEP:
        yield {key: fields[key]()[0] for key in required}
        return
    values = {key: make() for key, make in fields.items()}
    full = {key: alternatives[0] for key, alternatives in values.items()}
    yield {key: value for key, value in full.items() if key in required}
    yield full
    for key, alternatives in values.items():
        for value in alternatives[1:]:
            yield full | {key: value}
