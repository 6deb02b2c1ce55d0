"""Raw bytes against the WebSocket side of a real server: broken handshakes and frames, floods, and slow readers."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from live_server import LONG, RawClient, serving, wait_for
from starlette.types import Receive, Scope, Send

from ore.server import websocket_protocol as subject
from ore.server.protocol import hardened_protocol
from ore.server.websocket_protocol import websocket_protocol

BLINK = 0.2  # seconds: the timeouts of the server under test
LARGEST = 100_000  # bytes of a message
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


class Echo:
    """Sends each message back, and notes what it saw. What it answers to `flood` never ends."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.closed: list[int] = []
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/no":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"teapot"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            self.seen.append(message.get("text", message.get("bytes")))
            if message.get("text") == "flood":
                await self._flood(send)
            elif message.get("text") == "leave":
                await send({"type": "websocket.close", "code": 1000})
            else:
                await send({**message, "type": "websocket.send"})
        self.closed.append(message["code"])

    async def _flood(self, send: Send) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65_536)})
                self.sent += 1
                await anyio.lowlevel.checkpoint()
        except OSError:
            self.seen.append("gone")


@contextmanager
def server(app: Any, **options: Any) -> Iterator[int]:
    http = hardened_protocol(max_header_bytes=32_768, header_timeout=BLINK, body_timeout=BLINK, write_timeout=BLINK)
    ws = websocket_protocol(write_timeout=options.pop("write_timeout", BLINK))
    options = {"ws_max_size": LARGEST, "ws_ping_interval": None, "ws_per_message_deflate": False} | options
    with serving(app, http=http, ws=ws, **options) as port:
        yield port


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LINGER", BLINK)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def port(echo: Echo, loop: str) -> Iterator[int]:
    with server(echo, loop=loop) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator["Frames"]:
    with Frames(port) as client:
        yield client


def head(path: str = "/", method: str = "GET", version: str = "1.1", **headers: str | None) -> bytes:
    """A handshake; a header that is None is left out."""
    named = {"host": "x", "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    named |= {"sec-websocket-key": KEY} | {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[dict-item]
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode()


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, length: int | None = None) -> bytes:
    """A masked frame, whose mask is zero. `length` is what it says that it is long."""
    size = len(data) if length is None else length
    begin = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        return begin + bytes([0x80 | size]) + bytes(4) + data
    if size < 65_536:
        return begin + b"\xfe" + struct.pack(">H", size) + bytes(4) + data
    return begin + b"\xff" + struct.pack(">Q", size) + bytes(4) + data


class Frames(RawClient):
    """A raw client behind its handshake."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.send(head())
        assert self.answer(has_body=False).status == 101

    def frame(self) -> tuple[int, bytes]:
        """Opcode and content of the next frame."""
        begin = self._take(2)
        size = begin[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return begin[0] & 0x0F, self._take(size)

    def close_code(self) -> int:
        """The code of the close frame that comes next."""
        opcode, data = self.frame()
        assert opcode == CLOSE
        return int(struct.unpack(">H", data[:2])[0])

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


# Handshakes


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head(sec_websocket_key=None), 400),
        (head(sec_websocket_key="short"), 400),
        (head(sec_websocket_version=None), 400),
        (head(sec_websocket_version="8"), 400),
        (head(sec_websocket_key=KEY + "\r\nsec-websocket-key: " + KEY), 400),
        (head(x_large="z" * 10_000), 431),
        (head("/" + "z" * 10_000), 414),
        (head(**{f"x-{n}": "z" for n in range(200)}), 431),
    ],
    ids=["no key", "bad key", "no version", "old version", "two keys", "long header", "long path", "many headers"],
)
def test_a_broken_handshake_is_refused_in_our_shape(port: int, echo: Echo, request_head: bytes, status: int) -> None:
    """With a JSON error and a request id, at once, and the connection ends."""
    with RawClient(port) as client:
        client.send(request_head)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.error()["type"] == "invalid_request_error"
        assert answer.headers["x-request-id"].startswith("req_")
        assert client.closed()
    assert echo.seen == []


@pytest.mark.parametrize("request_head", [head(method="POST", content_length="0"), head(version="1.0")])
def test_what_is_no_handshake_is_an_ordinary_request(loop: str, request_head: bytes) -> None:
    """An upgrade is an offer: where there is nothing to have, the request is answered as it stands."""
    methods: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    with server(app, loop=loop) as port, RawClient(port) as client:
        client.send(request_head)
        assert client.answer().status == 200
    assert methods == [request_head.split()[0].decode()]


def test_a_handshake_behind_a_response_under_way_is_none(loop: str) -> None:
    """It would cut that response off from its client, and its run from the news that the client has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun, ", "more_body": True})
        await anyio.sleep(BLINK)
        await send({"type": "http.response.body", "body": b"ended"})

    with server(app, loop=loop) as port, RawClient(port) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + head())
        assert [client.answer().body for _ in range(2)] == [b"begun, ended"] * 2


