"""What every request goes through, seen from outside: a real server, raw connections."""

import gzip
import hashlib
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from live_server import RawClient, ask, serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from ore.server.errors import exception_handlers
from ore.server.middleware import OriginGuard, middleware_stack
from ore.telemetry import current_request_id

MAX = 64 * 1024 * 1024


async def digest(request: Request) -> Response:
    """Reads a body piece by piece and says what it saw."""
    seen, largest, total = hashlib.sha256(), 0, 0
    async for piece in request.stream():
        seen.update(piece)
        largest, total = max(largest, len(piece)), total + len(piece)
    encoding = request.headers.get("content-encoding")
    return JSONResponse({"sha256": seen.hexdigest(), "largest": largest, "total": total, "encoding": encoding})


async def ids(request: Request) -> Response:
    return JSONResponse({"state": request.state.request_id, "context": current_request_id.get()})


async def stream(_: Request) -> Response:
    async def events() -> Any:
        yield "data: 1\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def cut(_: Request) -> Response:
    async def events() -> Any:
        yield "data: 1\n\n"
        raise RuntimeError("a bug in the middle of a stream")

    return StreamingResponse(events(), media_type="text/event-stream")


async def plain(_: Request) -> Response:
    return PlainTextResponse("ok")


async def broken(_: Request) -> Response:
    raise RuntimeError("a bug")


@contextmanager
def server(is_draining: Callable[[], bool] = lambda: False, **options: Any) -> Iterator[int]:
    routes = [
        Route("/digest", digest, methods=["POST"]),
        Route("/ids", ids),
        Route("/stream", stream),
        Route("/cut", cut),
        Route("/plain", plain, methods=["GET", "POST", "DELETE"]),
        Route("/broken", broken),
        Route("/health", plain),
    ]
    stack = middleware_stack(is_draining=is_draining, **({"max_body_bytes": MAX} | options))
    app = Starlette(routes=routes, middleware=stack, exception_handlers=exception_handlers())
    with serving(app) as port:
        yield port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with server() as port:
        yield port


@pytest.fixture(scope="module")
def small() -> Iterator[int]:
    with server(max_body_bytes=1000) as port:
        yield port


def resident() -> int:
    """Bytes of memory that this process, and so the server in it, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# Request ids


def test_every_response_has_an_id_of_its_own(port: int) -> None:
    """Answers and errors of every layer carry `x-request-id`, never twice the same, on one connection too."""
    with RawClient(port) as client:
        answers = [client.request("GET", path) for path in ("/plain", "/nothing", "/broken", "/stream")]
        answers.append(client.request("POST", "/plain", origin="http://evil.example"))
        answers.append(client.request("POST", "/plain", b"x", content_encoding="br"))
    found = [answer.headers["x-request-id"] for answer in answers]
    assert [answer.status for answer in answers] == [200, 404, 500, 200, 403, 415]
    assert all(request_id.startswith("req_") for request_id in found)
    assert len(set(found)) == len(found)


def test_the_id_is_where_endpoints_and_logs_find_it(port: int) -> None:
    """The same id is in the scope's state, in the context variable and in the header."""
    answer = ask(port, "GET", "/ids")
    assert answer.json() == {"state": answer.headers["x-request-id"], "context": answer.headers["x-request-id"]}


def test_streams_have_no_processing_time(port: int) -> None:
    """`openai-processing-ms` is on whole answers and errors, not on streams, whose time is not known yet."""
    assert ask(port, "GET", "/plain").headers["openai-processing-ms"].isdigit()
    assert ask(port, "GET", "/nothing").headers["openai-processing-ms"].isdigit()
    assert "openai-processing-ms" not in ask(port, "GET", "/stream").headers


def test_a_bug_in_mid_stream_cuts_the_connection(port: int) -> None:
    """A response that cannot be finished has no proper end, so that no client takes it for whole."""
    with RawClient(port) as client, pytest.raises(AssertionError, match="hung up"):
        client.request("GET", "/cut")


# Body limits


def test_a_body_as_large_as_allowed_passes(small: int) -> None:
    """The limit itself is not too much."""
    assert ask(small, "POST", "/digest", b"x" * 1000).json()["total"] == 1000


def test_a_length_too_large_is_refused_unread(small: int) -> None:
    """A `Content-Length` above the limit is a 413 before any byte of the body, and the connection closes."""
    with RawClient(small) as client:
        client.send(b"POST /digest HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n")
        answer = client.answer()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        assert "max_body_bytes" in answer.error()["message"]
        client.send(b"x" * 1001)
        assert client.closed()


