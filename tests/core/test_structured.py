"""Structured output: what does not match is found, nothing is fetched, and no schema takes long or breaks out."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ore.core.structured import MAX_REASON, mismatch

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "value": {"type": "integer"}}}

MATCHING: dict[str, tuple[dict[str, Any], str]] = {
    "anything": ({}, "1"),
    "an object": (PERSON, '{"name":"a","tags":[1,2]}'),
    "white space": (PERSON, ' {"name": "a"}\n'),
    "recursive": (TREE, '{"left":{"left":{"value":1}}}'),
    "$schema": ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "integer"}, "1"),
    "a reference inside": ({"$defs": {"n": {"type": "null"}}, "$ref": "#/$defs/n"}, "null"),
}


@pytest.mark.parametrize(("schema", "text"), MATCHING.values(), ids=MATCHING)
def test_what_matches_passes(schema: dict[str, Any], text: str) -> None:
    """JSON that is what the schema asks for has no problem."""
    assert mismatch(schema, text) is None


NOT_MATCHING: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": (PERSON, "", "it is not JSON"),
    "prose": (PERSON, "Here you are: {}", "it is not JSON"),
    "cut off": (PERSON, '{"name":"a', "it is not JSON"),
    "fenced": (PERSON, '```json\n{"name":"a"}\n```', "it is not JSON"),
    "two values": (PERSON, '{"name":"a"}{}', "it is not JSON"),
    "NaN": ({}, "NaN", "it is not JSON"),
    "half a surrogate": ({}, '"\\ud800"', "it is not JSON"),
    "half a surrogate, raw": ({}, '"\ud800"', "it is not JSON"),
    "very deep": ({}, "[" * 100_000 + "]" * 100_000, "nested"),
    "missing": (PERSON, "{}", "at the root:"),
    "extra": (PERSON, '{"name":"a","b":1}', "at the root:"),
    "deep inside": (PERSON, '{"name":"a","tags":[1,"x"]}', "at tags/1:"),
    "another type": ({"type": "object"}, "[]", "at the root:"),
    "a broken schema": ({"type": 5}, "1", "the schema cannot be checked"),
    "a broken pattern": ({"pattern": "("}, '"a"', "the schema cannot be checked"),
    "a reference to nowhere": ({"$ref": "#/$defs/none"}, "1", "the schema cannot be checked"),
}


@pytest.mark.parametrize(("schema", "text", "reason"), NOT_MATCHING.values(), ids=NOT_MATCHING)
def test_what_does_not_match_is_said_in_a_sentence(schema: dict[str, Any], text: str, reason: str) -> None:
    """The reason names the place, on one line and without the whole answer."""
    found = mismatch(schema, text)
    assert found is not None
    assert reason in found
    assert "\n" not in found


def test_a_long_answer_is_not_repeated() -> None:
    """The reason goes into an error message, so a long value is shortened."""
    found = mismatch({"type": "integer"}, '"' + "x" * 100_000 + '"')
    assert found is not None
    assert len(found) < 2 * MAX_REASON


def test_a_reference_that_leaves_the_schema_is_not_followed(tmp_path: Path) -> None:
    """Neither the network nor a file is touched: the schema comes from a stranger."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"type":"integer"}')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        for reference in (address, f"{address}#/a", secret.as_uri(), "other.json"):
            for schema in ({"$ref": reference}, {"properties": {"a": {"$ref": reference}}}):
                assert "the schema cannot be checked" in str(mismatch(schema, '{"a":1}'))
        with pytest.raises(BlockingIOError):
            listener.accept()


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "nested quantifiers": ({"pattern": "^(a+)+$"}, '"' + "a" * 20_000 + '!"'),
    "alternation": ({"pattern": "^(a|a)*$"}, '"' + "a" * 20_000 + '!"'),
    "with a look-ahead": ({"pattern": "^(?=a)(a+)+$"}, '"' + "a" * 5_000 + '!"'),
    "back reference": ({"pattern": r"^(a+)\1+$"}, '"' + "a" * 2_000 + '!"'),
    "counted repetition": ({"pattern": "^(a{1,1000}){1,1000}$"}, '"' + "a" * 1_000 + '!"'),
    "itself": ({"$ref": "#"}, "1"),
    "itself through another": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "1",
    ),
    "all of itself": ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "1"),
    "ten thousand words": ({"enum": [str(n) for n in range(10_000)]}, '"x"'),
}


@pytest.mark.parametrize(("schema", "text"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(20)
def test_no_schema_runs_away(schema: dict[str, Any], text: str) -> None:
    """Schemas that are made to hang or to overflow end like any other."""
    found = mismatch(schema, text)
    assert found is None or isinstance(found, str)


# Any text against any of the schemas is a match or a reason, and never an exception.
@settings(deadline=None, max_examples=150)
@given(st.sampled_from([PERSON, TREE, {}, {"type": "object"}]), st.text('{}[]":,ntrufalse01-.e \\', max_size=30))
def test_any_text_is_judged(schema: dict[str, Any], text: str) -> None:
    """What a model writes never breaks the judge."""
    found = mismatch(schema, text)
    assert found is None or found
