"""What is Candle's own, beside the contract that every engine keeps (`tests/engines`)."""

from pathlib import Path

import pytest

from engines.asking import HOT, ask, finish_of, run, text_of
from engines.engine_rows import Wanted, running
from ore.backends.local.candle_worker import _QUOTED, _unescaped
from ore.errors import InvalidRequest

pytest.importorskip("mistralrs")
pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.mark.parametrize("schema", [{"const": "a <tool_call> b"}, {"type": "string", "pattern": "^<think>[ab]$"}])
async def test_a_control_token_cannot_be_written_as_text(schema: dict[str, str], tmp_path: Path) -> None:
    """A 400 that names it, before the first token; the engine would come to a halt in front of it."""
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    async with running("candle", tmp_path) as model:
        with pytest.raises(InvalidRequest, match=r"<tool_call>|<think>") as caught:
            await run(model, ask(text_format=form))
        assert caught.value.param == "text.format"


async def test_control_tokens_do_not_show(tmp_path: Path) -> None:
    """A model that says them anywhere says nothing, but for those that the output parser looks for."""
    async with running("candle", tmp_path, Wanted(control=True)) as model:
        for _ in range(6):
            deltas = await run(model, ask(sampling=HOT, max_output_tokens=300))
            assert "<|im_start|>" not in text_of(deltas)
            assert finish_of(deltas).usage.output_tokens > 0


def test_strings_and_patterns_are_told_from_tokens() -> None:
    """Tokens that a grammar names are none of its texts."""
    grammar = 'calls: <tool_call> "\\n<x>" </tool_call> /a\\/<y>/ </tool_call>'
    assert [_unescaped(text) for text in _QUOTED.findall(grammar) if text] == ["\n<x>", "a/<y>"]
