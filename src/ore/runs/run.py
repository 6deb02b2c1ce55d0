"""One run: an id, a cancel scope, a writer with its event log, and how it ended.

A run is a value that the turn loop drives and that endpoints look at. It starts nothing by itself.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import anyio

from ore.core.history import Context
from ore.core.writer import ResponseWriter
from ore.errors import HTTPFault, InternalFault
from ore.ids import NewId
from ore.protocol.decoding import JsonObject
from ore.protocol.responses import Create, Response
from ore.runs.log import EventLog

StopReason = Literal["disconnected", "shutdown", "deadline"]

Remembered = Callable[[str], Sequence[JsonObject] | None]
"""What a connection remembers of a response: all items of its context and its output, or None."""


class Run:
    """The life of one response. `created_at` is in seconds since 1970."""

    def __init__(
        self, owner: str, create: Create, *, new_id: NewId, created_at: int, remembered: Remembered | None = None
    ) -> None:
        self.id = new_id("response")
        self.new_id = new_id
        self.owner = owner
        self.create = create
        self.created_at = created_at
        self.remembered = remembered
        self.log = EventLog()
        self.writer = ResponseWriter(new_id, self.log.append)
        self.scope = anyio.CancelScope()
        self.stop_reason: StopReason = "deadline"
        self.context = Context((), ())
        """What the model is given, once it is known."""
        self.fault: HTTPFault | None = None
        """Why there is no response at all, or why it failed."""
        self._begun = anyio.Event()
        self._ended = anyio.Event()
        self._has_response = False

    @property
    def has_response(self) -> bool:
        """Whether `response.created` was said: until then a fault is an HTTP error, from then on an event."""
        return self._has_response

    def begin(self, response: Response) -> None:
        """The request is accepted: say so."""
        self._has_response = True
        self.writer.begin(response)
        self._begun.set()

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
