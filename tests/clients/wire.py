"""A plain HTTP client that shows each chunk as the server wrote it, and two readers of server-sent events.

`Exchange` speaks HTTP/1.1 over a socket of its own, so that a test may hang up wherever it wants. It refuses to repair
anything: what is not chunked, LF-framed and complete raises.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from msgspec import Struct

LONG = 30.0
"""Seconds after which something that has not happened will not happen any more."""


class Answer(Struct):
    """A whole HTTP response. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error object, which has the four keys of section 9 and no others."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return dict(error)


class Exchange:
    """One request and its response over one connection. `body` is sent as JSON unless it is bytes already."""

    def __init__(
        self,
        url: str,
        body: Any = None,
        *,
        method: str = "POST",
        path: str = "/v1/responses",
        headers: Iterable[str] = (),
        timeout: float = LONG,
    ) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=timeout)
        self._file = self.socket.makefile("rb")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(data)}", *headers]
        if data:
            lines.append("Content-Type: application/json")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + data)

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers, once they are there. Raises `ConnectionError` when the server hung up instead."""
        line = self._line()
        self.status = int(line.split(b" ", 2)[1])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        return self.status, self.headers

    def chunks(self) -> Iterator[bytes]:
        """Each chunk whole. Raises `ConnectionError` when the response ends before its last chunk."""
        assert self.headers.get("transfer-encoding") == "chunked"
        while size := int(self._line(), 16):
            yield self._exactly(size)
            assert self._line() == b""
        assert self._line() == b""

    def answer(self) -> Answer:
        """Everything."""
        status, headers = self.head()
        return Answer(status, headers, self.rest())

    def rest(self) -> bytes:
        """The body, after `head`."""
        if "content-length" in self.headers:
            return self._exactly(int(self.headers["content-length"]))
        return b"".join(self.chunks())

    def at_end(self) -> bool:
        """Whether the server has closed the connection and sent nothing more before that."""
        return self._file.read(1) == b""

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the response ended early")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionResetError("the response ended early")
        return data


def call(url: str, method: str, path: str, body: Any = None, *, timeout: float = LONG) -> Answer:
    """One request on a connection of its own, to its end."""
    with Exchange(url, body, method=method, path=path, headers=["Connection: close"], timeout=timeout) as exchange:
        return exchange.answer()


def create(url: str, **body: Any) -> Answer:
    """`POST /v1/responses` without streaming."""
    return call(url, "POST", "/v1/responses", body)


def get(url: str, path: str) -> Answer:
    return call(url, "GET", path)


class Sent(Struct):
    """An event as it was sent: the SSE field beside the body's bytes. `[DONE]` is no event."""

    event: str
    data: str

    @property
    def type(self) -> str:
        return str(self.json["type"])

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.data))


def suite_events(chunks: Iterable[bytes]) -> Iterator[Sent]:
    """Events as the compliance suite's reader finds them, with its two quirks (section 8.1).

    It knows no line end but LF, and a field whose event is not closed by an empty line within the same chunk is
    forgotten. `[DONE]` comes as an event of that name.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        event = data = b""
        for line in lines:
            if line.startswith(b"event:"):
                event = line[6:].strip()
            elif line.startswith(b"data:"):
                data = line[5:].strip()
            elif line == b"" and data:
                yield Sent(event.decode() or ("[DONE]" if data == b"[DONE]" else ""), data.decode())
                event = data = b""


def stream(url: str, **body: Any) -> list[Sent]:
    """All events of a streamed create, read by `suite_events`; ends with `[DONE]`, which is left out."""
    with Exchange(url, {**body, "stream": True}) as exchange:
        status, headers = exchange.head()
        assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        return closed(list(suite_events(exchange.chunks())))


def closed(events: list[Sent]) -> list[Sent]:
    """The events of a stream that ended with exactly one terminal event, and then `[DONE]`."""
    assert [event.event for event in events[-1:]] == ["[DONE]"], "the stream was cut off"
    terminal = [event.type for event in events[:-1] if event.type in TERMINAL]
    assert terminal == [events[-2].type], "not exactly one terminal event, at the end"
    return events[:-1]


TERMINAL = ("response.completed", "response.incomplete", "response.failed")


def final(events: list[Sent]) -> dict[str, Any]:
    """The response that the terminal event carries."""
    return dict(events[-1].json["response"])


def wait_until(condition: Callable[[], bool], seconds: float = LONG) -> None:
    """Return as soon as the condition holds; it is asked 200 times a second."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pause.wait(0.005)
