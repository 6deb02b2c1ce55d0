"""The event log of one run: append-only, one writer, any number of followers.

Each event is encoded once, when it is appended. A follower ends when the log is closed, never because it recognised an
event; and it never owns the run. What every follower has taken is dropped: a foreground run cannot be replayed.
"""

from collections import deque
from collections.abc import AsyncIterator

import anyio
from msgspec import Struct

from ore.protocol.events import Event, encode, event_type


class Entry(Struct, frozen=True):
    """An event as it goes over the wire: its type, and its JSON."""

    type: str
    body: bytes


class EventLog:
    """Events of a run while it runs. Not for use by more than one thread."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._first = 0
        self._closed = False
        self._followers: list[Follower] = []

    @property
    def closed(self) -> bool:
        return self._closed

    def append(self, event: Event) -> None:
        """Add an event. Without a follower there is nobody who could ever ask for it, so it is not even encoded."""
        if not self._followers:
            return
        self._entries.append(Entry(event_type(event), encode(event)))
        self._wake()

    def close(self) -> None:
        """No more events. Idempotent."""
        self._closed = True
        self._wake()

    def follow(self) -> "Follower":
        """A follower from here on. Whoever follows before the run starts misses nothing."""
        follower = Follower(self, self._first + len(self._entries))
        self._followers.append(follower)
        return follower

    def _wake(self) -> None:
        for follower in self._followers:
            follower.wake()

    def _forget(self) -> None:
        """Drop what every follower has taken."""
        taken = min((follower.next for follower in self._followers), default=self._first + len(self._entries))
        while self._first < taken:
            self._entries.popleft()
            self._first += 1


class Follower:
    """One reader of a log; `leave` when done."""

    def __init__(self, log: EventLog, following: int) -> None:
        self._log = log
        self._wakened: anyio.Event | None = None
        self.next = following

    def leave(self) -> None:
        """Follow no longer. Idempotent."""
        if self in self._log._followers:
            self._log._followers.remove(self)
            self._log._forget()

    async def batches(self) -> AsyncIterator[list[Entry]]:
        """All events that wait, at once, then the next ones, until the log is closed."""
        log = self._log
        while True:
            batch = [log._entries[at - log._first] for at in range(self.next, log._first + len(log._entries))]
            if batch:
                self.next += len(batch)
                log._forget()
                yield batch
            elif log.closed:
                return
            else:
                self._wakened = anyio.Event()
                await self._wakened.wait()

    def wake(self) -> None:
        if self._wakened is not None:
            self._wakened.set()
