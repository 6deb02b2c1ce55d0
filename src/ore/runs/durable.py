"""The event log of a background run: events are kept by the store before anybody sees them.

A pump writes whatever waits in one go; what is kept can be followed from any point, during the run and afterwards, by
any process on the same store. The log keeps only its newest events in memory. It does not know what an event means.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import anyio

from ore.core.fold import Fold
from ore.errors import StorageFailed
from ore.protocol.events import Event
from ore.runs.log import BrokenOff, encoded
from ore.stores.base import Store, StoredEvent

logger = logging.getLogger("ore.runs")

TAIL: Final = 256
"""Events that a log keeps in memory for followers that are nearly up to date."""

BATCH: Final = 512
"""Events that a follower reads from the store at once."""

RETRY_SECONDS: Final = 1.0
"""Pause before events are offered again to a store that failed."""

POLL_SECONDS: Final = 0.5
"""How often a follower looks at a run that another process drives."""

Pending = tuple[Event, StoredEvent]
"""An event, and how it goes over the wire."""

Keep = Callable[[Sequence[StoredEvent], bytes | None], Awaitable[None]]
"""Makes events durable, and with them what the loop notes. Raises `StorageFailed` or `Fenced`."""


class DurableLog:
    """Events of a background run. `kept` are those that the store has already."""

    def __init__(self, kept: Sequence[Event] = ()) -> None:
        self.shown = Fold()
        """The response as far as it is kept, which is as far as anybody may see it."""
        for event in kept:
            self.shown.apply(event)
        self.closed = False
        self.broken = False
        self.changed = anyio.Event()
        """Set, and replaced, whenever something was kept and when the log is closed."""
        self._kept = len(kept)
        self._pending: list[Pending] = []
        self._progress: bytes | None = None
        self._writing = self._abandoned = False
        self._tail: deque[StoredEvent] = deque(maxlen=TAIL)
        self._work = anyio.Event()

    def append(self, event: Event) -> None:
        """Add an event; nobody sees it before the pump has had it kept."""
        self._pending.append((event, encoded(event)))
        self._work.set()

    def note(self, progress: bytes) -> None:
        """Have this kept together with the events before it; a newer note replaces it."""
        self._progress = progress
        self._work.set()

    async def pump(self, keep: Keep) -> None:
        """Have kept what comes, until the log is closed. Raises `Fenced`; a store that fails is asked again."""
        try:
            while not self.closed:
                if self._pending or self._progress is not None:
                    await self._keep(keep)
                else:
                    self._work = anyio.Event()
                    await self._work.wait()
        finally:
            self._abandoned = not self.closed
            self._wake()

    async def _keep(self, keep: Keep) -> None:
        """Have kept all that waits, in one go."""
        batch, progress = self._pending, self._progress
        self._pending, self._progress, self._writing = [], None, True
        while not self.closed:
            try:
                await keep([event for _, event in batch], progress)
            except StorageFailed as failure:
                logger.warning("events could not be kept, trying again: %s", failure)
                await anyio.sleep(RETRY_SECONDS)
            else:
                self._writing = False
                self.publish(batch)
                return

    async def flushed(self) -> None:
        """Wait until everything that was appended and noted so far is kept. Raises `BrokenOff` when it never will."""
        while self._pending or self._progress is not None or self._writing:
            if self._abandoned or self.closed:
                raise BrokenOff
            await self.changed.wait()

    def take(self) -> list[Pending]:
        """What waits to be kept, for somebody who keeps it together with something else, and publishes it."""
        batch, self._pending, self._progress = self._pending, [], None
        return batch

    def publish(self, batch: Sequence[Pending]) -> None:
        """These are kept now: show them."""
        for made, event in batch:
            self.shown.apply(made)
            self._tail.append(event)
        self._kept += len(batch)
        self._wake()

    def close(self) -> None:
        """No more events. Idempotent."""
        self.closed = True
        self._work.set()
        self._wake()

    def break_off(self) -> None:
        """Close although the run has not ended: its followers are told to come back."""
        self.broken = True
        self.close()

    def recent(self, after: int) -> list[StoredEvent] | None:
        """The kept events above number `after`; None when memory does not reach so far back."""
        if after + 1 >= self._kept:
            return []
        if not self._tail or self._tail[0].number > after + 1:
            return None
        return [event for event in self._tail if event.number > after]

    def _wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class StoredFollower:
    """Follows a background run from any point. `log` is that of the process which drives it, if it is this one.

    `batches` raises `BrokenOff` when the run breaks off here to go on elsewhere.
    """

    def __init__(self, store: Store, owner: str, response_id: str, *, after: int, log: DurableLog | None) -> None:
        self._store = store
        self._owner = owner
        self._response_id = response_id
        self._after = after
        self._log = log

    def leave(self) -> None:
        """There is nothing to leave: a log does not know its followers."""

    async def batches(self) -> AsyncIterator[list[StoredEvent]]:
        while True:
            changed = self._log.changed if self._log is not None else None
            over = await self._over()
            batch = await self._next()
            if batch:
                self._after = batch[-1].number
                yield batch
            elif over and self._log is not None and self._log.broken:
                raise BrokenOff
            elif over:
                return
            elif changed is not None:
                await changed.wait()
            else:
                await anyio.sleep(POLL_SECONDS)

    async def _over(self) -> bool:
        """Whether no event can come any more besides those that are kept by now."""
        if self._log is not None:
            return self._log.closed
        state = await self._store.run_state(self._owner, self._response_id)
        return state is None or state.ended

    async def _next(self) -> list[StoredEvent]:
        recent = self._log.recent(self._after) if self._log is not None else None
        if recent is not None:
            return recent
        return await self._store.events(self._owner, self._response_id, after=self._after, limit=BATCH)
