"""How long an answer may take: from the request to its first event, then from one sign of life to the next."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from stub_server import Play, Step, stub_server

from ore.backends.upstream import Answer, Upstream, UpstreamOptions
from ore.errors import DeadlineExceeded

pytestmark = pytest.mark.anyio

COMMENTS: list[Step] = [b": still here\n\n", 0.05] * 20
EVENT = b"data: 1\n\n"


@asynccontextmanager
async def answer_of(*steps: Step, first: float = 60.0, idle: float = 60.0) -> AsyncIterator[Answer]:
    async with stub_server(lambda _: Play(steps)) as stub:
        upstream = Upstream("p", UpstreamOptions(base_url=stub.url, first_byte_timeout=first, idle_timeout=idle))
        await upstream.start()
        try:
            async with upstream.stream("speak", {}, {}) as answer:
                yield answer
        finally:
            await upstream.stop()


async def test_comments_are_no_answer() -> None:
    """One that only says that it is there does not put the limit off."""
    async with answer_of(*COMMENTS, EVENT, first=0.3) as answer:
        with pytest.raises(DeadlineExceeded, match=r"did not begin to answer within 0\.3 s"):
            await answer.read()


async def test_comments_between_events_are_a_sign_of_life() -> None:
    """A model that has begun may think for long, as long as its provider says that it does."""
    async with answer_of(EVENT, *COMMENTS, EVENT, idle=0.5) as answer:
        assert await answer.read() == [b"1"]
        assert await answer.read() == [b"1"]
