"""A real uvicorn in a thread, and a raw client for it. Not a test by itself."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import msgspec
import uvicorn

LONG = 10.0  # seconds after which a condition that has not come true is a failure


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[int]:
    """Serve an ASGI app on a free port of loopback; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, **({"log_config": None, "lifespan": "off", "ws": "none"} | options))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(LONG)
        listener.close()
        assert not thread.is_alive()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        threading.Event().wait(0.002)


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def error(self) -> Any:
        """The error object, checked to have the keys of section 9 and no others."""
        assert self.headers["content-type"] == "application/json"
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class RawClient:
    """One TCP connection: what the test sends is what the server gets."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LONG)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_until_refused(self, data: bytes, times: int) -> int:
        """Send `data` again and again; returns how many bytes went out before the server hung up."""
        sent = 0
        try:
            for _ in range(times):
                self.socket.sendall(data)
                sent += len(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return sent

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        head = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
        if body:
            head.append(f"content-length: {len(body)}")
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> Answer:
        head, _, self.buffer = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(status_line.split()[1])
        if status < 200 or not has_body:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunked())
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(status, headers, body)

    def closed(self) -> bool:
        """Wait until the server closes; False if it says anything more before."""
        try:
            return not self.buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _chunked(self) -> bytes:
        body = b""
        while True:
            size, _, self.buffer = self._until(b"\r\n").partition(b"\r\n")
            length = int(size, 16)
            while len(self.buffer) < length + 2:
                self._more()
            body, self.buffer = body + self.buffer[:length], self.buffer[length + 2 :]
            if length == 0:
                return body

    def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self._more()
        return self.buffer

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the server hung up after {self.buffer!r}"
        self.buffer += data


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request on a connection of its own."""
    with RawClient(port) as client:
        return client.request(method, path, body, **headers)
