"""Raw bytes against a real server: what is slow, endless or broken ends, and what is not goes on as with uvicorn."""

import gc
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from live_server import LONG, RawClient, serving, wait_for
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from ore.server import protocol
from ore.server.protocol import HardenedHttpProtocol, hardened_protocol

BLINK = 0.2  # seconds: the timeouts of the server under test
LIMIT = 4096  # bytes of head
TYPICAL = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class App:
    """Answers with the body it was sent, and notes what it saw."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"]
        if path == "/early":  # answers without reading its body
            body = b"early"
        elif path == "/stream":  # answers for longer than all timeouts without reading its body
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begin ", "more_body": True})
            await anyio.sleep(4 * BLINK)
            await send({"type": "http.response.body", "body": b"end", "more_body": False})
            return
        elif path == "/busy":  # does not read for longer than all timeouts
            await anyio.sleep(3 * BLINK)
            body = await request.body()
        else:
            try:
                body = await request.body()
            except ClientDisconnect:
                self.calls.append("disconnect")
                return
        self.calls.append(path)
        self.headers.append(list(scope["headers"]))
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def server(app: Any = None, **options: Any) -> Iterator[int]:
    times = {"header_timeout": BLINK, "body_timeout": BLINK, "write_timeout": BLINK} | {
        name: options.pop(name) for name in ("header_timeout", "body_timeout", "write_timeout") if name in options
    }
    http = hardened_protocol(max_header_bytes=LIMIT, **times)
    with serving(app or App(), http=http, **options) as port:
        yield port


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with server(loop=request.param) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[RawClient]:
    with RawClient(port) as client:
        yield client


def resident() -> int:
    """Bytes of memory that this process, and so the server in it, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def drip(client: RawClient, data: bytes) -> bool:
    """Send one byte after another, a few in each timeout, until the server answers or all is sent; True if it did."""
    for byte in data:
        client.send(bytes([byte]))
        client.socket.settimeout(BLINK / 4)
        try:
            client.buffer += client.socket.recv(1)
        except TimeoutError:
            continue
        finally:
            client.socket.settimeout(LONG)
        return True
    return False


# Slow clients (F19)


def test_a_silent_connection_is_closed_without_a_word(client: RawClient) -> None:
    """Who sends nothing within the header timeout gets nothing but a close."""
    assert client.closed()


