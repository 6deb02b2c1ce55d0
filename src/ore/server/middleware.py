"""What happens to every request before an endpoint sees it: pure ASGI, outermost first in `middleware_stack`.

    RequestEnvelope   an id for every request and response, and the time taken
    Cors              which browser pages may read answers; absent when no origin is configured
    CatchAll          an answer for whatever nobody else caught
    OriginGuard       which browser pages may change anything; only where no key protects the server
    Draining          503 for new requests while the server goes down
    BodyLimits        size and encoding of request bodies

They refuse to know endpoints, and to hold a body: every byte passes through in pieces of bounded size. Within them
comes `ore.server.idempotency`, which does both.
"""

import time
import zlib
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

import anyio.lowlevel
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ore.errors import Forbidden, InvalidRequest, PayloadTooLarge, Unavailable, UnsupportedMediaType
from ore.hosts import is_address, is_loopback
from ore.ids import NewId, new_id
from ore.protocol.wire import BOTH, Wire
from ore.server.errors import current_wire, log_fault, to_http_response
from ore.telemetry import current_request_id

EXPOSED_HEADERS: Final = (
    "x-request-id",
    "x-ore-warning",
    "x-ore-idempotent-replay",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    *(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
)
HEALTH_PATHS: Final = frozenset({"/health", "/livez", "/readyz", "/version", "/metrics"})
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})
_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PIECE: Final = 256 * 1024  # decoded bytes handed on at a time
_RATIO: Final = 200  # decoded bytes per byte sent; JSON text stays below 50, base64 images below 2
_RATIO_FREE: Final = 1024 * 1024  # decoded bytes before the ratio counts
_LINGER: Final = 1.0  # seconds that a refused upload may go on, so that its sender gets to read the answer


def middleware_stack(
    *,
    is_draining: Callable[[], bool],
    max_body_bytes: int,
    cors_origins: Collection[str] = (),
    guard_origins: bool = True,
    health_paths: Collection[str] = HEALTH_PATHS,
    wire: Wire = BOTH,
) -> list[Middleware]:
    """All of them in their order, for `Starlette(middleware=...)`.

    `guard_origins` belongs to servers that ask nobody for a key: those on loopback, and the insecure ones.
    """
    stack = [Middleware(RequestEnvelope, wire=wire)]
    if cors_origins:
        stack.append(Middleware(Cors, origins=cors_origins))
    stack.append(Middleware(CatchAll))
    if guard_origins:
        stack.append(Middleware(OriginGuard, origins=cors_origins))
    stack.append(Middleware(Draining, is_draining=is_draining, exempt=health_paths))
    stack.append(Middleware(BodyLimits, max_bytes=max_body_bytes))
    return stack


class RequestEnvelope:
    """Mints `x-request-id` and puts it where logs find it; says how long the answer took, unless it is a stream.

    The id is in `scope["state"]["request_id"]` and in `ore.telemetry.current_request_id`, the wire in
    `ore.server.errors.current_wire`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        wire: Wire = BOTH,
        new_id: NewId = new_id,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app, self.wire, self.new_id, self.clock = app, wire, new_id, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id, begun = self.new_id("request"), self.clock()
        scope.setdefault("state", {})["request_id"] = request_id
        current_request_id.set(request_id)
        current_wire.set(self.wire)

        async def send_signed(message: Message) -> None:
            if message["type"] in _STARTS:
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if not headers.get("content-type", "").startswith("text/event-stream"):
                    headers["openai-processing-ms"] = str(round((self.clock() - begun) * 1000))
            await send(message)

        await self.app(scope, receive, send_signed)


class CatchAll:
    """Answers for exceptions that nobody else caught, and logs them; a caller who has gone gets neither.

    Where a response has begun already, it is left unfinished: the server then cuts the connection, which is the only
    honest ending.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def send_noting(message: Message) -> None:
            nonlocal answered
            answered = answered or message["type"] in _STARTS
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        except ClientDisconnect:
            pass
        except Exception as exc:
            if scope["type"] == "lifespan":
                raise
            log_fault(exc)
            if not answered:
                await to_http_response(exc)(scope, receive, send)
            elif scope["type"] == "websocket":
                raise  # the server closes the socket with 1011


