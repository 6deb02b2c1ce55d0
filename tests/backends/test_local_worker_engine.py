"""Engines in Python: the two ends of their process, with a far end that counts (`counting_worker`)."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ore.backends.local.engine import Generation, Piece
from ore.backends.local.worker_engine import Sampled, WorkerEngine
from ore.errors import InvalidRequest, ModelFailed, StartupError

pytestmark = [pytest.mark.anyio]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


@asynccontextmanager
async def running(**parameters: Any) -> AsyncIterator[WorkerEngine]:
    engine = WorkerEngine("counting", "counting_worker", parameters, parameters.pop("progress", None))
    engine.process._backoff = (0.01,)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def ask(prompt: str = "", tokens: int | None = 5) -> Generation:
    return Generation(prompt=prompt, temperature=0, top_p=1, max_tokens=tokens)


async def whole(sampled: Sampled) -> list[Piece]:
    pieces: list[Piece] = []
    while not (pieces and pieces[-1].end):
        pieces += await sampled.read()
    return pieces


async def under_way(engine: WorkerEngine) -> int:
    return len(await engine.tokenize("how many?")) - 1


async def test_says_what_the_worker_says() -> None:
    """Facts, tokens and pieces come as the worker gave them; progress is told while it loads."""
    told: list[tuple[int, int]] = []
    async with running(progress=lambda *at: told.append(at)) as engine:
        assert (await engine.facts()).context == 1000
        assert await engine.tokenize("ab") == [97, 98]
        pieces = await whole(await engine.generate(ask()))
    assert told == [(1, 2), (2, 2)]
    assert "".join(piece.text for piece in pieces) == "0 1 2 3 4 "
    assert pieces[-1].end is not None
    assert pieces[-1].end.output_tokens == 5


async def test_many_at_once_do_not_mix() -> None:
    """Fifty samplings, each gets its own numbers, in order."""
    async with running() as engine:
        answers = await asyncio.gather(*[_text(engine, n) for n in range(1, 51)])
    assert answers == ["".join(f"{i} " for i in range(n)) for n in range(1, 51)]


async def _text(engine: WorkerEngine, tokens: int) -> str:
    return "".join(piece.text for piece in await whole(await engine.generate(ask(tokens=tokens))))


async def test_a_refusal_is_the_clients_fault() -> None:
    """What the worker refuses arrives as it was raised."""
    async with running() as engine:
        with pytest.raises(InvalidRequest, match="I will not") as caught:
            await (await engine.generate(ask("refuse"))).read()
    assert (caught.value.param, caught.value.code) == ("input", "unwilling")


async def test_a_fault_comes_after_what_was_said() -> None:
    """A sampling that fails gives first what it had."""
    async with running() as engine:
        sampled = await engine.generate(ask("fault"))
        text = ""
        with pytest.raises(ModelFailed, match="It went wrong"):
            while True:
                text += "".join(piece.text for piece in await sampled.read())
        assert text == "0 1 2 "
        assert await under_way(engine) == 0


async def test_closing_cancels() -> None:
    """A sampling that is closed is forgotten by the worker before it answers the next question."""
    async with running() as engine:
        sampled = await engine.generate(ask(tokens=None))
        await sampled.read()
        assert await under_way(engine) == 1
        sampled.close()
        sampled.close()
        assert await under_way(engine) == 0


@pytest.mark.parametrize("way", ["die", "crash"])
async def test_an_engine_that_dies_ends_what_it_sampled_and_comes_back(way: str) -> None:
    """Killed or crashed: what it sampled fails at once, and the next request is answered by a new process."""
    async with running() as engine:
        before, bystander = engine.pid, await engine.generate(ask(tokens=None))
        sampled = await engine.generate(ask(way))
        for each in (sampled, bystander):
            with pytest.raises(ModelFailed, match="is being restarted"):
                await whole(each)
        assert await engine.back(10)
        assert len(await whole(await engine.generate(ask()))) == 5
        assert engine.restarts == 1
        assert engine.pid != before


async def test_questions_to_a_dead_engine_fail() -> None:
    """No question waits for ever."""
    async with running() as engine:
        engine.process._backoff = (30.0,)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(ModelFailed):
            while True:
                await engine.facts()
        with pytest.raises(ModelFailed):
            await engine.generate(ask())


async def test_a_reason_not_to_start_is_told() -> None:
    """What the far end raises at the start is part of the sentence."""
    with pytest.raises(StartupError, match="no such colour"):
        async with running(fails="no such colour"):
            pass
