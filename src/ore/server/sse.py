"""Server-sent events (wire contract, 8.1): LF only, each event whole within one chunk, `[DONE]` last.

The stream follows a run's log and watches the client at the same time; a client that leaves stops its run. It makes no
event and changes none.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
from starlette.types import Receive, Scope, Send

from ore.runs.log import Entry, Follower
from ore.runs.run import Run

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def frame(entry: Entry) -> bytes:
    """One event as it goes over the wire."""
    return b"event: %b\ndata: %b\n\n" % (entry.type.encode(), entry.body)


class EventStream:
    """An ASGI response that follows `run` to its end.

    `follower` was entered before the run started, so that nothing is missed; `idle` is the silence in seconds after
    which a comment line goes out.
    """

    def __init__(self, run: Run, follower: Follower, *, headers: Mapping[str, str], idle: float, done: bool) -> None:
        self._run = run
        self._follower = follower
        self._headers = {**HEADERS, **headers}
        self._idle = idle
        self._done = done
        self._sent_at = anyio.current_time()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with while_connected(self._run, receive), anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_alive, send)
            await self._forward(send)
            tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": DONE if self._done else b"", "more_body": False})

    async def _forward(self, send: Send) -> None:
        try:
            async for batch in self._follower.batches():
                body = b"".join(map(frame, batch))
                self._sent_at = anyio.current_time()
                await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self._follower.leave()

    async def _keep_alive(self, send: Send) -> None:
        """A comment line whenever nothing was sent for a while. Beside the events, for a clock on each would cost."""
        while True:
            await anyio.sleep_until(self._sent_at + self._idle)
            if anyio.current_time() >= self._sent_at + self._idle:
                self._sent_at = anyio.current_time()
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})


@asynccontextmanager
async def while_connected(run: Run, receive: Receive) -> AsyncIterator[None]:
    """Stop a foreground run as soon as its client leaves, for as long as the block lasts.

    A block that breaks has lost the client too: with a full pipe, writing notices before reading does.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        run.stop("disconnected")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield
        except BaseException:
            run.stop("disconnected")
            raise
        tasks.cancel_scope.cancel()
