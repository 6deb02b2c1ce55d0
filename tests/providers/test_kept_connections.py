"""Kept connections that the provider has closed meanwhile: nobody took the request, so it is sent on another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ore.backends.upstream import Unreachable, Upstream, UpstreamOptions

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class Forgetful:
    """Answers `answers` requests on each connection, and closes it when the next one comes."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.heard: list[int] = []
        """For each connection, the requests that came."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.heard)
        self.heard.append(0)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.heard[number] += 1
                if self.heard[number] > self.answers:
                    break
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def upstream_to(forgetful: Forgetful) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(forgetful.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream("here", UpstreamOptions(base_url=f"http://127.0.0.1:{port}"))
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()
        server.close()


async def test_a_request_on_a_closed_connection_is_sent_on_another() -> None:
    forgetful = Forgetful(answers=1)
    async with upstream_to(forgetful) as upstream:
        for _ in range(3):
            assert await upstream.call("POST", "chat/completions", {}) == b"{}"
    assert forgetful.heard == [2, 2, 1]


async def test_a_fresh_connection_that_is_closed_is_a_fault_at_once() -> None:
    forgetful = Forgetful(answers=0)
    async with upstream_to(forgetful) as upstream:
        with pytest.raises(Unreachable):
            await upstream.call("POST", "chat/completions", {})
    assert forgetful.heard == [1]
