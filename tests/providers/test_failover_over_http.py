"""Providers that die at every point of their streams, behind a real server, as the `openai` SDK sees it.

Before the first visible delta: one clean response, whatever happened. Afterwards: what the alias says.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conversations import says
from openai import APIError, AsyncOpenAI
from stub_server import Asked, Play, Step, StubServer, as_json, stub_server
from test_contract_kit import SPEAKERS, provider_of
from voices import VOICES

from ore.routing import breaker, sampling
from ore.routing.router import Alias
from ore.routing.rules import Rule
from servers import ScriptedServer

pytestmark = pytest.mark.anyio

ANSWER = says("The answer", " is", " 42.")
DIALECTS = ("chat_completions", "messages", "responses")
HURRY = 0.3
"""Seconds of silence after which a provider of these tests counts as dead."""


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first target is asked each time, however often it has failed."""
    monkeypatch.setattr(breaker, "FAILURES_TO_OPEN", 10**9)
    monkeypatch.setattr(breaker, "LONGEST_OBEYED", 0.0)
    monkeypatch.setattr(sampling, "FIRST_BACKOFF", 0.0)


def frames(dialect: str) -> list[bytes]:
    return VOICES[dialect].speaks(ANSWER, {})


def first_visible(dialect: str) -> int:
    """Which of the frames has the first word."""
    return next(at for at, frame in enumerate(frames(dialect)) if b"The answer" in frame)


def early_deaths(dialect: str) -> Iterator[Play]:
    """Every way to die before a word: by status, by garbage, and cut at every frame and inside the first word's."""
    for status in (400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529):
        yield as_json({"error": {"type": "x", "message": "No."}}, status)
        yield Play([b"<html>No.</html>"], status, "text/html")
    for garbage in (
        b"<html>Hello</html>",
        b"data: nonsense\n\n",
        b"data: {\n\n",
        b"data: []\n\n",
        b"\xff\xfe\x00",
        b"",
    ):
        yield Play([garbage])
    whole, seen = frames(dialect), first_visible(dialect)
    for at in range(seen + 1):
        for leave in ("rst", "fin"):
            yield Play([*whole[:at], leave])  # type: ignore[list-item]
        yield Play(whole[:at])
    word = whole[seen]
    for at in range(1, len(word) - 1):
        yield Play([*whole[:seen], word[:at], "rst" if at % 2 else "fin"])
    yield Play(["hang"])
    yield Play([*whole[:1], "hang"])


@asynccontextmanager
async def between(folder: Path, dialect: str, dying: Any, **rule: Any) -> AsyncIterator[tuple[AsyncOpenAI, StubServer]]:
    """A client of an alias whose first target dies as `dying` says, and whose second one answers."""

    def answers(asked: Asked) -> Play:
        shown = str(asked.body)
        left = says(" is", " 42.") if "The answer" in shown else ANSWER
        return Play(VOICES[dialect].speaks(left, asked.body))

    async with stub_server(dying) as dead, stub_server(answers) as alive:
        speaker, hurry = SPEAKERS[dialect], {"first_byte_timeout": HURRY, "idle_timeout": HURRY}
        urls = {"dead": dead.url, "alive": alive.url}
        providers = {name: provider_of(speaker, name, url, **hurry) for name, url in urls.items()}
        targets = tuple(f"{name}/{speaker.model}" for name in urls)
        aliases = {"any": Alias(targets=targets, rule=Rule(**rule))}
        server = ScriptedServer(folder, providers=providers, aliases=aliases)
        await asyncio.to_thread(server.__enter__)
        try:
            async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
                yield client, alive
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)


async def streamed(client: AsyncOpenAI) -> tuple[list[str], Any]:
    """The types of the events of one response, and the response."""
    events = [event async for event in await client.responses.create(model="any", input="Hi", stream=True)]
    last: Any = events[-1]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return [event.type for event in events], last.response


async def test_five_hundred_deaths_before_the_first_word(tmp_path: Path) -> None:
    """Each time the client sees one clean response, as if nothing had happened."""
    clean = 0
    for dialect in DIALECTS:
        deaths = list(early_deaths(dialect))
        left = iter(deaths)
        async with between(tmp_path, dialect, lambda _, left=left: next(left), retries=0) as (client, alive):
            wanted: Sequence[str] | None = None
            for at in range(0, len(deaths), 16):
                found = await asyncio.gather(*(streamed(client) for _ in deaths[at : at + 16]))
                for types, response in found:
                    wanted = wanted or types
                    assert types == wanted
                    assert (response.status, response.output_text) == ("completed", "The answer is 42.")
                    assert response.error is None
                    clean += 1
            assert len(alive.asked) == len(deaths)
    assert clean >= 500


def late_deaths(dialect: str) -> list[Play]:
    """Cut after the first word, after the second, and in the middle of a frame."""
    whole, seen = frames(dialect), first_visible(dialect)
    leaves: list[Step] = ["rst", "fin"]
    return [
        *(Play([*whole[: seen + 1], leave]) for leave in leaves),
        Play([*whole[: seen + 1], whole[seen + 1][:10], "rst"]),
        Play([*whole[: seen + 1], "hang"]),
        Play([*whole[: seen + 1], b"data: nonsense\n\n"]),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_after_the_first_word_the_response_fails(tmp_path: Path, dialect: str) -> None:
    """What there was is kept, and the next target is not asked: that is the default."""
    deaths = late_deaths(dialect)
    left = iter(deaths)
    async with between(tmp_path, dialect, lambda _: next(left), retries=0) as (client, alive):
        for _ in deaths:
            with pytest.raises(APIError):
                await streamed(client)
        assert not alive.asked


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_after_the_first_word_another_one_goes_on(tmp_path: Path, dialect: str) -> None:
    """Where the alias says so: the client sees one text."""
    deaths = late_deaths(dialect)
    left = iter(deaths)
    async with between(tmp_path, dialect, lambda _: next(left), after_output="continue") as (client, alive):
        for _ in deaths:
            types, response = await streamed(client)
            assert types[-1] == "response.completed"
            assert response.output_text == "The answer is 42."
        assert len(alive.asked) == len(deaths)
