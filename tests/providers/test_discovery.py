"""Which models a provider has: asked for when somebody wants to know, and again after a while."""

import anyio
import pytest
from stub_server import Asked, Play, as_json, stub_server

from ore.backends.base import ModelRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.provider import RELIST_SECONDS, Provider, ProviderOptions
from ore.backends.provider_faults import LONGEST_RETRY
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.errors import TooManyRequests

pytestmark = pytest.mark.anyio

LISTED = as_json({"object": "list", "data": [{"id": "big", "object": "model"}]})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def provider_at(url: str, clock: Clock) -> Provider:
    options = ProviderOptions(kind="chat_completions")
    return Provider(ChatCompletions(), Upstream("far", UpstreamOptions(base_url=url)), options, clock=clock)


async def test_who_leaves_while_it_is_asked_costs_the_next_nothing() -> None:
    """The question was not answered, so it is asked again: the models must not be unknown for minutes."""
    reached, plays = anyio.Event(), iter([Play(["hang"]), LISTED])

    def answer(_: Asked) -> Play:
        reached.set()
        return next(plays)

    async with stub_server(answer) as stub:
        provider = provider_at(stub.url, Clock())
        await provider.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(provider.models)
            await reached.wait()
            tasks.cancel_scope.cancel()
        assert [model.id for model in await provider.models()] == ["big"]
        await provider.stop()


async def test_one_that_could_not_tell_is_asked_again_soon() -> None:
    """It was starting, perhaps; and one that could is asked again after its time."""
    plays, clock = iter([as_json({"error": "loading"}, 503), LISTED]), Clock()
    async with stub_server(lambda _: next(plays)) as stub:
        provider = provider_at(stub.url, clock)
        await provider.start()
        assert await provider.models() == []
        assert await provider.models() == []
        clock.now += RELIST_SECONDS
        for _ in range(2):
            assert [model.id for model in await provider.models()] == ["big"]
        assert len(stub.asked) == 2
        await provider.stop()


@pytest.mark.parametrize("said", ["inf", "1e400", "9" * 400, "nan"])
async def test_a_retry_after_beyond_all_bounds_is_bounded(said: str) -> None:
    """A provider's header breaks nothing here."""
    async with stub_server(lambda _: as_json({"error": {"message": "No."}}, 429, {"Retry-After": said})) as stub:
        provider = provider_at(stub.url, Clock())
        await provider.start()
        with pytest.raises(TooManyRequests) as caught:
            async with provider.stream(ModelRequest(model="big", items=())):
                raise AssertionError
        assert 1 <= int(caught.value.headers["retry-after"]) <= LONGEST_RETRY
        await provider.stop()