@pytest.mark.parametrize("part", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n\r\n"])
def test_a_partial_head_is_a_408(client: RawClient, part: bytes) -> None:
    """A head left unfinished is answered with 408 after the header timeout, blank lines before it included."""
    client.send(part)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert "0.2 seconds" in answer.error()["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert client.closed()


def test_bytes_now_and_then_do_not_keep_a_head_open(client: RawClient) -> None:
    """The header timeout counts from the beginning, not from the last byte."""
    assert drip(client, b"GET / HTTP/1.1\r\nx-slow: " + b"z" * 1000)
    assert client.answer().status == 408


@pytest.mark.parametrize("between", [b"GET / HTT", b"\r\n"])
def test_the_next_request_has_its_own_deadline(client: RawClient, between: bytes) -> None:
    """On a kept connection the head timeout begins with the first byte of the next request, even a blank line."""
    assert client.request("GET", "/").status == 200
    client.send(between)
    assert client.answer().status == 408


def test_an_idle_kept_connection_is_left_alone(client: RawClient) -> None:
    """Between requests only uvicorn's keep-alive timer counts."""
    client.request("GET", "/")
    client.socket.settimeout(3 * BLINK)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    client.socket.settimeout(LONG)
    assert client.request("GET", "/").status == 200


@pytest.mark.parametrize("begin", [b"content-length: 10\r\n\r\n12345", b"transfer-encoding: chunked\r\n\r\n5\r\n123"])
def test_a_stalled_body_is_a_408_and_a_disconnect(begin: bytes) -> None:
    """A body that stops coming is answered with 408, and the application learns that its caller is gone."""
    app = App()
    with server(app) as port, RawClient(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\n" + begin)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert "body" in answer.error()["message"]
        assert client.closed()
        wait_for(lambda: app.calls == ["disconnect"])


def test_bytes_now_and_then_do_not_keep_a_body_open(client: RawClient) -> None:
    """A body that brings less than a kibibyte per timeout counts as stalled."""
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
    assert drip(client, b"z" * 999)
    assert client.answer().status == 408


def test_a_slow_but_steady_body_arrives(client: RawClient) -> None:
    """A body may take several timeouts, if it keeps coming."""
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n")
    for _ in range(19):
        client.send(b"z" * 999)
        assert not drip(client, b"z")
    client.send(b"z" * 1000)
    assert client.answer().status == 200


def test_an_application_that_does_not_read_is_not_the_clients_fault(client: RawClient) -> None:
    """While reading is paused because the application is busy, no body timeout runs."""
    client.send(b"POST /busy HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n")
    client.send(b"z" * 5_000_000)
    assert len(client.answer().body) == 5_000_000


def test_a_response_under_way_is_not_cut_for_its_unread_body(client: RawClient) -> None:
    """An application that streams without reading its body finishes its response."""
    client.send(b"POST /stream HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
    assert client.answer().body == b"begin end"
    assert client.closed()


def test_the_rest_of_an_answered_body_cannot_hold_the_connection(client: RawClient) -> None:
    """After the response a body that never ends is closed without a word, however it drips."""
    client.send(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n12345")
    assert client.answer().body == b"early"
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(1000):
            client.send(b"z")
            client.socket.settimeout(BLINK / 4)
            try:
                if client.socket.recv(1) == b"":
                    raise ConnectionResetError
            except TimeoutError:
                continue


# Oversized requests (F20)


def test_a_head_within_the_limit_passes(client: RawClient) -> None:
    """A head just below the limit is an ordinary request."""
    assert client.request("GET", "/", x_large="z" * (LIMIT - 100)).status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx-large: " + b"z" * 2 * LIMIT + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nx-large: " + b"z" * 2 * LIMIT,
        b"GET / HTTP/1.1\r\n" + b"z" * 2 * LIMIT,
        b"GET / HTTP/1.1\r\n" + b"x-many: z\r\n" * LIMIT,
        b"\r\n" * LIMIT,
    ],
    ids=["complete", "value", "name", "many", "blank lines"],
)
def test_a_large_head_is_a_431(client: RawClient, head: bytes) -> None:
    """More than the limit without an end, or with one, is a 431 and the end of the connection."""
    client.send(head)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert "4096 bytes" in answer.error()["message"]
    assert client.closed()


@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_a_long_url_is_a_414(client: RawClient, end: bytes) -> None:
    """A request line that does not fit is told apart from large headers."""
    client.send(b"GET /" + b"z" * 2 * LIMIT + end)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (414, "close")
    assert "URL" in answer.error()["message"]


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nx-large: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;ext=",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-trailer: ",
    ],
    ids=["header", "url", "chunk extension", "trailer"],
)
def test_what_never_ends_costs_no_memory(client: RawClient, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head, chunk extension or trailer without end is hung up on, and memory stays flat."""
    monkeypatch.setattr(protocol, "_LINGER", BLINK)
    before = resident()
    client.send(begin)
    client.send_until_refused(b"z" * 65536, 10**6)
    assert resident() - before < 32 * 1024 * 1024


def test_the_sender_reads_its_refusal(client: RawClient) -> None:
    """A sender that is still sending when it is refused finds the answer and not a reset connection."""
    client.send(b"GET / HTTP/1.1\r\nx-large: ")
    for _ in range(50):
        client.send(b"z" * 65536)
    assert client.answer().status == 431


def test_trailers_do_not_become_headers() -> None:
    """What comes after a chunked body cannot add to the headers of its request."""
    app = App()
    with server(app) as port, RawClient(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(b"3\r\nabc\r\n0\r\nauthorization: Bearer stolen\r\n\r\n")
        assert client.answer().body == b"abc"
        assert client.request("GET", "/").status == 200
    assert [name for name, _ in app.headers[0]] == [b"host", b"transfer-encoding"]


# Broken requests


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnot hex\r\n",
    ],
    ids=lambda junk: junk[:40].decode("latin-1").replace("\r\n", " "),
)
def test_what_is_not_http_is_a_400_in_our_shape(client: RawClient, junk: bytes) -> None:
    """Malformed, ambiguous and encrypted requests get a JSON error with a next step, and the connection closes."""
    client.send(junk)
    answer = client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.error()["code"] == "invalid_request"
    assert "https://" in answer.error()["message"]
    assert client.closed()


def test_junk_after_a_request_does_not_spoil_its_response(client: RawClient) -> None:
    """Nothing is written into a response that is under way: the connection ends instead."""
    client.send(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
    while b"begin" not in client.buffer:
        client.buffer += client.socket.recv(65536)
    client.send(b"\x00\x00\x00\x00")
    rest = client.buffer + client.socket.recv(65536)
    assert b"400" not in rest
    assert b"error" not in rest


# What must go on working


def test_requests_follow_each_other_on_one_connection(client: RawClient) -> None:
    """Keep-alive: bodies of all kinds, one after the other."""
    for body in (b"", b"x", b"y" * 200_000, b"", b"z"):
        assert client.request("POST", "/", body).body == body
    client.send(
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"
    )
    assert client.answer().body == b"a" * 5000
    assert client.request("GET", "/").status == 200


def test_pipelined_requests_are_answered_in_order(client: RawClient) -> None:
    """Requests sent at once, far more bytes than one head may have, get their answers in order."""
    bodies = [f"{n} ".encode() * 500 for n in range(40)]
    client.send(b"".join(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(b), b) for b in bodies))
    assert [client.answer().body for _ in bodies] == bodies


def test_half_a_pipelined_request_waits_for_the_first_one(client: RawClient) -> None:
    """The deadline of the next head does not cut a response that takes longer than it."""
    client.send(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP")
    assert client.answer().body == b"begin end"
    client.send(b"/1.1\r\nhost: x\r\n\r\n")
    assert client.answer().status == 200


def test_a_body_announced_with_expect_is_asked_for(client: RawClient) -> None:
    """`Expect: 100-continue` gets its interim answer."""
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert client.answer().status == 100
    client.send(b"ok")
    assert client.answer().body == b"ok"


def test_other_upgrades_are_ordinary_requests(client: RawClient) -> None:
    """Java's client offers h2c with each request: it is answered over HTTP/1.1, with its body."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAEAAEAAAAIAAAAB"}
    assert client.request("POST", "/", b"body", **offer).body == b"body"
    assert client.request("GET", "/", **offer).status == 200
    client.send(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 2000)
    assert {client.answer().status for _ in range(2000)} == {200}


def test_a_websocket_upgrade_that_nobody_takes_reaches_the_application() -> None:
    """Without a WebSocket class the application sees the upgrade request and can refuse it in its own words."""
    app = App()
    with server(app) as port, RawClient(port) as client:
        assert client.request("GET", "/", connection="Upgrade", upgrade="websocket").status == 200
    assert (b"upgrade", b"websocket") in app.headers[0]


def test_websocket_upgrades_are_passed_on() -> None:
    """An upgrade goes to the WebSocket class with its whole head, and no timer of ours touches it afterwards."""
    heads: list[bytes] = []

    class Echo:
        def __init__(self, **_: Any) -> None: ...

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if heads:
                self.transport.write(data)
            heads.append(data)

        def eof_received(self) -> None: ...

        def connection_lost(self, exc: Exception | None) -> None: ...

    with server(ws=Echo) as port, RawClient(port) as client:
        client.send(b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        wait_for(lambda: heads)
        client.socket.settimeout(3 * BLINK)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.send(b"z" * 2 * LIMIT)
        assert client.socket.recv(1) == b"z"
    assert b"upgrade: websocket" in heads[0]


def test_a_reset_connection_leaves_nothing_behind() -> None:
    """When the peer resets, no timer keeps the connection's objects alive; plain uvicorn's does, for its keep-alive."""
    alive: weakref.WeakSet[HardenedHttpProtocol] = weakref.WeakSet()

    class Watched(HardenedHttpProtocol):
        max_header_bytes, header_timeout, body_timeout, write_timeout = LIMIT, 60.0, 60.0, 60.0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            alive.add(self)

    def gone() -> bool:
        gc.collect()
        return not alive

    with serving(App(), http=Watched, timeout_keep_alive=60) as port:
        for sent in (b"", TYPICAL, b"GET", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n"):
            with RawClient(port) as client:
                client.send(sent)
                wait_for(lambda: alive)
                if sent == TYPICAL:
                    client.answer()
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(gone)


class Endless:
    """Sends until the client is gone, and says then what `receive` said."""

    def __init__(self) -> None:
        self.sent = 0
        self.said: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                self.said.append((await receive())["type"])
                tasks.cancel_scope.cancel()

            tasks.start_soon(listen)
            while True:
                await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
                self.sent += 65_536
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_does_not_read_is_hung_up_on(loop: str) -> None:
    """The application hears of it as of any other disconnect; who reads, however slowly, is left alone."""
    endless = Endless()
    with server(endless, loop=loop) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(TYPICAL)
        for _ in range(20):  # longer than two timeouts
            threading.Event().wait(BLINK / 5)
            received = client.recv(1_000_000)
        assert received
        assert endless.said == []
        wait_for(lambda: endless.said)
        assert endless.said == ["http.disconnect"]
