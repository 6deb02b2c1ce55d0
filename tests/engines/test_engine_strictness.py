"""Every engine holds a model with random weights to schemas, grammars and choices of tools, or refuses beforehand.

A sample of what `python -m benchmarks.strictness` asks in full. A model that knows nothing makes it the constraint's
merit alone.
"""

from pathlib import Path

import pytest

from engines.engine_rows import ROWS, Wanted, running
from engines.strictness import Outcome, counted, grammar_cases, outcomes, sample, schema_cases

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

SCHEMAS, GRAMMARS, AFTER_THOUGHT = 40, 15, 8


@pytest.fixture(params=ROWS)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check(found: list[Outcome]) -> None:
    """Nothing is invalid, and nearly all were finished."""
    assert [f"{each.case.about}\n -> {each.detail}" for each in found if each.verdict == "invalid"] == []
    assert counted(found)["unfinished"] <= len(found) // 10 + 1


async def test_schemas_and_grammars_hold(engine: str, tmp_path: Path) -> None:
    """Strict formats, required and named functions, custom tools: valid, or a 400 that names the keyword."""
    cases = [*sample(schema_cases(300), SCHEMAS), *sample(grammar_cases(100), GRAMMARS)]
    async with running(engine, tmp_path) as model:
        found = await outcomes(model, cases)
    check(found)
    assert counted(found)["refused"] <= len(found) // 5


@pytest.mark.parametrize("control", [False, True], ids=["text", "control"])
async def test_they_hold_right_after_a_thought(engine: str, control: bool, tmp_path: Path) -> None:
    """The think block is free, and what follows it is not, whether the markers are text or control tokens."""
    cases = [*sample(schema_cases(300), AFTER_THOUGHT, seed=1), *sample(grammar_cases(100), AFTER_THOUGHT // 2)]
    async with running(engine, tmp_path, Wanted(thinks=True, control=control)) as model:
        found = await outcomes(model, cases)
    check(found)
