"""WebSocket mode (wire contract, section 10): turns over a connection, one after the other in each lane.

Its frames are the events of the run's log, the same that server-sent events are made of; it makes none. A client that
leaves stops its runs, those that wait for a slot too. What a connection knows ends with it.
"""

import math
from collections import deque
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ore.errors import HTTPFault, InvalidRequest, TooManyRequests, Unavailable
from ore.ids import NewId
from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.protocol.responses import Create, check_create
from ore.runs.run import Run
from ore.runs.supervisor import Supervisor
from ore.server.endpoints import check_previous_ended
from ore.server.errors import error_frame, log_fault
from ore.server.reading import LONG_BODY, OWNER
from ore.server.sse import obfuscated
from ore.server.websocket_frames import Asked, Steer, read_frame, steer_failed
from ore.server.websocket_memory import Memory

MAX_WAITING: Final = 16
"""Turns of one connection that may wait behind others."""
MAX_LANES: Final = 32
"""Names that one connection may give to lanes."""
MAX_IN_FLIGHT: Final = 16
"""Turns of one connection at the same time, each in a lane of its own."""


class Ending(Struct, frozen=True):
    """Why the server ends a connection: turns that wait get `fault`, and the client too when it is `told`."""

    fault: HTTPFault
    code: int
    told: bool


class WebSockets:
    """The endpoint, and all connections that are open. `seconds` is how long each may last."""

    def __init__(
        self, *, supervisor: Supervisor, new_id: NewId, strict_fields: bool, seconds: float, max_waiting_bytes: int
    ) -> None:
        self.supervisor = supervisor
        self.seconds = seconds
        self.max_waiting_bytes = max_waiting_bytes
        self._new_id = new_id
        self._strict_fields = strict_fields
        self._open: set[Connection] = set()
        self._draining = False
        self._none_open = anyio.Event()

    def routes(self) -> list[WebSocketRoute]:
        return [WebSocketRoute("/v1/responses", self)]

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        connection = Connection(self, receive, send)
        try:
            await send({"type": "websocket.accept"})
            self._open.add(connection)
            if self._draining:
                connection.end(_draining())
            await connection.serve()
        except OSError:
            pass  # the client is gone
        except Exception as error:
            log_fault(error)
            with suppress(OSError):
                await send({"type": "websocket.close", "code": 1011})
        finally:
            self._open.discard(connection)
            if not self._open:
                self._none_open.set()

    def drain(self) -> None:
        """Close idle connections, and the others when the turns under way have ended."""
        self._draining = True
        for connection in self._open:
            connection.end(_draining())

    async def closed(self) -> None:
        """Wait until no connection is open."""
        while self._open:
            self._none_open = anyio.Event()
            await self._none_open.wait()

    def check(self, body: JsonObject, generate: bool) -> Create:
        """Check the body of a create."""
        return check_create(body, self._new_id, strict_fields=self._strict_fields, generate=generate)


