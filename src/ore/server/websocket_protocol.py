"""uvicorn's WebSocket protocol with the holes closed that it leaves open.

What it refuses: handshakes that are none (in our JSON shape, and never by waiting for ever), clients that do not read
what they are sent, and those that make it answer pings faster than they read. A refused client may finish its sentence
for a second, so that it gets to read why. It compresses nothing: a window for each connection costs more memory than
the rest of it, and a small frame could become a large one. It never looks into a message.
"""

import asyncio
from collections import deque
from typing import Any, ClassVar, Final

from starlette.exceptions import HTTPException
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from ore.ids import new_id
from ore.protocol.wire import BOTH, Wire
from ore.server.errors import to_http_response
from ore.server.slow_reader import SlowReader

_LINGER: Final = 1.0  # seconds for which a refused connection is still read: closing at once would reset it
_UNREAD_PONGS: Final = 256  # more than any client has under way that reads at all


def websocket_protocol(*, write_timeout: float, wire: Wire = BOTH) -> type["HardenedWebSocketProtocol"]:
    """The class for `uvicorn.Config(ws=...)`. `write_timeout` is in seconds."""
    limits = {"write_timeout": write_timeout, "wire": wire}
    return type("ConfiguredWebSocketProtocol", (HardenedWebSocketProtocol,), limits)


class HardenedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, from the head of its handshake on, which arrives whole."""

    write_timeout: ClassVar[float]
    wire: ClassVar[Wire]
    _reader: SlowReader

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Handshake(max_size=config.ws_max_size, logger=self.logger)
        self.conn.wire = self.wire
        self.queue = _Mailbox()  # type: ignore[assignment]
        self._unread_pongs = 0
        self._refused = False

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._reader = SlowReader(self.transport, self.loop, self.write_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.trust()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.doubt()

    def resume_writing(self) -> None:
        self._reader.trust()
        self._unread_pongs = 0
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """uvicorn's; but it forgets to send the refusal of a head that is no handshake, and would wait for ever."""
        if self._refused:
            return
        super().data_received(data)
        if not self.handshake_initiated:
            refusal = b"".join(self.conn.data_to_send())
            self.transport.write(refusal or self.conn.reject(400, _NO_HANDSHAKE).serialize())
            self._refuse()

    # What the parser reports

    def handle_cont(self, event: Frame) -> None:
        """Pieces are put together at once: as a list, a message of tiny ones would take many times its size."""
        frames: list[Any] = self.frames
        if not isinstance(frames[0], bytearray):
            frames[0] = bytearray(frames[0])
        frames[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """uvicorn's, without the traceback in the log for what a client did wrong."""
        (data,), self.frames = self.frames, []
        if self.close_sent:
            return
        try:
            if self.curr_msg_data_type == "text":
                self.queue.put_nowait({"type": "websocket.receive", "text": data.decode()})
            else:
                self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        except UnicodeDecodeError:
            self.conn.fail(1007, "not UTF-8")
            self.handle_parser_exception()
            return
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_ping(self) -> None:
        """A client that is behind with reading gets few more answers, or they would fill the memory."""
        super().handle_ping()
        if not self.writable.is_set():
            self._unread_pongs += 1
            if self._unread_pongs > _UNREAD_PONGS:
                self.transport.abort()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._reader.doubt()

    def handle_parser_exception(self) -> None:
        """Say why; and while the client reads that, throw away what it still sends."""
        said = self.conn.close_sent
        if said is None or self.close_sent:  # before the handshake, or behind a close
            self.transport.abort()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": said.code, "reason": said.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self._refuse()

    def keepalive_timeout(self) -> None:
        """No pong. Who is behind with reading has not seen the ping yet, and is judged by how it reads."""
        if not self.writable.is_set():
            self.pong_timer = self.loop.call_later(self.write_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1011, "reason": "no pong"})
        self._refuse()

    def _refuse(self) -> None:
        """Nothing more is taken or said; soon the connection ends, whatever the client does."""
        self._refused = self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(_LINGER, self.transport.abort)

    # What the application says

    async def send(self, message: ASGISendEvent) -> None:
        """Raises `ClientDisconnected` when it is too late, also where uvicorn would call that a fault of ours."""
        try:
            await super().send(message)
        except RuntimeError:
            if self.close_sent:
                raise ClientDisconnected from None
            raise
        if message["type"] == "websocket.accept":
            del self.request, self.response  # nothing asks for them any more, and they are a fifth of the connection
        elif message["type"] == "websocket.close":
            self._reader.doubt()
        elif self.close_sent and self.initial_response is not None:
            self.handshake_complete = True  # it was refused, which is an answer too


class _Mailbox:
    """Messages on their way to the application, which takes them one at a time.

    `asyncio.Queue` holds 3 KB when it is empty, as nearly all are that a server has.
    """

    __slots__ = ("_messages", "_wanted")

    def __init__(self) -> None:
        self._messages: deque[ASGIReceiveEvent] | None = None
        self._wanted: asyncio.Future[None] | None = None

    def put_nowait(self, message: ASGIReceiveEvent) -> None:
        if self._messages is None:
            self._messages = deque()
        self._messages.append(message)
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def get(self) -> ASGIReceiveEvent:
        while self._messages is None:
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        message = self._messages.popleft()
        self._messages = self._messages or None
        return message

    def empty(self) -> bool:
        return self._messages is None


class _Handshake(ServerProtocol):
    """Refuses in our JSON shape."""

    wire: Wire = BOTH

    def reject(self, status: StatusLike, text: str) -> Response:
        plain = super().reject(status, "")
        ours = to_http_response(HTTPException(plain.status_code, text.partition("\n")[0]), self.wire)
        headers = Headers((name.decode(), value.decode()) for name, value in ours.raw_headers)
        headers["x-request-id"] = new_id("request")
        headers["connection"] = "close"
        return Response(plain.status_code, plain.reason_phrase, headers, bytes(ours.body))


_NO_HANDSHAKE: Final = "This is not a valid WebSocket handshake."
