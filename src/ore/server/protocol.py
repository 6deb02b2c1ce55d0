"""uvicorn's HTTP protocol with the holes closed that it leaves open: no limit on a request's head, and no clock.

What it refuses, always in our JSON shape and closing the connection: heads (414, 431) and trailers without end, heads
and bodies that arrive too slowly or not at all (408), and what is not HTTP (400). Who does not read what was sent is
hung up on. It never looks into a body, never waits for a response, and leaves idle connections to uvicorn's keep-alive
timer.
"""

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, ClassVar, Final

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ore.errors import HeadTooLarge, HTTPFault, InvalidRequest, RequestTimeout, UrlTooLong
from ore.ids import new_id
from ore.protocol.wire import BOTH, Wire
from ore.server.errors import error_payload
from ore.server.slow_reader import SlowReader

_LINGER: Final = 1.0  # seconds for which a refused connection is still read: closing at once would reset it
_NOT_HTTP: Final = (
    "This is not a valid HTTP/1.1 request. If the URL begins with https://, try http://: this port does not speak TLS."
)
_SLICE: Final = 8192  # bytes given to the parser at a time: it does not say how much of them belonged to what
_LEAST: Final = 1024  # bytes of body that a `body_timeout` must bring, or a byte now and then would hold a connection


def hardened_protocol(
    *, max_header_bytes: int, header_timeout: float, body_timeout: float, write_timeout: float, wire: Wire = BOTH
) -> type["HardenedHttpProtocol"]:
    """The class for `uvicorn.Config(http=...)`. Times are in seconds; what stalls ends after one to two of its."""
    limits = {
        "max_header_bytes": max_header_bytes,
        "header_timeout": header_timeout,
        "body_timeout": body_timeout,
        "write_timeout": write_timeout,
        "wire": wire,
    }
    return type("ConfiguredHttpProtocol", (HardenedHttpProtocol,), limits)


