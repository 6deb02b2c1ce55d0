"""The check of structured output ends, whatever the schema."""

from typing import Any

import pytest

from ore.core import structured
from ore.runs.judge import Judge

pytestmark = pytest.mark.anyio


def doubling(depth: int) -> dict[str, Any]:
    """A kilobyte of references that stand for 2 ** depth schemas."""
    definitions: dict[str, Any] = {
        f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]} for n in range(depth)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{depth}": {"type": "integer"}}}


TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
    "additionalProperties": False,
}


async def test_a_schema_that_explodes_is_given_up() -> None:
    """It does not match then; and the next question is answered."""
    judge = Judge(cpu_limit=0.3)
    try:
        assert "takes too long" in str(await judge.mismatch(doubling(30), '"a"'))
        assert await judge.mismatch(doubling(3), "7") is None
    finally:
        await judge.stop()


@pytest.mark.parametrize("text", ['{"left": {}}', '{"left": 1}', '{"up": {}}', "{", '{"left": "\\ud800"}'])
@pytest.mark.parametrize("schema", [TREE, {"type": "object"}], ids=["references", "none"])
async def test_it_says_what_the_function_says(schema: dict[str, Any], text: str) -> None:
    """In the process and beside it."""
    judge = Judge()
    try:
        assert await judge.mismatch(schema, text) == structured.mismatch(schema, text)
    finally:
        await judge.stop()
        await judge.stop()
