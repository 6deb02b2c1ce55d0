"""Grammars are compiled in a process that dies rather than work for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from local_families import TEMPLATES, markup_of

from ore.backends.base import ModelRequest
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.grammar import build_grammar
from ore.backends.local.grammar_process import GrammarCompiler
from ore.backends.local.markup import Markup
from ore.errors import InvalidRequest

pytestmark = pytest.mark.anyio

PLAIN = Markup()
TOOL: dict[str, Any] = {"type": "function", "name": "add", "parameters": {"type": "object"}}
ENDLESS: dict[str, Any] = {
    "number": {"type": "integer", "multipleOf": 99_999_999},
    "patterns": {"allOf": [{"type": "string", "pattern": f".*q{i}.*"} for i in range(30)]},
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    made = GrammarCompiler(cpu_limit=0.3)
    yield made
    await made.stop()
    await made.stop()


def asks(schema: Any = None, **fields: Any) -> ModelRequest:
    form = {"type": "text"} if schema is None else {"type": "json_schema", "name": "n", "schema": schema}
    return ModelRequest(model="m", items=(), text_format=form, **fields)


async def test_gives_what_the_function_gives(compiler: GrammarCompiler) -> None:
    request = asks({"const": "é"}, tools=(TOOL,))
    expected = build_grammar(request, plan_tools(request), PLAIN)
    assert await compiler.build(request, PLAIN) == expected
    assert await compiler.build(request, PLAIN) == expected
    assert await compiler.build(asks(), PLAIN) == ""


@pytest.mark.parametrize("family", TEMPLATES)
async def test_every_familys_markup_reaches_the_far_end(compiler: GrammarCompiler, family: str) -> None:
    request, markup = asks(tools=(TOOL,), tool_choice="required"), markup_of(family)
    assert await compiler.build(request, markup) == build_grammar(request, plan_tools(request), markup)


async def test_hands_on_the_refusal(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="'not'") as caught:
        await compiler.build(asks(tools=(TOOL | {"strict": True, "parameters": {"not": {}}},)), PLAIN)
    assert (caught.value.code, caught.value.param) == ("invalid_function_parameters", "tools[0].parameters")


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS.keys())
async def test_an_endless_schema_is_a_400_and_the_next_request_works(compiler: GrammarCompiler, schema: Any) -> None:
    with pytest.raises(InvalidRequest, match="too long") as caught:
        await compiler.build(asks(schema), PLAIN)
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "text.format.schema")
    assert await compiler.build(asks({"const": str(schema)[:9]}), PLAIN)


HOSTILE_LARK: dict[str, str] = {
    "intersections": "start: A\nA: " + " & ".join(f"/(?s:.*)q{i}(?s:.*)/" for i in range(14)),
    "not closed": "start: " + "(" * 500,
    "a circle": "start: start",
    "large": "start: A\n" + "// very long\n" * 100_000,
}


@pytest.mark.parametrize("definition", HOSTILE_LARK.values(), ids=HOSTILE_LARK)
async def test_hostile_lark_grammars_are_refused(compiler: GrammarCompiler, definition: str) -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": definition}
    with pytest.raises(InvalidRequest) as caught:
        await compiler.build(asks(tools=(TOOL, {"type": "custom", "name": "c", "format": form})), PLAIN)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "tools[1].format.definition")


@pytest.mark.parametrize("schema", [{"description": "x" * 3_000_000}, {"type": "string", "pattern": "\ud800"}], ids=len)
async def test_odd_schemas_are_refused(compiler: GrammarCompiler, schema: Any) -> None:
    with pytest.raises(InvalidRequest):
        await compiler.build(asks(schema), PLAIN)


async def test_nobody_gets_the_answer_of_one_who_left(compiler: GrammarCompiler) -> None:
    left = asyncio.ensure_future(compiler.build(asks({"const": "left"}), PLAIN))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await left
    assert '"stayed"' in await compiler.build(asks({"const": "stayed"}), PLAIN)


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, compiler: GrammarCompiler) -> None:
    monkeypatch.setattr("ore.backends.local.grammar_process.MAX_CACHE_BYTES", 2_000)
    for i in range(6):
        await compiler.build(asks({"const": f"value {i}"}), PLAIN)
    assert compiler._known_bytes <= 2_000
    assert len(compiler._known) < 6
