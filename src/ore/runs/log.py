"""The event logs of a run: append-only, one writer, any number of followers.

Each event is encoded once, when it is appended. A follower ends when the log is closed, never because it recognised an
event; and it never owns the run. The log of a foreground run drops what every follower has taken, for it cannot be
replayed; that of a background run is `ore.runs.durable`.
"""

from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from typing import Protocol

from ore.errors import Unavailable
from ore.protocol.events import Event, encode, event_type
from ore.runs.bell import bell
from ore.stores.base import StoredEvent


class BrokenOff(Unavailable):
    """A log ends before its run does: a background run goes on elsewhere, or later; a foreground one is lost."""

    def __init__(
        self, message: str = "The server had to stop here. Ask for the events after the last one, or send it all again."
    ) -> None:
        super().__init__(message)


class Follower(Protocol):
    """One reader of a log; `leave` when done."""

    def batches(self) -> AsyncIterator[list[StoredEvent]]:
        """All events that wait, at once, then the next ones, until the log is closed. Raises `BrokenOff`."""

    def leave(self) -> None:
        """Follow no longer. Idempotent."""


def encoded(event: Event) -> StoredEvent:
    """An event as every carrier sends it."""
    return StoredEvent(event.sequence_number, event_type(event), encode(event))


class EventLog:
    """Events of a run while it runs. Not for use by more than one thread."""

    def __init__(self) -> None:
        self._entries: deque[StoredEvent] = deque()
        self._first = 0
        self._closed = False
        self.broken = False
        self._followers: list[_Live] = []

    @property
    def closed(self) -> bool:
        return self._closed

    def append(self, event: Event) -> None:
        """Add an event. Without a follower there is nobody who could ever ask for it, so it is not even encoded."""
        if not self._followers:
            return
        self._entries.append(encoded(event))
        self._wake()

    def close(self) -> None:
        """No more events. Idempotent."""
        self._closed = True
        self._wake()

    def break_off(self) -> None:
        """Close without an end: followers must not take it for one."""
        self.broken = True
        self.close()

    def follow(self) -> Follower:
        """A follower from here on. Whoever follows before the run starts misses nothing."""
        follower = _Live(self, self._first + len(self._entries))
        self._followers.append(follower)
        return follower

    def _wake(self) -> None:
        for follower in self._followers:
            follower.wake()

    def _forget(self) -> None:
        """Drop what every follower has taken."""
        last = self._first + len(self._entries)
        taken = min((follower.next for follower in self._followers), default=last)
        if taken == last:
            self._entries.clear()
            self._first = last
        while self._first < taken:
            self._entries.popleft()
            self._first += 1


class _Live:
    """A follower of an `EventLog`."""

    def __init__(self, log: EventLog, following: int) -> None:
        self._log = log
        self._bell = bell()
        self.next = following

    def leave(self) -> None:
        if self in self._log._followers:
            self._log._followers.remove(self)
            self._log._forget()

    async def batches(self) -> AsyncIterator[list[StoredEvent]]:
        log = self._log
        while True:
            batch = list(islice(log._entries, self.next - log._first, None))
            if batch:
                self.next += len(batch)
                log._forget()
                yield batch
            elif log.broken:
                raise BrokenOff
            elif log.closed:
                return
            else:
                await self._bell.wait()

    def wake(self) -> None:
        self._bell.ring()
