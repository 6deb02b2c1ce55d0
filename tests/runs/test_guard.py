"""The guard looks at what users say and at what models answer, and nothing is seen before that."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from ore.backends.scripted import ScriptedBackend, says
from ore.core.deltas import Begin, Finish, Reasoning, Text, ToolArguments, ToolCall, Usage, WholeItem
from ore.core.sealing import KEY_BYTES, Sealer
from ore.errors import InvalidRequest, ModelFailed, Unavailable
from ore.ids import new_id
from ore.protocol.responses import check_create
from ore.routing.router import Alias, Router
from ore.runs.guard import Guard
from ore.runs.run import Run
from ore.runs.supervisor import Supervisor
from runs.run_kit import MemoryStore

pytestmark = pytest.mark.anyio

FINISH = Finish("stop", Usage(input_tokens=3, output_tokens=2))


class Filter:
    """Refuses what has the word `bad` in it; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fault: Exception | None = None

    async def refuses(self, texts: Sequence[str]) -> bool:
        self.asked += texts
        if self.fault:
            raise self.fault
        return any("bad" in text for text in texts)


@pytest.fixture
def sieve() -> Filter:
    return Filter()


Serve = Callable[..., AbstractAsyncContextManager[Supervisor]]


@pytest.fixture
def serving(sieve: Filter) -> Serve:
    @asynccontextmanager
    async def serve(backend: ScriptedBackend, *, on: str = "both", **more: object) -> AsyncIterator[Supervisor]:
        guard = Guard(
            model="filter",
            refuses=sieve.refuses,
            inputs=on in ("input", "both"),
            outputs=on in ("output", "both"),
        )
        router = Router({"scripted": backend}, **more)  # type: ignore[arg-type]
        sealer = Sealer(bytes(KEY_BYTES))
        async with Supervisor(
            router, MemoryStore(), sealer, new_id=new_id, now=lambda: 1, run_seconds=20, guard=guard
        ) as supervisor:
            yield supervisor

    return serve


async def ended(supervisor: Supervisor, text: object = "hello", model: str = "m") -> Run:
    run = supervisor.start("me", check_create({"model": model, "input": text}, new_id))
    await run.ended()
    return run


async def test_a_refused_input_is_a_400(serving: Serve, sieve: Filter) -> None:
    """The model is not asked."""
    backend = ScriptedBackend({"m": says("hi")})
    async with serving(backend, on="input") as supervisor:
        run = await ended(supervisor, "a bad word")
        assert isinstance(run.fault, InvalidRequest)
        assert (run.fault.code, run.fault.param) == ("content_filter", "input")
        assert not run.has_response
        assert backend.requests == []
        assert (await ended(supervisor)).response.status == "completed"
    assert sieve.asked == ["a bad word", "hello"]


async def test_only_what_the_user_says_now_is_looked_at(serving: Serve, sieve: Filter) -> None:
    """All of its messages, and no others: a tool's output is no user's."""
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "bad"},
        {"role": "developer", "content": "bad"},
        {"role": "user", "content": [{"type": "input_text", "text": "two"}, {"type": "input_text", "text": "three"}]},
    ]
    async with serving(ScriptedBackend({"m": says("hi")}), on="input") as supervisor:
        assert (await ended(supervisor, said)).response.status == "completed"
    assert sieve.asked == ["one", "two\nthree"]


async def test_a_refused_answer_is_not_shown(serving: Serve) -> None:
    """Not one event of it: the response ends incomplete, for content_filter, and tells what it cost."""
    async with serving(ScriptedBackend({"m": says("good and bad", pieces=4)}), on="output") as supervisor:
        run = await ended(supervisor)
    assert run.response.status == "incomplete"
    assert run.response.incomplete_details is not None
    assert run.response.incomplete_details.reason == "content_filter"
    assert run.response.output == []
    assert run.response.usage is not None
    assert run.response.usage.output_tokens == 4


@pytest.mark.parametrize(
    "said",
    [
        [Reasoning("ba"), Reasoning("d"), Text("good")],
        [ToolCall("call_1", "f"), ToolArguments('{"x": "b'), ToolArguments('ad"}')],
        [WholeItem({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "bad"}]})],
    ],
)
async def test_every_word_is_looked_at(serving: Serve, said: list[object]) -> None:
    """Reasoning, arguments and whole items too, however they were cut into pieces."""
    async with serving(ScriptedBackend({"m": [*said, FINISH]}), on="output") as supervisor:  # type: ignore[list-item]
        assert (await ended(supervisor)).response.output == []


async def test_what_is_not_refused_is_shown_as_it_came(serving: Serve, sieve: Filter) -> None:
    async with serving(ScriptedBackend({"m": says("all is well", pieces=3)})) as supervisor:
        run = await ended(supervisor)
    assert run.response.status == "completed"
    assert sieve.asked == ["hello", "all is well"]


async def test_who_cannot_be_asked_refuses_everything(serving: Serve, sieve: Filter) -> None:
    """Nothing goes by unchecked because the classifier is busy or broken."""
    async with serving(ScriptedBackend({"m": says("hi")}), on="output") as supervisor:
        sieve.fault = Unavailable("busy")
        run = await ended(supervisor)
    assert run.response.status == "failed"
    assert run.response.output == []


async def test_a_target_that_fails_is_replaced_whatever_it_has_said(serving: Serve, sieve: Filter) -> None:
    """Nobody has seen it: what the next one says is all that counts."""
    backend = ScriptedBackend({"a": [Begin("message"), Text("bad "), ModelFailed("down")], "b": says("good")})
    aliases = {"m": Alias(targets=("a", "b"))}
    async with serving(backend, on="output", aliases=aliases) as supervisor:
        run = await ended(supervisor)
    assert run.response.status == "completed"
    assert sieve.asked == ["good"]


async def test_the_model_of_the_guard_is_asked_without_it(serving: Serve, sieve: Filter) -> None:
    async with serving(ScriptedBackend({"filter": says("bad")})) as supervisor:
        assert (await ended(supervisor, "bad", model="filter")).response.status == "completed"
    assert sieve.asked == []