def test_a_chunked_body_is_counted_while_it_is_read(small: int) -> None:
    """Without a length the 413 comes when the limit is passed, and the sender reads it although it went on sending."""
    chunk = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
    with RawClient(small) as client:
        client.send(b"POST /digest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(chunk * 20 + b"0\r\n\r\n")
        assert client.answer().status == 413
        assert client.closed()


def test_an_endless_body_is_cut_off_without_costing_memory(small: int) -> None:
    """A sender that never stops is thrown out after the linger, and its bytes were not kept."""
    chunk = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
    with RawClient(small) as client:
        client.send(b"POST /digest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        before = resident()
        client.send_until_refused(chunk, 10**6)
        assert resident() - before < 32 * 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 512 * 1024, 3_000_000])
@pytest.mark.parametrize(
    ("name", "encode"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("Deflate", zlib.compress)]
)
def test_compressed_bodies_arrive_whole(port: int, size: int, name: str, encode: Callable[[bytes], bytes]) -> None:
    """Gzip and deflate are undone, in pieces of at most 256 KiB, and the endpoint sees no encoding."""
    body = random.Random(size).randbytes(size // 2) * 2 + b"!" * (size % 2)
    answer = ask(port, "POST", "/digest", encode(body), content_encoding=name)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert answer.json()["largest"] <= 256 * 1024
    assert answer.json()["encoding"] is None


@pytest.mark.parametrize("size", [255 * 1024, 256 * 1024, 257 * 1024, 1024 * 1024])
def test_repetitive_bodies_end_where_they_should(port: int, size: int) -> None:
    """Output that the decoder still holds when its input is used up is not lost, and not taken for a broken body."""
    answer = ask(port, "POST", "/digest", gzip.compress(b"a" * size), content_encoding="gzip")
    assert answer.json()["total"] == size


@pytest.mark.parametrize("name", ["br", "zstd", "compress", "gzip, gzip", "gzip, br"])
def test_other_encodings_name_those_that_work(port: int, name: str) -> None:
    """An encoding that is not undone is a 415 that says which ones are."""
    answer = ask(port, "POST", "/digest", b"whatever", content_encoding=name)
    assert answer.status == 415
    assert "gzip or deflate" in answer.error()["message"]


@pytest.mark.parametrize("size", [20 * 1024 * 1024, 300 * 1024 * 1024])
def test_bombs_are_refused_without_costing_memory(port: int, size: int) -> None:
    """A body that grows more than 200-fold, or beyond the limit, is a 413 (fault F24)."""
    bomb = gzip.compress(bytes(size), 9)
    before = resident()
    answer = ask(port, "POST", "/digest", bomb, content_encoding="gzip")
    assert answer.status == 413
    assert resident() - before < 32 * 1024 * 1024


def test_decoded_size_counts_against_the_limit(small: int) -> None:
    """A body that is small as sent but too large as decoded is a 413 although its ratio is harmless."""
    answer = ask(small, "POST", "/digest", gzip.compress(b"a" * 1001), content_encoding="gzip")
    assert answer.status == 413


@pytest.mark.parametrize(
    "body",
    [b"not gzip", gzip.compress(b"cut short")[:-3], gzip.compress(b"too long") + b"!", gzip.compress(b"x") * 2],
    ids=["garbage", "short", "long", "twice"],
)
def test_broken_encodings_are_the_callers_mistake(port: int, body: bytes) -> None:
    """A body that does not decode is a 400 and never a 500."""
    answer = ask(port, "POST", "/digest", body, content_encoding="gzip")
    assert answer.status == 400
    assert "Content-Encoding" in answer.error()["message"]


# CORS


STAINLESS = "authorization,content-type,x-stainless-lang,x-stainless-runtime-version,openai-beta,idempotency-key"


@pytest.mark.parametrize("origins", [("http://app.example",), ("*",)])
def test_preflights_name_each_header_they_were_asked_for(origins: tuple[str, ...]) -> None:
    """Rule 11: `Authorization` and `x-stainless-*` are named one by one, because `*` would not cover the former."""
    with server(cors_origins=origins) as port:
        answer = ask(
            port,
            "OPTIONS",
            "/digest",
            origin="http://app.example",
            access_control_request_method="POST",
            access_control_request_headers=STAINLESS,
        )
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] in {"http://app.example", "*"}
    assert answer.headers["access-control-allow-headers"] == STAINLESS
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


