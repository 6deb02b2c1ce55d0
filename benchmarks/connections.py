"""What idle connections cost: `python -m benchmarks.connections [--sockets 1000]`.

A real `ore serve` of the bundled model; the connections are made by this process. Between the two measurements nothing
happens but that they are opened, and that a request over HTTP is answered beside them.
"""

import asyncio
import resource
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving

SPARE_FILES = 200
AT_A_TIME = 50
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"authorization: Bearer sk-benchmark\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@click.command()
@click.option("--sockets", default=1000, show_default=True, help="Idle WebSockets.")
def main(sockets: int) -> None:
    allowed = _raise_file_limit()
    if sockets > allowed - SPARE_FILES:
        raise click.UsageError(f"This machine allows {allowed} open files: ask for at most {allowed - SPARE_FILES}.")
    with tempfile.TemporaryDirectory() as folder, Serving(Path("ore-tiny"), Path(folder)) as server:
        asyncio.run(measure(server, sockets))


async def measure(server: Serving, sockets: int) -> None:
    for _ in range(3):
        await ask(server.port)
    table = Table("connections", "before, MiB", "after, MiB", "each, KiB", "a request, ms")
    before, quick = server.resident_bytes()["front"], await ask(server.port)
    table.add_row("none", f"{before / 2**20:.1f}", "", "", f"{quick:.1f}")
    streams = await opened(server.port, sockets)
    after, beside = server.resident_bytes()["front"], await ask(server.port)
    each = (after - before) / len(streams) / 1024
    table.add_row(
        f"{sockets} WebSockets", f"{before / 2**20:.1f}", f"{after / 2**20:.1f}", f"{each:.1f}", f"{beside:.1f}"
    )
    for _, writer in streams:
        writer.close()
    Console().print(table)


async def opened(port: int, sockets: int) -> list[Streams]:
    """So many WebSockets, behind their handshakes."""
    streams: list[Streams] = []
    while len(streams) < sockets:
        more = min(AT_A_TIME, sockets - len(streams))
        streams += await asyncio.gather(*(handshake(port) for _ in range(more)))
    return streams


async def handshake(port: int) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(HANDSHAKE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return reader, writer


async def ask(port: int) -> float:
    """Milliseconds of a request that no model answers, on a connection of its own."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    writer.close()
    return (time.perf_counter() - begun) * 1000


def _raise_file_limit() -> int:
    """As far as this user may; the server inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    main()
