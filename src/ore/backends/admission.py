"""Who may use an engine or a provider, who waits, who is sent away: FIFO within an owner, round robin between owners.

Pure bookkeeping on one event loop: it never looks at a request and refuses to wait by itself; a ticket is awaited by
whoever holds it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from ore.backends.base import Load
from ore.errors import QueueFull

LONGEST_RETRY: Final = 120.0
_WEIGHT: Final = 0.2


class Ticket:
    """A place: waiting first, perhaps, then running, until released. Release it in every case."""

    __slots__ = ("_admission", "_granted_at", "_turn", "owner")

    def __init__(self, admission: "Admission", owner: str) -> None:
        self._admission = admission
        self._turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._granted_at: float | None = None
        self.owner = owner

    @property
    def granted(self) -> bool:
        return self._granted_at is not None

    async def wait(self) -> None:
        """Return when it is this ticket's turn."""
        if not self.granted:
            await self._turn

    def release(self) -> None:
        """Give the place back. Idempotent; the next in line gets it at once."""
        self._admission._release(self)

    def _grant(self, now: float) -> None:
        self._granted_at = now
        if not self._turn.done():
            self._turn.set_result(None)


class Admission:
    """`slots` run, `queue` more may wait. `clock` is in seconds and only serves the estimate for Retry-After."""

    def __init__(self, slots: int, queue: int, clock: Callable[[], float]) -> None:
        self.slots = slots
        self.queue = queue
        self._clock = clock
        self._running: set[Ticket] = set()
        self._lines: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._waiting = 0
        self._typical = 2.0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return self._waiting

    def enter(self, owner: str) -> Ticket:
        """Take a place. Raises `QueueFull` when all are taken and the queue is full."""
        self.check()
        ticket = Ticket(self, owner)
        if len(self._running) < self.slots:
            self._start(ticket)
        else:
            self._lines.setdefault(owner, deque()).append(ticket)
            self._waiting += 1
        return ticket

    def check(self) -> None:
        """Raise `QueueFull` when `enter` would: before work is put into a request that cannot be taken."""
        if len(self._running) >= self.slots and self._waiting >= self.queue:
            raise QueueFull(
                f"This model is busy: {self.running} requests are running and {self._waiting} are waiting. "
                "Try again a little later.",
                retry_after=self.estimate(),
            )

    def load(self) -> Load:
        """How busy it is, and how long one more request would wait."""
        free = len(self._running) < self.slots
        seconds = 0.0 if free else self._typical * (self._waiting + 1) / self.slots
        return Load(running=self.running, waiting=self._waiting, slots=self.slots, wait_seconds=seconds)

    def estimate(self) -> float:
        """Seconds until a place in the queue is likely to be free."""
        return min(LONGEST_RETRY, max(1.0, self._typical * (self._waiting + 1) / self.slots))

    def _start(self, ticket: Ticket) -> None:
        self._running.add(ticket)
        ticket._grant(self._clock())

    def _release(self, ticket: Ticket) -> None:
        if ticket in self._running:
            self._running.discard(ticket)
            if ticket._granted_at is not None:
                self._typical += _WEIGHT * (self._clock() - ticket._granted_at - self._typical)
            self._advance()
        else:
            self._forget(ticket)

    def _advance(self) -> None:
        while self._lines and len(self._running) < self.slots:
            owner, line = next(iter(self._lines.items()))
            self._waiting -= 1
            self._start(line.popleft())
            self._lines.move_to_end(owner)
            if not line:
                del self._lines[owner]

    def _forget(self, ticket: Ticket) -> None:
        line = self._lines.get(ticket.owner)
        if line is None or ticket not in line:
            return
        line.remove(ticket)
        self._waiting -= 1
        if not line:
            del self._lines[ticket.owner]