def test_pages_may_read_answers_and_errors_of_every_layer() -> None:
    """With an allowed origin each answer, even a 500, a 413 or a 503, may be read, and its useful headers too."""
    down = False
    with server(lambda: down, cors_origins=("http://app.example",), max_body_bytes=1000) as port:
        answers = [ask(port, "GET", path, origin="http://app.example") for path in ("/plain", "/nothing", "/broken")]
        answers.append(ask(port, "POST", "/digest", b"x" * 2000, origin="http://app.example"))
        down = True
        answers.append(ask(port, "GET", "/plain", origin="http://app.example"))
    assert [answer.status for answer in answers] == [200, 404, 500, 413, 503]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "http://app.example"
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )


def test_refused_preflights_name_the_setting() -> None:
    """An origin or a method that is not allowed is a 403 in our shape, without any CORS permission."""
    with server(cors_origins=("http://app.example",)) as port:
        stranger = ask(port, "OPTIONS", "/plain", origin="http://evil.example", access_control_request_method="POST")
        method = ask(port, "OPTIONS", "/plain", origin="http://app.example", access_control_request_method="PATCH")
    assert (stranger.status, method.status) == (403, 403)
    assert "cors_origins" in stranger.error()["message"]
    assert "access-control-allow-origin" not in stranger.headers


def test_without_origins_there_is_no_cors(port: int) -> None:
    """CORS is off by default: no header of its kind, and a preflight is only an unknown method."""
    assert not [
        name for name in ask(port, "GET", "/plain", origin="http://a.example").headers if "access-control" in name
    ]
    assert ask(port, "OPTIONS", "/plain", origin="http://a.b", access_control_request_method="POST").status == 405


# The guard against pages of the internet


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://localhost:8000", "localhost:8000", True),
        ("http://LOCALHOST:8000", "localhost:8000", True),
        ("http://ore.localhost", "ore.localhost", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://192.168.1.5:8000", "192.168.1.5:8000", True),
        ("http://app.example", "127.0.0.1:8000", True),
        ("http://localhost:3000", "localhost:8000", False),
        ("http://evil.example", "127.0.0.1:8000", False),
        ("http://rebound.example:8000", "rebound.example:8000", False),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example", False),
        ("http://app.example.evil.example", "127.0.0.1:8000", False),
        ("null", "127.0.0.1:8000", False),
        ("null", "null", False),
        ("", "", False),
        ("http://[broken", "[broken", False),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_may_change_anything(kind: str, origin: str, host: str, passes: bool) -> None:
    """A page may post, or open a WebSocket, when it is configured or ours; a rebound name is never ours."""
    assert anyio.run(_guarded, kind, "POST", [(b"origin", origin.encode()), (b"host", host.encode())]) is passes


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"])
def test_programs_and_readers_pass(method: str) -> None:
    """Requests without `Origin` pass with every method, those with one if they only read."""
    stranger = [(b"origin", b"http://evil.example")]
    assert anyio.run(_guarded, "http", method, [])
    assert anyio.run(_guarded, "http", method, stranger) is (method in {"GET", "HEAD", "OPTIONS"})


async def _guarded(kind: str, method: str, headers: list[tuple[bytes, bytes]]) -> bool:
    reached = False
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal reached
        reached = True

    async def receive() -> Message:
        raise AssertionError("the guard reads nothing")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "path": "/", "headers": headers}
    await OriginGuard(app, origins=["http://app.example"])(scope, receive, send)
    assert reached or sent[0]["status"] == 403
    assert reached or sent[0]["type"].startswith("websocket.") == (kind == "websocket")
    return reached


def test_a_refused_page_learns_the_setting(port: int) -> None:
    """The 403 repeats the origin and names `cors_origins`."""
    answer = ask(port, "POST", "/plain", origin="http://evil.example")
    assert answer.status == 403
    assert "'http://evil.example'" in answer.error()["message"]
    assert "cors_origins" in answer.error()["message"]


def test_a_server_with_keys_has_no_guard() -> None:
    """Where a key is needed a page cannot know, its origin does not matter."""
    with server(guard_origins=False) as port:
        assert ask(port, "POST", "/plain", origin="http://a.example").status == 200


# Going down


def test_a_draining_server_sends_new_requests_elsewhere() -> None:
    """While draining, requests get 503 with `Retry-After` and a closed connection; health checks are answered (F26)."""
    down = False
    with server(lambda: down) as port, RawClient(port) as client:
        assert client.request("GET", "/plain").status == 200
        down = True
        assert client.request("GET", "/health").status == 200
        answer = client.request("POST", "/digest", b"x" * 100_000)
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.error()["type"] == "service_unavailable_error"
        assert client.closed()
