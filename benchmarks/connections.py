"""What idle connections cost, and what goes on beside them.

    python -m benchmarks.connections [--sockets 1000] [--followers 1000]

A real `ore serve` in a process of its own, with scripted models; the connections are made by this process. First idle
WebSockets, then, with those still open, followers of one background response (`GET ...?stream=true`) that has begun and
says nothing more. Before and after each, new requests are made over HTTP and over new WebSockets, and each is followed
to its `response.completed`; between two measurements of memory nothing else happens. The baseline is the same server
without any of these connections.
"""

import asyncio
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving, one_model
from benchmarks.sse_clients import request

SCRIPTED = Path(__file__).with_name("scripted_serve.py")
SPARE_FILES = 200
AT_A_TIME = 50
REQUESTS = 100
"""New requests of each kind, ten at a time; the milliseconds are those of one, until its response is complete."""

HEAD = b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-benchmark\r\n"
HANDSHAKE = HEAD % b"/v1/responses" + (
    b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@click.command()
@click.option("--sockets", default=1000, show_default=True, help="Idle WebSockets.")
@click.option("--followers", default=1000, show_default=True, help="Idle followers of a background response.")
def main(sockets: int, followers: int) -> None:
    allowed = _raise_file_limit()
    if sockets + followers > allowed - SPARE_FILES:
        raise click.UsageError(f"This machine allows {allowed} open files: ask for at most {allowed - SPARE_FILES}.")
    with tempfile.TemporaryDirectory() as folder:
        anything = Path(folder) / "scripted.gguf"
        anything.touch()
        with Serving(Path(folder), one_model(anything), program=(str(SCRIPTED),)) as server:
            asyncio.run(measure(server, sockets, followers))


async def measure(server: Serving, sockets: int, followers: int) -> None:
    table = Table("connections", "before, MiB", "after, MiB", "each, KiB", "new, HTTP", "new, WebSocket")
    await beside(server.port)
    table.add_row("none", "", f"{_front(server):.1f}", "", *await beside(server.port))
    held = await begun(server.port)
    streams: list[Streams] = []
    for name, count, open_one in (
        ("WebSockets", sockets, lambda: handshake(server.port)),
        ("followers", followers, lambda: follow(server.port, held)),
    ):
        if count:
            before = _front(server)
            streams += await opened(open_one, count)
            after = _front(server)
            each = (after - before) / count * 1024
            figures = (f"{before:.1f}", f"{after:.1f}", f"{each:.1f}")
            table.add_row(f"{count:,} {name}", *figures, *await beside(server.port))
    open_still = sum([not reader.at_eof() for reader, _ in streams])
    for _, writer in streams:
        writer.close()
    await cancelled(server.port, held)
    Console().print(table)
    print(f"still open at the end: {open_still:,} of {len(streams):,}")


def _front(server: Serving) -> float:
    """MiB."""
    return server.resident_bytes()["front"] / 2**20


async def opened(open_one: Callable[[], Awaitable[Streams]], count: int) -> list[Streams]:
    """So many connections, a few at a time."""
    streams: list[Streams] = []
    while len(streams) < count:
        streams += await asyncio.gather(*(open_one() for _ in range(min(AT_A_TIME, count - len(streams)))))
    return streams


async def handshake(port: int) -> Streams:
    """A WebSocket behind its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(HANDSHAKE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return reader, writer


async def begun(port: int) -> str:
    """The id of a background response that has said something, and says nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request({"model": "held", "input": "Hi", "background": True}))
    await reader.readuntil(b"data: ")
    response_id = str(json.loads(await reader.readline())["response"]["id"])
    await reader.readuntil(b"event: response.output_text.delta")
    writer.close()
    return response_id


async def cancelled(port: int, response_id: str) -> None:
    """So that the server has nothing to wait for when it is stopped."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/v1/responses/{response_id}/cancel".encode()
    writer.write(b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % path)
    await reader.read(-1)
    writer.close()


async def follow(port: int, response_id: str) -> Streams:
    """A follower that has taken all events there are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(HEAD % f"/v1/responses/{response_id}?stream=true".encode() + b"\r\n")
    await reader.readuntil(b"event: response.output_text.delta")
    await reader.readuntil(b"\n\n")
    return reader, writer


async def beside(port: int) -> tuple[str, str]:
    """How many new requests are answered over HTTP and over WebSocket, and how fast."""
    return await _answered(lambda: over_http(port)), await _answered(lambda: over_websocket(port))


async def _answered(ask: Callable[[], Awaitable[bool]]) -> str:
    async def one() -> float | None:
        begun = time.perf_counter()
        good = await _good(ask)
        return (time.perf_counter() - begun) * 1000 if good else None

    took: list[float | None] = []
    for _ in range(REQUESTS // 10):
        took += await asyncio.gather(*(one() for _ in range(10)))
    good = [milliseconds for milliseconds in took if milliseconds is not None]
    return f"{len(good)}/{len(took)}, {statistics.median(good):.1f} ms" if good else f"0/{len(took)}"


async def _good(ask: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await asyncio.wait_for(ask(), 30)
    except (OSError, EOFError, TimeoutError, AssertionError):
        return False


async def over_http(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request({"model": "quick", "input": "Hi"}))
    answer = await reader.read(-1)
    writer.close()
    return answer.startswith(b"HTTP/1.1 200") and b"event: response.completed" in answer


async def over_websocket(port: int) -> bool:
    reader, writer = await handshake(port)
    body = json.dumps({"type": "response.create", "model": "quick", "input": "Hi"}).encode()
    assert len(body) < 126
    writer.write(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)  # masked, as it has to be, with zeros
    kind = ""
    while kind not in ("response.completed", "error"):
        kind = json.loads(await _frame(reader))["type"]
    writer.close()
    return kind == "response.completed"


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The payload of one frame of the server's."""
    _, length = await reader.readexactly(2)
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
    return await reader.readexactly(length)


def _raise_file_limit() -> int:
    """As far as this user may; the server inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    main()
