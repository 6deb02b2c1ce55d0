"""One run: an id, a cancel scope, a writer with its event log, and how it ended.

A run is a value that the turn loop drives and that endpoints look at. It starts nothing by itself.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import anyio
import msgspec

from ore.core.history import Context
from ore.core.progress import Progress
from ore.core.writer import ResponseWriter, Seal
from ore.errors import HTTPFault, InternalFault
from ore.ids import NewId
from ore.protocol.decoding import JsonObject
from ore.protocol.events import Event, decode_response
from ore.protocol.responses import Create, Response, Status
from ore.protocol.wire import BOTH, Wire
from ore.routing.route import Passage
from ore.runs.durable import DurableLog
from ore.runs.log import EventLog, Follower
from ore.stores.base import ClaimedRun

StopReason = Literal["disconnected", "shutdown", "deadline", "cancelled", "fenced", "given up"]

Remembered = Callable[[str], Sequence[JsonObject] | None]
"""The context and output of a response that a connection remembers, by its id."""


class Run:
    """The life of one response. `created_at` is in seconds since 1970."""

    def __init__(
        self,
        owner: str,
        create: Create,
        *,
        new_id: NewId,
        created_at: int,
        seconds: float,
        wire: Wire = BOTH,
        seal: Seal | None = None,
        remembered: Remembered | None = None,
        claimed: ClaimedRun | None = None,
        seen: Sequence[Event] = (),
    ) -> None:
        self.id = claimed.response.id if claimed is not None else new_id("response")
        self.new_id = new_id
        self.owner = owner
        self.create = create
        self.wire = wire
        self.created_at = created_at
        self.seconds = seconds
        """How long it may take."""
        self.locked = False
        """Whether it holds its conversation."""
        self.remembered = remembered
        self.claimed = claimed
        """What another process left of it; None for a run of our own."""
        self.durable = DurableLog(seen) if create.background else None
        self.log: EventLog | DurableLog = self.durable or EventLog()
        self.fence = claimed.fence if claimed is not None else 0
        self.writer = ResponseWriter(
            new_id,
            self.log.append,
            wire=wire,
            seal=seal,
            seals_all="reasoning.encrypted_content" in create.include,
        )
        self.progress = Progress()
        self.passage = Passage()
        self.model = create.model or ""
        """The name that it was asked for by, or the default's."""
        self.scope = anyio.CancelScope()
        self.stop_reason: StopReason = "deadline"
        self.seen = seen
        """What clients have seen of the turn that another process began; empty once it is told again."""
        self.context = Context((), ())
        """What the model is given, once it is known."""
        self.link: str | None = create.previous_response_id
        """The stored response whose items come before those that are stored with this one."""
        self.warnings: tuple[str, ...] = ()
        """What of the request had no effect, in sentences for a header."""
        self.fault: HTTPFault | None = None
        """Why there is no response at all, or why it failed."""
        self._begun = anyio.Event()
        self._ended = anyio.Event()
        self._has_response = False
        if claimed is not None:
            self._take_up(claimed)

    def _take_up(self, claimed: ClaimedRun) -> None:
        """Go to where the last holder left the run."""
        self.link = claimed.response.previous_response_id
        given = tuple(msgspec.json.decode(item.body) for item in claimed.response.input)
        self.context = Context((), given)
        if claimed.run.progress:
            self.progress = msgspec.json.decode(claimed.run.progress, type=Progress)
        if self.seen:
            self.writer.resume(self.seen)
            self._accepted()
        else:
            self.begin(decode_response(claimed.response.envelope))

    @property
    def status(self) -> Status:
        """Of the response, without putting its growing text together."""
        return self.writer.status

    @property
    def has_response(self) -> bool:
        """Whether `response.created` was said: until then a fault is an HTTP error, from then on an event."""
        return self._has_response

    def begin(self, response: Response) -> None:
        """The request is accepted: say so."""
        self._accepted_as = response
        self.writer.begin(response)
        self._accepted()

    def _accepted(self) -> None:
        self._has_response = True
        self._begun.set()

    def follow(self) -> Follower:
        """A follower of a foreground run, from here on. Background runs are followed through the store."""
        assert isinstance(self.log, EventLog)  # noqa: S101
        return self.log.follow()

    def note(self) -> None:
        """Have the progress kept, together with the events so far; nothing for a run that ends with its process."""
        if self.durable is not None:
            self.durable.note(msgspec.json.encode(self.progress))

    async def recorded(self) -> None:
        """Wait until what was said and noted so far would survive this process."""
        if self.durable is not None:
            await self.durable.flushed()

    def end(self) -> None:
        """Nothing more comes. Idempotent."""
        self.log.close()
        self._begun.set()
        self._ended.set()

    def stop(self, reason: StopReason) -> None:
        """Ask the run to stop; it still closes its items, saves, and says how it ended."""
        if not self.scope.cancel_called:
            self.stop_reason = reason
            self.scope.cancel()

    @property
    def abandoned(self) -> bool:
        """Whether its client left before it was done."""
        return self.scope.cancelled_caught and self.stop_reason == "disconnected"

    async def begun(self) -> None:
        """Wait until the request is accepted or refused."""
        await self._begun.wait()

    async def ended(self) -> None:
        """Wait for the end."""
        await self._ended.wait()

    def check_begun(self) -> None:
        """Raise the fault when the request was refused."""
        if not self._has_response:
            raise self.fault or InternalFault("The request was stopped before it began.")

    @property
    def response(self) -> Response:
        """The response as it stands. Raises the fault when the request was refused."""
        self.check_begun()
        return self.writer.response

    @property
    def snapshot(self) -> Response:
        """The response as others may see it: of a background run, what is kept. Raises the fault like `response`."""
        self.check_begun()
        if self.durable is None:
            return self.writer.response
        return self.durable.shown.response if self.durable.shown.begun else self._accepted_as
