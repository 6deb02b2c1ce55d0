"""Wakes one waiter, again and again: for what happens for each word of an answer.

An `anyio.Event` is for once, and a new one for each word costs as much as making, encoding and sending the word. On
asyncio a bell is a bare future; on any other loop it is the event. It keeps no count: whoever waits looks first.
"""

import asyncio
from typing import Protocol

import anyio


class Bell(Protocol):
    """Rung by anybody on the loop, waited for by one."""

    def ring(self) -> None:
        """Wake whoever waits. Nothing is remembered for those who do not."""

    async def wait(self) -> None:
        """Wait for the next ring."""


def bell() -> Bell:
    """One for the loop that runs here."""
    try:
        return _Future(asyncio.get_running_loop())
    except RuntimeError:
        return _Event()


class _Future:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class _Event:
    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        self._event = anyio.Event()
        await self._event.wait()
