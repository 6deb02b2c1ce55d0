"""Server-sent events (wire contract, 8.1): LF only, each event whole within one chunk, `[DONE]` last.

A stream follows a run and watches its client at the same time. It makes no event and changes none, but for the padding
that a client asked for.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
from starlette.types import Receive, Scope, Send

from ore.runs.log import Follower
from ore.stores.base import StoredEvent

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

PADDED: Final = frozenset(
    {
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.reasoning.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)
"""Events that may carry `obfuscation` (wire contract, 8.3)."""

PADDED_TO: Final = 64
"""Sizes of padded events are multiples of this many bytes, so that they do not tell how long a token was."""


def frame(event: StoredEvent) -> bytes:
    """One event as it goes over the wire."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), event.body)


def obfuscated(event: StoredEvent) -> StoredEvent:
    """The event with random padding against traffic analysis, where its type may carry some."""
    if event.type not in PADDED:
        return event
    length = PADDED_TO - (len(event.body) + len(_PADDING)) % PADDED_TO
    padding = secrets.token_urlsafe(length)[:length].encode()
    return StoredEvent(event.number, event.type, event.body[:-1] + _PADDING % padding)


_PADDING: Final = b',"obfuscation":"%b"}'


class EventStream:
    """An ASGI response that follows a run to its end.

    `left` is called when the client leaves: it ends the run, or with None only this stream ends. A stream that its
    client left has no end. `idle` is the silence in seconds after which a comment line goes out.
    """

    def __init__(
        self,
        follower: Follower,
        *,
        left: Callable[[], None] | None,
        headers: Mapping[str, str],
        idle: float,
        done: bool,
        padded: bool = False,
    ) -> None:
        self._follower = follower
        self._left = left
        self._headers = {**HEADERS, **headers}
        self._idle = idle
        self._done = done
        self._padded = padded
        self._abandoned = False
        self._sent_at = time.monotonic()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with anyio.CancelScope() as streaming:
            left = partial(self._leave, self._left or streaming.cancel)
            async with while_connected(receive, left), anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_alive, send)
                await self._forward(send)
                tasks.cancel_scope.cancel()
        if not self._abandoned:
            await send({"type": "http.response.body", "body": DONE if self._done else b"", "more_body": False})

    def _leave(self, left: Callable[[], None]) -> None:
        self._abandoned = True
        left()

    async def _forward(self, send: Send) -> None:
        try:
            async for batch in self._follower.batches():
                body = b"".join(map(frame, map(obfuscated, batch) if self._padded else batch))
                self._sent_at = time.monotonic()
                await send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self._follower.leave()

    async def _keep_alive(self, send: Send) -> None:
        """A comment line whenever nothing was sent for a while. Beside the events, for a clock on each would cost."""
        while True:
            await anyio.sleep(self._sent_at + self._idle - time.monotonic())
            if time.monotonic() >= self._sent_at + self._idle:
                self._sent_at = time.monotonic()
                await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})


@asynccontextmanager
async def while_connected(receive: Receive, left: Callable[[], None]) -> AsyncIterator[None]:
    """Call `left` as soon as the client leaves, for as long as the block lasts.

    A block that breaks has lost the client too: with a full pipe, writing notices before reading does.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            yield
        except BaseException:
            left()
            raise
        tasks.cancel_scope.cancel()
