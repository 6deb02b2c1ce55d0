"""Which parameters can be written one by one, and how they are read back."""

from typing import Any

import msgspec
import pytest

from ore.backends.local.families import GLM, QWEN_CODER
from ore.backends.local.written_arguments import ArgumentReader, plain_parameters
from ore.core.callable_tools import CallableTool, callable_tools


def tool(properties: Any, **schema: Any) -> CallableTool:
    parameters = {"type": "object", "properties": properties, "additionalProperties": False, **schema}
    (made,) = callable_tools([{"type": "function", "name": "f", "parameters": parameters}])
    return made


@pytest.mark.parametrize(
    ("schema", "raw"),
    [
        ({"type": "string", "description": "x"}, True),
        ({}, True),
        ({"type": ["string", "null"]}, True),
        ({"enum": ["a b", "c"], "type": "string"}, True),
        ({"type": "integer", "minimum": 3}, False),
        ({"type": "array", "items": {"type": "string", "pattern": "a"}}, False),
        ({"type": ["object", "null"]}, False),
    ],
    ids=str,
)
def test_plain(schema: Any, raw: bool) -> None:
    parameters = plain_parameters(tool({"a": schema}, required=["a"]))
    assert parameters is not None
    assert [(each.key, each.required, each.raw) for each in parameters] == [("a", True, raw)]


@pytest.mark.parametrize(
    ("properties", "rest"),
    [
        ({"a": {"type": "string", "maxLength": 3}}, {}),
        ({"a": {"type": "string", "format": "date"}}, {}),
        ({"a": {"enum": ["x", 1]}}, {}),
        ({"a": {"type": "string", "enum": ["a<b"]}}, {}),
        ({"a": {"anyOf": [{"type": "string"}]}}, {}),
        ({"a": {"type": "array", "items": {"$ref": "#"}}}, {}),
        ({"a b": {"type": "string"}}, {}),
        ({"a": True}, {}),
        ({"a": {}}, {"required": ["b"]}),
        ({"a": {}}, {"minProperties": 1}),
        ({}, {"additionalProperties": True}),
    ],
    ids=str,
)
def test_what_raw_text_cannot_hold_is_written_as_json(properties: Any, rest: Any) -> None:
    assert plain_parameters(tool(properties, **rest)) is None


def test_nothing_is_plain_too() -> None:
    assert plain_parameters(tool({})) == []


ONE = "<parameter=%s>\n%s\n</parameter>\n"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "string"}, ' "x"\n', ' "x"\n'),
        ({"type": "string"}, "", ""),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "12", "12"),
        ({}, "[1, 2]", [1, 2]),
        ({}, '"x"', '"x"'),
        ({"type": "boolean"}, " true ", True),
        ({"type": "integer"}, "true", "true"),
        ({"type": "number"}, "1.50", 1.5),
    ],
)
def test_values_are_read_by_their_types(schema: Any, text: str, value: Any) -> None:
    assert QWEN_CODER.parameters is not None
    reader = ArgumentReader(QWEN_CODER.parameters, ("</function>",), tool({"a": schema}), custom=False)
    piece, used = reader.feed(ONE % ("a", text) + "</function>")
    assert (reader.done, used) == (True, len(ONE % ("a", text)))
    assert msgspec.json.decode(piece) == {"a": value}


def test_unknown_arguments_are_handed_on() -> None:
    assert GLM.parameters is not None
    reader = ArgumentReader(GLM.parameters, ("", "</tool_call>"), None, custom=False)
    text = "<arg_key>a</arg_key>\n<arg_value>x\n</arg_value>\n<arg_key>b</arg_key>\n<arg_value>1</arg_value>\n"
    piece, _ = reader.feed(text)
    assert msgspec.json.decode(piece + reader.rest()) == {"a": "x\n", "b": 1}
