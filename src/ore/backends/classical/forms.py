"""What an answer looks like: the schema that a model publishes, or the caller's own, filled by names and types.

A schema that cannot be filled is a 400 that names what cannot be: a model never makes a value up. Nothing here
predicts.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.classical.predictor import Kind, Label, Predictor, key_of
from ore.backends.classical.published import (
    ROWS,
    VERSION,
    answer_schema,
    one_schema,
    output_schema,
    several_schema,
)
from ore.core.structured import schema_problem
from ore.errors import InvalidRequest
from ore.protocol.decoding import quoted


class Form(Struct, frozen=True):
    """JSON text of rows: `head`, the rows with commas between them, `tail`. `row` makes the value of one of them."""

    row: Callable[[JsonObject], Any]
    head: str = ""
    tail: str = ""

    def text(self, answer: JsonObject, at: int, count: int) -> str:
        """The piece of JSON that tells the answer of the row at this place, of so many."""
        before = self.head if at == 0 else ","
        after = self.tail if at == count - 1 else ""
        return f"{before}{msgspec.json.encode(self.row(answer)).decode()}{after}"


def form_of(text_format: JsonObject, predictor: Predictor, count: int, *, many: bool) -> Form:
    """The form that a request asks for. Raises `InvalidRequest` for a schema that cannot be filled."""
    own = text_format.get("schema")
    if own is None or own == output_schema(predictor):
        return _published(predictor, many=many)
    if own in (one_schema(predictor), several_schema(predictor)) and (count == 1 or own == several_schema(predictor)):
        return _published(predictor, many=own == several_schema(predictor))
    try:
        if problem := schema_problem(own):
            raise _Unfillable(problem)
        return _Mapping(own, predictor).form(count, many=many)
    except (_Unfillable, TypeError) as problem:  # an older draft leaves parts of a schema unchecked
        raise InvalidRequest(
            f"'text.format' cannot be filled by this model: {problem}. It gives {_offer(predictor)}; GET /v1/models "
            "has its whole schema.",
            code="invalid_json_schema",
            param="text.format.schema",
        ) from None


def _published(predictor: Predictor, *, many: bool) -> Form:
    version = msgspec.json.encode(predictor.version).decode()
    if many:
        return Form(lambda answer: answer, f'{{"{ROWS}":[', f'],"{VERSION}":{version}}}')
    return Form(lambda answer: {**answer, VERSION: predictor.version})


def _offer(predictor: Predictor) -> str:
    """The values of a row, in words."""
    named = ", ".join(quoted(key_of(label)) for label in predictor.classes[:20])
    words = {
        "label": f"label (one of {named})",
        "probabilities": "probabilities (by class) and probability (of the label)",
        "prediction": "prediction (a number)" if predictor.outputs == 1 else "prediction (an array of numbers)",
        "cluster": "cluster (an integer)",
        "outlier": "outlier (a boolean)",
        "score": "score (a number, below 0 for outliers)",
    }
    return ", ".join([*(words[key] for key in answer_schema(predictor)), "model_version (a string)"])


# The caller's own schema


class _Unfillable(Exception):
    """The end of a sentence: what cannot be filled, and why."""


Fill = Callable[[JsonObject], Any]
"""From what a model says of a row to the value of a property."""

_SOURCES: Final[Mapping[Kind, Mapping[str, str]]] = {
    "classification": {
        **dict.fromkeys(("label", "class", "class_", "category", "prediction", "predicted", "intent"), "label"),
        **dict.fromkeys(("probability", "confidence", "score"), "probability"),
        **dict.fromkeys(("probabilities", "scores"), "probabilities"),
    },
    "regression": dict.fromkeys(("prediction", "predicted", "value", "score", "target"), "prediction"),
    "clustering": dict.fromkeys(("cluster", "label", "prediction", "group"), "cluster"),
    "outliers": {
        **dict.fromkeys(("outlier", "is_outlier", "anomaly", "is_anomaly"), "outlier"),
        "score": "score",
    },
}
"""Names that callers use, and what they mean."""

_VERSIONS: Final = (VERSION, "version")

_NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "$defs", "definitions", "$schema", "$comment"}
)
"""Keywords that hold nobody to anything."""

_OBJECT: Final = frozenset({"type", "properties", "required", "additionalProperties"})

_REFERENCE: Final = re.compile(r"#/(?P<place>\$defs|definitions)/(?P<name>[^/~]+)")

_DEEPEST: Final = 32
"""References that lead to references."""


class _Mapping:
    """A caller's schema against what a model says."""

    def __init__(self, schema: JsonObject, predictor: Predictor) -> None:
        self._root = schema
        self._predictor = predictor

    def form(self, count: int, *, many: bool) -> Form:
        root = self._resolved(self._root, "the schema")
        if root.get("type") == "array":
            return Form(self._items(root, "the schema", count), "[", "]")
        properties = self._properties(root, "the schema")
        arrays = [name for name in properties if self._holds_rows(properties[name], name)]
        if not arrays:
            if many and count > 1:
                raise _Unfillable(f"it describes one row, and the input has {count}: put an array of rows into it")
            return Form(self._row(root, "the schema"))
        if len(arrays) > 1:
            raise _Unfillable(f"{quoted(arrays[0])} and {quoted(arrays[1])} are both arrays of rows")
        return self._wrapped(root, properties, arrays[0], count)

    def _wrapped(self, root: JsonObject, properties: JsonObject, rows: str, count: int) -> Form:
        """An object with an array of rows, and what holds for all of them beside it."""
        fills = self._fills(root, {name: each for name, each in properties.items() if name != rows}, "the schema")
        beside = {name: fill({}) for name, fill in fills.items()} if set(fills) <= set(_VERSIONS) else None
        if beside is None:
            foreign = next(name for name in fills if name not in _VERSIONS)
            raise _Unfillable(f"{quoted(foreign)} stands beside an array of rows, and differs from row to row")
        tail = "".join(f",{_json(name)}:{_json(value)}" for name, value in beside.items())
        return Form(self._items(properties[rows], rows, count), f"{{{_json(rows)}:[", f"]{tail}}}")

    def _items(self, schema: JsonObject, at: str, count: int) -> Fill:
        schema = self._resolved(schema, at)
        self._check_keywords(schema, {"type", "items", "minItems", "maxItems"}, at)
        if not schema.get("minItems", 0) <= count <= schema.get("maxItems", count):
            raise _Unfillable(f"{at} may not have {count} entries, one for each row of the input")
        items = schema.get("items")
        if not isinstance(items, dict):
            raise _Unfillable(f"{at} has no 'items'")
        return self._row(self._resolved(items, at), at)

    def _holds_rows(self, schema: Any, name: str) -> bool:
        """Whether a property is an array of objects."""
        found = self._resolved(schema, name)
        items = found.get("items")
        is_array = found.get("type") == "array" and isinstance(items, dict)
        return is_array and self._resolved(items, name).get("type") == "object"

    def _row(self, schema: JsonObject, at: str) -> Fill:
        fills = self._fills(schema, self._properties(schema, at), at)
        if not fills:
            raise _Unfillable(f"{at} has no property that it could fill")
        return lambda answer: {name: fill(answer) for name, fill in fills.items()}

    def _properties(self, schema: JsonObject, at: str) -> JsonObject:
        self._check_keywords(schema, _OBJECT, at)
        properties = schema.get("properties")
        if schema.get("type") != "object" or not isinstance(properties, dict):
            raise _Unfillable(f"{at} is no object with 'properties'")
        return properties

    def _fills(self, schema: JsonObject, properties: JsonObject, at: str) -> dict[str, Fill]:
        """A fill for each property; one that is not required is left out when there is none for it."""
        required = schema.get("required", [])
        known: dict[str, Fill] = {}
        for name, each in properties.items():
            try:
                known[name] = self._fill(name, self._resolved(each, quoted(name)))
            except _Unfillable:
                if name in required:
                    raise
        if foreign := [name for name in required if name not in self._properties(schema, at)]:
            raise _Unfillable(f"{quoted(foreign[0])} is required and has no schema")
        return known

    def _fill(self, name: str, schema: JsonObject) -> Fill:
        """By its name; or, where that tells nothing, by an enum of the classes."""
        predictor, source = self._predictor, _SOURCES[self._predictor.kind].get(name.lower())
        if name.lower() in _VERSIONS:
            return self._version(name, schema)
        if source is None and predictor.kind == "classification" and "enum" in schema:
            source = "label"
        if source is None or (source in ("probability", "probabilities") and not predictor.probabilities):
            raise _Unfillable(f"{quoted(name)} is nothing that it says")
        if source == "label":
            return self._label(name, schema)
        if source == "probabilities":
            return self._probabilities(name, schema)
        return self._plain(name, source, schema)

    def _version(self, name: str, schema: JsonObject) -> Fill:
        self._check_keywords(schema, {"type", "const"}, quoted(name))
        version = self._predictor.version
        if schema.get("type", "string") != "string" or schema.get("const", version) != version:
            raise _Unfillable(f"{quoted(name)} is not a string with its version")
        return lambda _: version

    def _label(self, name: str, schema: JsonObject) -> Fill:
        """The class as the type wants it: as text too, where the classes are numbers."""
        self._check_keywords(schema, {"type", "enum"}, quoted(name))
        classes, wanted, allowed = self._predictor.classes, schema.get("type"), schema.get("enum")
        as_text = wanted == "string" or (wanted is None and allowed is not None and not _has_all(allowed, classes))
        told: Sequence[Label] = [key_of(label) for label in classes] if as_text else classes
        if wanted is not None and not all(_is_a(label, wanted) for label in told):
            raise _Unfillable(f"{quoted(name)} is of type {quoted(str(wanted))}, which its classes are not")
        missing = [label for label in told if allowed is not None and not _has_all(allowed, [label])]
        if missing:
            raise _Unfillable(f"the enum of {quoted(name)} lacks its class {quoted(key_of(missing[0]))}")
        return (lambda answer: key_of(answer["label"])) if as_text else (lambda answer: answer["label"])

    def _probabilities(self, name: str, schema: JsonObject) -> Fill:
        """All of them by class, or those that are named."""
        self._check_keywords(schema, _OBJECT, quoted(name))
        keys, properties = [key_of(label) for label in self._predictor.classes], schema.get("properties", {})
        other, required = schema.get("additionalProperties", True), schema.get("required", [])
        foreign = [key for key in (*required, *properties) if key not in keys]
        if schema.get("type") != "object" or foreign:
            what = f"names {quoted(foreign[0])}, which is none of its classes" if foreign else "is no object"
            raise _Unfillable(f"{quoted(name)} {what}")
        for key, each in properties.items():
            self._check_number(self._resolved(each, quoted(key)), key)
        if isinstance(other, dict) and other:
            self._check_number(self._resolved(other, quoted(name)), name)
        wanted = [key for key in keys if key in properties or other is not False]
        return lambda answer: {key: answer["probabilities"][key] for key in wanted}

    def _plain(self, name: str, source: str, schema: JsonObject) -> Fill:
        if source == "probability":
            self._check_number(schema, name)
            return lambda answer: answer["probabilities"][key_of(answer["label"])]
        if source == "prediction" and self._predictor.outputs > 1:
            self._check_keywords(schema, {"type", "items"}, quoted(name))
            if schema != {**schema, "type": "array", "items": {"type": "number"}}:
                raise _Unfillable(f"{quoted(name)} is no array of numbers")
            return lambda answer: answer[source]
        wanted = {"cluster": "integer", "outlier": "boolean"}.get(source, "number")
        self._check_keywords(schema, {"type"}, quoted(name))
        if schema.get("type") not in (wanted, {"integer": "number"}.get(wanted)):
            raise _Unfillable(f"{quoted(name)} is not of type {wanted}")
        return lambda answer: answer[source]

    def _check_number(self, schema: JsonObject, name: str) -> None:
        """A number that takes every probability."""
        self._check_keywords(schema, {"type", "minimum", "maximum"}, quoted(name))
        if schema.get("type") != "number":
            raise _Unfillable(f"{quoted(name)} is not of type number")
        if schema.get("minimum", 0) > 0 or schema.get("maximum", 1) < 1:
            raise _Unfillable(f"{quoted(name)} does not take every number from 0 to 1")

    def _check_keywords(self, schema: JsonObject, known: Collection[str], at: str) -> None:
        if foreign := [keyword for keyword in schema if keyword not in known and keyword not in _NOTES]:
            raise _Unfillable(f"it cannot be held to {quoted(foreign[0])} at {at}")

    def _resolved(self, schema: Any, at: str) -> JsonObject:
        """The schema itself: references followed, and the one alternative taken that is not null."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, dict):
                raise _Unfillable(f"{at} has no schema")
            if "$ref" in schema:
                schema = self._referred(str(schema["$ref"]))
            elif isinstance(schema.get("anyOf"), list):
                alternatives = [each for each in schema["anyOf"] if each != {"type": "null"}]
                if len(alternatives) != 1:
                    raise _Unfillable(f"{at} has alternatives, and it does not know which to take")
                schema = alternatives[0]
            elif isinstance(schema.get("type"), list) and len(types := set(schema["type"]) - {"null"}) == 1:
                schema = {**schema, "type": types.pop()}
            else:
                return schema
        raise _Unfillable(f"the references of {at} lead in circles")

    def _referred(self, reference: str) -> Any:
        found = _REFERENCE.fullmatch(reference)
        place = self._root.get(found["place"]) if found else None
        if not found or not isinstance(place, dict) or found["name"] not in place:
            raise _Unfillable(f"the reference {quoted(reference)} leads nowhere")
        return place[found["name"]]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
}


def _is_a(value: Any, type: Any) -> bool:
    return isinstance(type, str) and type in _TYPES and _TYPES[type](value)


def _has_all(allowed: Any, labels: Sequence[Label]) -> bool:
    """Whether an enum has these. In Python, unlike in JSON, true is 1."""
    pairs = [(type(each) is bool, each) for each in allowed] if isinstance(allowed, list) else []
    return all((type(label) is bool, label) in pairs for label in labels)
