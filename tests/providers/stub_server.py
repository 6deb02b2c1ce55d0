"""A provider's server on loopback that plays transcripts byte by byte, and notes all that it is asked. Not a test.

It knows no dialect: each dialect's server gives it `answer`, which checks a request as the provider's documentation
says and gives back what to play. Raw sockets, because what providers do wrong happens below any HTTP library.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from msgspec import Struct

Step = bytes | float | Literal["rst", "fin", "hang"]
"""Bytes to send as one chunk, seconds to wait, or how to leave: reset, close without the last chunk, or say nothing."""


class Asked(Struct):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any = None


class Play(Struct):
    """What to answer. Without a `rst`, `fin` or `hang` the answer ends as HTTP has it."""

    steps: Sequence[Step] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = {}


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Play:
    return Play([json.dumps(value).encode()], status, "application/json", headers or {})


def events(*datas: Any, named: bool = False, done: bool = False) -> list[bytes]:
    """Server-sent events, each a chunk; `named` adds `event:` lines by their `type`."""
    frames = []
    for data in datas:
        name = f"event: {data['type']}\n" if named else ""
        frames.append(f"{name}data: {json.dumps(data)}\n\n".encode())
    return [*frames, b"data: [DONE]\n\n"] if done else frames


Answer = Callable[[Asked], Play | Awaitable[Play]]


class StubServer:
    """`url` is its address without a path; `asked` are all requests, and `open` those that are being answered."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.open = 0
        self.connections = 0
        self.url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while asked := await _read(reader):
                self.asked.append(asked)
                self.open += 1
                try:
                    if not await self._play(asked, reader, writer):
                        break
                finally:
                    self.open -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _play(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Play the answer; False when the connection is over."""
        answer = self.answer(asked)
        play = answer if isinstance(answer, Play) else await answer
        head = {"Content-Type": play.content_type, "Transfer-Encoding": "chunked", **play.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"HTTP/1.1 {play.status} X\r\n{lines}\r\n".encode())
        for step in play.steps:
            if step == "rst":
                await writer.drain()
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            if step == "fin":
                return False
            if step == "hang":
                await reader.read(1)  # until the client leaves
                return False
            if isinstance(step, bytes):
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
            elif isinstance(step, float):
                await asyncio.sleep(step)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, json.loads(raw) if raw else None)


@asynccontextmanager
async def stub_server(answer: Answer) -> AsyncIterator[StubServer]:
    """A server on a free port of loopback."""
    stub = StubServer(answer)
    server = await asyncio.start_server(stub._serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