class Cors(CORSMiddleware):
    """Starlette's, with the arguments that the SDKs in browsers need and refusals in our error shape.

    Preflights are answered with the very header names they asked for: a literal `*` would not cover `Authorization`,
    and the list of `x-stainless-*` names grows with every SDK release. Cookies are never allowed.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            allow_private_network=True,  # who lists an origin wants it to reach this server
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refusal = Forbidden(
            f"{bytes(answer.body).decode()}. Add the page's origin to `cors_origins` under [server]; "
            "GET, POST and DELETE are allowed then."
        )
        refusal.headers["vary"] = answer.headers["vary"]
        return to_http_response(refusal)


class OriginGuard:
    """Keeps pages of the internet from driving a server that asks nobody for a key.

    A browser sends `Origin` with each request that may change something, and with WebSocket handshakes. Such a request
    passes when its origin is configured, or when the page came from this server itself. The latter is believed only
    where the host is an address or `localhost`: any other name may have been rebound to this machine by its owner.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = ()) -> None:
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" or scope.get("method") in _CHANGING:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._allowed(origin, headers.get("host", "")):
                refusal = Forbidden(
                    f"Web pages from {origin[:200]!r} may not use this server. To allow them, add the origin to "
                    "`cors_origins` under [server] in the settings."
                )
                await to_http_response(refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _allowed(self, origin: str, host: str) -> bool:
        if "*" in self.origins or origin in self.origins:
            return True
        try:
            page = urlsplit(origin)
            name = page.hostname or ""
        except ValueError:
            return False
        return page.netloc.lower() == host.lower() and (is_address(name) or is_loopback(name))


class Draining:
    """While the server goes down, sends new requests elsewhere: 503, Retry-After, and the connection closed."""

    def __init__(
        self, app: ASGIApp, *, is_draining: Callable[[], bool], exempt: Collection[str] = HEALTH_PATHS
    ) -> None:
        self.app, self.is_draining, self.exempt = app, is_draining, frozenset(exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self.is_draining() or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        refusal = Unavailable("The server is shutting down. Send the request again; another one will take it.")
        refusal.headers["connection"] = "close"
        response = to_http_response(refusal)
        await response(scope, receive, send if scope["type"] == "websocket" else _lingering(receive, send))


class BodyLimits:
    """Caps request bodies at `max_bytes` as sent and as decoded, and undoes gzip and deflate on the way.

    A `Content-Length` above the cap is refused before anything is read; a chunked body once it has grown too long. The
    413 is raised out of `receive` into the endpoint that reads, and closes the connection when it has been sent.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_ratio: int = _RATIO) -> None:
        self.app, self.max_bytes, self.max_ratio = app, max_bytes, max_ratio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        body = _CountedBody(receive, self.max_bytes, self.max_ratio, _WINDOW_BITS.get(encoding))
        send = _lingering(receive, send, lambda: body.more)
        if int(headers.get("content-length", "0")) > self.max_bytes:  # the HTTP parser has checked that it is a number
            await to_http_response(_too_large(self.max_bytes))(scope, receive, send)
            return
        if encoding not in _WINDOW_BITS:
            await to_http_response(_unknown_encoding(encoding))(scope, receive, send)
            return
        if body.decoder is not None:
            hidden = (b"content-encoding", b"content-length")
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in hidden]}
        await self.app(scope, body.receive, send)


_WINDOW_BITS: Final[dict[str, int | None]] = {
    "": None,
    "identity": None,
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}


class _CountedBody:
    """An ASGI `receive` that counts, and decodes at most one piece per call, however much a bomb would make of it."""

    def __init__(self, receive: Receive, max_bytes: int, max_ratio: int, window_bits: int | None) -> None:
        self.inner, self.max_bytes, self.max_ratio = receive, max_bytes, max_ratio
        self.decoder = None if window_bits is None else zlib.decompressobj(window_bits)
        self.sent = self.decoded = 0
        self.more = True  # whether the sender has more
        self.full = False  # whether the last piece was as large as a piece may be, so that the decoder may hold more

    async def receive(self) -> Message:
        if self.decoder is not None and self.full:
            await anyio.lowlevel.checkpoint()
            return self._decode(self.decoder, self.decoder.unconsumed_tail)
        message = await self.inner()
        if message["type"] != "http.request":
            return message
        body, self.more = message.get("body", b""), message.get("more_body", False)
        self.sent += len(body)
        if self.sent > self.max_bytes:
            raise _too_large(self.max_bytes)
        return message if self.decoder is None else self._decode(self.decoder, body)

    def _decode(self, decoder: "zlib._Decompress", data: bytes) -> Message:
        try:
            piece = decoder.decompress(data, _PIECE)
        except zlib.error:
            raise _broken_encoding() from None
        self.full = len(piece) == _PIECE
        self.decoded += len(piece)
        if self.decoded > min(self.max_bytes, max(_RATIO_FREE, self.max_ratio * self.sent)):
            raise _too_large(self.max_bytes)
        more = self.more or self.full
        if decoder.unused_data or (self.sent and not more and not decoder.eof):
            raise _broken_encoding()
        return {"type": "http.request", "body": piece, "more_body": more}


def _unknown_encoding(encoding: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"Request bodies encoded as {encoding[:50]!r} cannot be read. Send the body as it is, or encode it with gzip "
        "or deflate and name that in Content-Encoding.",
        headers={"connection": "close", "accept-encoding": "gzip, deflate"},
    )


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than this server takes, {max_bytes} bytes once decoded. Send a smaller one, or "
        "raise `max_body_bytes` under [server].",
        headers={"connection": "close"},
    )


def _broken_encoding() -> InvalidRequest:
    return InvalidRequest(
        "The request body is not what its Content-Encoding says: broken, cut short or too long.",
        headers={"connection": "close"},
    )


def _lingering(receive: Receive, send: Send, unread: Callable[[], bool] = lambda: True) -> Send:
    """Let the sender of an `unread` body finish, for `_LINGER` seconds, before a response closes the connection.

    Closing a socket that still receives makes the kernel reset it, and the sender loses the answer it has not read.
    The rest of its body is read and thrown away; the response itself is already out, its length is known.
    """
    closing = False

    async def send_then_drain(message: Message) -> None:
        nonlocal closing
        if message["type"] == "http.response.start":
            headers = Headers(raw=message.get("headers", []))
            closing = headers.get("connection") == "close" and "content-length" in headers
        elif closing and unread() and not message.get("more_body", False):
            await send({**message, "more_body": True})
            with anyio.move_on_after(_LINGER):
                while (await receive()).get("more_body", False):
                    pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return send_then_drain