class HardenedHttpProtocol(HttpToolsProtocol):
    """One connection. At any time it waits for a head or for a body, and one timer watches whichever it is."""

    max_header_bytes: ClassVar[int]
    header_timeout: ClassVar[float]
    body_timeout: ClassVar[float]
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
        self._in_head = True  # from the end of one request to the end of the next one's head
        self._head_bytes = 0  # of URL, headers and trailers that the parser has completed
        self._loose_bytes = 0  # received since the parser last completed a head or gave us body
        self._body_bytes = 0  # of body since the timer last looked
        self._timer: TimerHandle | None = None
        self._fault: HTTPFault | None = None  # why a parser callback gave up
        self._refused = False
        self._successor: asyncio.Protocol | None = None  # who has the connection after an upgrade

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = SlowReader(transport, self.loop, self.write_timeout)
        self._watch(self.header_timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._reader.trust()
        self._unset_keepalive_if_required()  # uvicorn forgets to when the peer resets, and so keeps every object alive
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.doubt()

    def resume_writing(self) -> None:
        self._reader.trust()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """uvicorn's, and counting: the parser buffers a header until its end, chunk extensions and trailers too."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._in_head and self._timer is None:  # blank lines before a request are no message yet, but take time
            self._watch(self.header_timeout, self._head_is_late)
        try:
            for at in range(0, len(data), _SLICE):
                self._take(memoryview(data)[at : at + _SLICE])
        except httptools.HttpParserError:
            self._refuse(self._fault or InvalidRequest(_NOT_HTTP, code="invalid_request"))

    def _take(self, piece: memoryview) -> None:
        if self._refused:
            return
        if self._successor is not None:
            self._successor.data_received(bytes(piece))
            return
        self._loose_bytes += len(piece)
        while piece:
            piece = self._feed(piece)
        if self._loose_bytes > self.max_header_bytes:
            self._refuse(self._head_too_large())

    def _feed(self, data: memoryview) -> memoryview:
        """Give it to the parser; returns what the parser left."""
        if self._successor is not None:
            self._successor.data_received(bytes(data))
            return memoryview(b"")
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                return data[upgrade.args[0] :]
            if self._ignores_upgrade():
                self._start_over()
                return data[upgrade.args[0] :]
        return memoryview(b"")

    def _should_upgrade(self) -> bool:
        """A handshake is a GET of HTTP/1.1; and one behind a response under way would cut that off from its client."""
        handshake = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return handshake and self._is_idle() and super()._should_upgrade()

    def _ignores_upgrade(self) -> bool:
        """Java's HttpClient offers `Upgrade: h2c` each time, and the parser takes its body for the new protocol."""
        if self.parser.get_method() == b"CONNECT" or not self.parser.should_upgrade():
            return False
        offered = self._get_upgrade()
        if offered == b"websocket" and self._should_upgrade_to_ws():
            return not self._should_upgrade()
        return offered not in (None, b"websocket")

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_over(self) -> None:
        """Read the head again without the offer, so that the body counts as one (RFC 9110, 7.8: it may be ignored)."""
        offers = (b"upgrade", b"connection", b"http2-settings")
        lines = [name + b": " + value for name, value in self.headers if name not in offers]
        head = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1", *lines, b"", b""]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"\r\n".join(head))

    def handle_websocket_upgrade(self) -> None:
        self._unwatch()
        self._reader.trust()
        super().handle_websocket_upgrade()
        self._successor = self.transport.get_protocol()  # type: ignore[assignment]
        self._loose_bytes = 0

    def on_response_complete(self) -> None:
        """The next request may have begun meanwhile; its time begins now, for nobody has been reading."""
        super().on_response_complete()
        if self._in_head and self._timer is not None and not self._refused:
            self._watch(self.header_timeout, self._head_is_late)

    # What the parser reports

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._timer is None:
            self._watch(self.header_timeout, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        if self._head_bytes > self.max_header_bytes:
            self._fault = UrlTooLong(
                f"The URL is longer than {self.max_header_bytes} bytes. Send the data in the body."
            )
            raise self._fault

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are counted and dropped: uvicorn would slip them into the headers the application already has."""
        if self._in_head:
            super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.max_header_bytes:
            self._fault = self._head_too_large()
            raise self._fault

    def on_headers_complete(self) -> None:
        if self._ignores_upgrade():
            return  # the parser believes that the message ends here; `_start_over` follows
        super().on_headers_complete()
        self._in_head = False
        self._loose_bytes = self._body_bytes = 0
        self._watch(self.body_timeout, self._body_is_late)

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_head = True
        self._loose_bytes = 0
        self._unwatch()
        super().on_message_complete()

    # Clocks and limits

    def _watch(self, seconds: float, late: Callable[[], None]) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(seconds, late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._watch(self.header_timeout, self._head_is_late)  # pipelined: first comes the response under way
        elif self._loose_bytes == 0:
            self.transport.close()  # it never spoke; there is nothing to answer
        else:
            self._refuse(RequestTimeout(f"The request head was not complete within {self.header_timeout:g} seconds."))

    def _body_is_late(self) -> None:
        moved, self._body_bytes = self._body_bytes, 0
        answering = self.cycle.response_started and not self.cycle.response_complete
        if moved >= _LEAST or answering or self.flow.read_paused or self.pipeline:
            self._watch(self.body_timeout, self._body_is_late)
        elif self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse(RequestTimeout(f"The request body paused for more than {self.body_timeout:g} seconds."))

    def _head_too_large(self) -> HTTPFault:
        return HeadTooLarge(f"The request head is larger than {self.max_header_bytes} bytes. Send fewer headers.")

    def _refuse(self, fault: HTTPFault) -> None:
        """Answer, unless that would land inside the response to an earlier request, and hang up."""
        if self._refused:
            return
        self._refused = True
        self._unwatch()
        idle = self._is_idle()
        if not idle and (self._in_head or self.cycle.response_started or self.pipeline):
            self.transport.close()
            return
        if not idle:  # the application waits for this very request's body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._rendered(fault))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._watch(_LINGER, self.transport.close)

    def _rendered(self, fault: HTTPFault) -> bytes:
        body = msgspec.json.encode(error_payload(fault, self.wire))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", new_id("request").encode()),
            (b"connection", b"close"),
        ]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        return b"".join([STATUS_LINE[fault.status], *lines, b"\r\n", body])