class Connection:
    """One client. The task that serves it listens; each lane that is busy has a task of its own."""

    def __init__(self, sockets: WebSockets, receive: Receive, send: Send) -> None:
        self._sockets = sockets
        self._receive = receive
        self._asgi_send = send
        self._until = anyio.current_time() + sockets.seconds
        self._listening = anyio.CancelScope()
        self._ending: Ending | None = None
        self._gone = False
        self._tasks: TaskGroup
        self._lines: dict[str | None, deque[Asked]] = {}  # busy lanes, and the turns that wait in each
        self._names: set[str] = set()
        self._memory = Memory()

    async def serve(self) -> None:
        """Until the client leaves, or the connection has been ended and nothing is under way any more."""
        async with anyio.create_task_group() as self._tasks:
            try:
                while (message := await self._heard()) is not None:
                    await self._take(message)
            except OSError:
                self._gone = True
            self._tasks.cancel_scope.cancel()
        if self._ending is not None and not self._gone:
            if self._ending.told:
                await self._send(encode(error_frame(self._ending.fault)), None)
            await self._asgi_send({"type": "websocket.close", "code": self._ending.code})

    def end(self, ending: Ending) -> None:
        """Take no more turns. The first ending counts."""
        if self._ending is None:
            self._ending = ending
            self._listening.cancel()

    async def _heard(self) -> Message | None:
        """The client's next message; None when there will be none that matters."""
        while self._ending is None or self._lines:
            with anyio.CancelScope(deadline=math.inf if self._ending else self._until) as self._listening:
                message = await self._receive()
                self._gone = message["type"] == "websocket.disconnect"
                return None if self._gone else message
            if anyio.current_time() >= self._until:
                self.end(_limit_reached(self._sockets.seconds))
        return None

    # Turns

    async def _take(self, message: Message) -> None:
        """Read a frame, and give the turn it asks for its place."""
        asked = await self._read(message)
        if isinstance(asked, Steer):
            await self._send(steer_failed(asked), asked.lane)
            return
        try:
            self._admit(asked)
        except HTTPFault as fault:
            await self._refuse(asked, fault)

    async def _read(self, message: Message) -> Asked | Steer:
        if len(message.get("text") or "") <= LONG_BODY:
            return read_frame(message, self._sockets.check)
        return await anyio.to_thread.run_sync(read_frame, message, self._sockets.check)

    def _admit(self, asked: Asked) -> None:
        if asked.lane in self._lines:
            self._check_room(asked)
            self._lines[asked.lane].append(asked)
            return
        if len(self._lines) >= MAX_IN_FLIGHT:
            raise _too_many(f"{MAX_IN_FLIGHT} responses are in flight on this connection. Wait until one has ended.")
        if asked.lane is not None:
            self._names.add(asked.lane)
            if len(self._names) > MAX_LANES:
                self._names.discard(asked.lane)
                raise _too_many(f"This connection has {MAX_LANES} lanes. Use one of them again, or open another one.")
        self._lines[asked.lane] = deque()
        self._tasks.start_soon(self._work, asked)

    def _check_room(self, asked: Asked) -> None:
        waiting = [other for line in self._lines.values() for other in line]
        size = asked.size + sum(other.size for other in waiting)
        if len(waiting) >= MAX_WAITING or (waiting and size > self._sockets.max_waiting_bytes):
            message = f"{len(waiting)} turns wait on this connection already. Send more when some have ended."
            raise TooManyRequests(message, code="websocket_queue_full")

    async def _work(self, asked: Asked) -> None:
        """Answer a turn, and those that came into the line of its lane meanwhile."""
        lane = asked.lane
        try:
            await self._answer(asked)
            while self._lines[lane]:
                await self._answer(self._lines[lane].popleft())
        except OSError:
            return  # the client is gone, and whoever listens to it hears so
        del self._lines[lane]
        if self._ending is not None:
            self._listening.cancel()

    async def _answer(self, asked: Asked) -> None:
        try:
            if self._ending is not None:
                raise self._ending.fault
            if isinstance(asked.create, HTTPFault):
                raise asked.create
            await self._turn(asked, asked.create)
        except OSError:
            raise
        except Exception as error:
            log_fault(error)
            await self._refuse(asked, error)

    async def _turn(self, asked: Asked, create: Create) -> None:
        """Forward a run, event by event."""
        supervisor = self._sockets.supervisor
        check_previous_ended(supervisor, create)
        run = supervisor.start(OWNER, create, remembered=self._memory.items)
        follower = run.follow()
        try:
            await run.begun()
            run.check_begun()
            async for batch in follower.batches():
                self._note(asked, run)
                for event in batch:
                    await self._send((obfuscated(event) if create.obfuscated else event).body, asked.lane)
        except BaseException:
            run.stop("disconnected")
            raise
        finally:
            follower.leave()

    def _note(self, asked: Asked, run: Run) -> None:
        """Before the client hears of the end: its next turn may be here at once, in another lane too."""
        if run.status in ("completed", "incomplete"):
            self._memory.keep(asked.lane, run)
        elif run.status == "failed":
            self._memory.forget(asked.continues)

    async def _refuse(self, asked: Asked, error: Exception) -> None:
        self._memory.forget(asked.continues)
        await self._send(encode(error_frame(error)), asked.lane)

    async def _send(self, body: bytes, lane: str | None) -> None:
        if lane is not None:
            body = b'%b,"stream_id":%b}' % (body[:-1], encode(lane))
        await self._asgi_send({"type": "websocket.send", "text": body.decode()})


def elsewhere(not_found: ASGIApp) -> ASGIApp:
    """The 404 that requests get at an unknown path, for WebSockets too: starlette's 403 makes clients try again."""

    async def default(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            raise HTTPException(404)
        await not_found(scope, receive, send)

    return default


def _draining() -> Ending:
    message = "The server is shutting down. Open a new connection and send the request again."
    return Ending(Unavailable(message), 1012, told=False)


def _limit_reached(seconds: float) -> Ending:
    message = f"This WebSocket connection has reached its limit of {seconds / 60:g} minutes. Open a new one to go on."
    return Ending(InvalidRequest(message, code="websocket_connection_limit_reached"), 1000, told=True)


def _too_many(message: str) -> TooManyRequests:
    return TooManyRequests(message, code="websocket_stream_limit_reached")