def test_frames_may_come_with_the_handshake(port: int) -> None:
    """What is sent before the answer is not lost, however much it is."""
    with RawClient(port) as raw:
        raw.send(head() + frame(TEXT, b"a" * 50_000))
        assert raw.answer(has_body=False).status == 101
        raw.__class__ = Frames
        assert raw.frame() == (TEXT, b"a" * 50_000)  # type: ignore[attr-defined]


def test_a_refusal_of_the_application_is_no_error(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn would log that the application completed no handshake."""
    with RawClient(port) as client:
        client.send(head("/no"))
        assert client.answer().status == 418
        assert client.closed()
    assert caplog.records == []


# Messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, LARGEST])
def test_messages_up_to_the_limit_arrive(client: Frames, size: int) -> None:
    """Of any length encoding."""
    client.send(frame(TEXT, b"z" * size))
    assert client.frame() == (TEXT, b"z" * size)


def test_a_message_in_pieces_is_one(client: Frames, echo: Echo) -> None:
    """Fragments are put together, also where they split a character; pings may come between them."""
    text = "\u00e9" * 1000
    data = text.encode()
    client.send(frame(TEXT, data[:1], fin=False))
    for n in range(1, len(data) - 1):
        client.send(frame(CONT, data[n : n + 1], fin=False))
    client.send(frame(PING, b"?") + frame(CONT, data[-1:]))
    assert client.frame() == (PONG, b"?")
    assert client.frame() == (TEXT, data)
    client.send(frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\x00"))
    assert client.frame() == (BINARY, b"\xff\x00")
    assert echo.seen == [text, b"\xff\x00"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([frame(TEXT, length=LARGEST + 1)], 1009),
        ([frame(TEXT, b"z" * LARGEST, fin=False), frame(CONT, b"z")], 1009),
        ([frame(TEXT, b"\xff\xfe")], 1007),
        ([frame(3)], 1002),
        ([frame(TEXT | 0x40, b"deflated")], 1002),
        ([frame(CONT, b"of nothing")], 1002),
        ([frame(PING, b"z" * 126)], 1002),
        ([frame(PING, fin=False)], 1002),
        ([frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], 1002),
        ([b"\x81\x01a"], 1002),
        ([frame(CLOSE, b"\x03")], 1002),
    ],
    ids=[
        *("too large", "too large in pieces", "not UTF-8", "unknown opcode", "compressed", "loose piece"),
        *("large ping", "ping in pieces", "two beginnings", "not masked", "short close"),
    ],
)
def test_a_broken_frame_closes_with_its_code(
    client: Frames, echo: Echo, sent: list[bytes], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As the standard says, and without a traceback in the log."""
    for data in sent:
        client.send(data)
    assert client.close_code() == code
    client.send(frame(CLOSE, struct.pack(">H", code)))
    assert client.closed()
    wait_for(lambda: echo.closed == [code])
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_the_sender_of_too_much_reads_why(client: Frames) -> None:
    """A client in the middle of a large message finds the close frame and not a reset connection."""
    client.send(frame(TEXT, length=50 * 65_536))
    for _ in range(50):
        client.send(bytes(65_536))
    assert client.close_code() == 1009


def test_a_message_of_tiny_pieces_costs_what_it_holds(echo: Echo) -> None:
    """A list of half a million pieces would take nearly 30 MB for one of content."""
    with server(echo, ws_max_size=8_000_000) as port, Frames(port) as client:
        before = resident()
        client.send(frame(TEXT, b"", fin=False))
        for _ in range(100):
            client.send(frame(CONT, b"zz", fin=False) * 5_000)
        client.send(frame(PING, b"!"))
        assert client.frame() == (PONG, b"!")
        assert resident() - before < 14 * 1024 * 1024


def resident() -> int:
    """Bytes of memory that this process, and so the server in it, holds."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Clocks


def test_a_client_that_does_not_answer_pings_is_closed(echo: Echo, loop: str) -> None:
    """With 1011, and the application is told; one that answers is left alone."""
    with server(echo, loop=loop, ws_ping_interval=BLINK / 4, ws_ping_timeout=BLINK) as port, Frames(port) as client:
        for _ in range(8):  # longer than the timeout
            opcode, data = client.frame()
            assert opcode == PING
            client.send(frame(PONG, data))
        assert client.frame()[0] == PING
        assert client.close_code() == 1011
        wait_for(lambda: echo.closed == [1011])
        assert client.closed()


def test_who_does_not_read_is_hung_up_on(echo: Echo, loop: str) -> None:
    """The application hears of it; who reads, however slowly, is left alone. Its sends wait meanwhile."""
    with server(echo, loop=loop) as port, slow_reader(port) as client:
        client.sendall(frame(TEXT, b"flood"))
        for _ in range(20):  # longer than two timeouts
            threading.Event().wait(BLINK / 5)
            assert client.recv(1_000_000)
        assert echo.seen == ["flood"]
        wait_for(lambda: echo.seen == ["flood", "gone"])
        assert echo.sent < 200


def test_who_floods_with_pings_without_reading_is_hung_up_on(echo: Echo, loop: str) -> None:
    """Their answers do not pile up until a timeout: that would be gigabytes."""
    with server(echo, loop=loop, write_timeout=60.0) as port, slow_reader(port) as client:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(10_000):
                client.sendall(frame(PING, b"z" * 125) * 1000)
        wait_for(lambda: echo.closed)


@contextmanager
def slow_reader(port: int) -> Iterator[socket.socket]:
    """A socket behind its handshake whose buffer holds next to nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LONG)
        client.connect(("127.0.0.1", port))
        client.sendall(head())
        assert client.recv(12) == b"HTTP/1.1 101"
        yield client


# Endings


def test_the_server_closes(client: Frames, echo: Echo) -> None:
    """With the code of the application, and for good once the client has answered."""
    client.send(frame(TEXT, b"leave"))
    assert client.close_code() == 1000
    client.send(frame(CLOSE, struct.pack(">H", 1000)))
    assert client.closed()


def test_junk_behind_a_close_ends_it(client: Frames, caplog: pytest.LogCaptureFixture) -> None:
    """Without a word, and without noise in the log."""
    client.send(frame(TEXT, b"leave"))
    assert client.close_code() == 1000
    client.send(b"\xff" * 100)
    assert client.closed()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_stopping_server_says_so(echo: Echo, loop: str) -> None:
    """1012: come back."""
    with server(echo, loop=loop) as port:
        client = Frames(port)
        client.send(frame(TEXT, b"hi"))
        assert client.frame() == (TEXT, b"hi")
    with client:
        assert client.close_code() == 1012


def test_the_shape_of_refusals() -> None:
    """A refused handshake has the body of any other error."""
    response = subject._Handshake().reject(400, "No.\nmore")
    assert json.loads(response.body)["error"]["message"] == "No."
