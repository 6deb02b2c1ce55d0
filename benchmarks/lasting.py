"""What lasts: slots after disconnects, and memory after many requests."""

import asyncio
import random
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving, one_model
from benchmarks.sse_clients import request, run_clients

ENDLESS = {
    "type": "json_schema",
    "name": "endless",
    "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 4000},
}
"""What nobody can answer before the context is full: whoever leaves, leaves in the middle."""


async def measure_disconnects(name: str, model: Path, folder: Path, count: int) -> None:
    """Print the time from closing a client's connection until the engine's only slot works for the next client.

    The next one waits in the queue by then, and what is timed ends with its first token: reading its short prompt is
    part of it. How long that alone takes stands in the last row.
    """
    dice = random.Random(0)
    table = Table(
        title=f"Milliseconds from disconnect to the next client's first token, {name}, {count} times, one slot"
    )
    for heading in ("the client left", "p50", "p99", "max"):
        table.add_column(heading, justify="right")
    with Serving(folder, one_model(model, slots=1, context=4096)) as server:
        began = time.perf_counter()
        await _leave(await _ask(server.port, _words(400, dice), b"output_text.delta"))
        reading = time.perf_counter() - began
        for stage, words, until in (
            ("while its prompt was read", 400, b"response.in_progress"),
            ("while its tokens came", 3, b"output_text.delta"),
            ("nobody had been there", 0, b""),
        ):
            took = [await _next_first_token(server.port, words, until, dice, reading) for _ in range(count // 2)]
            cuts = statistics.quantiles(took, n=100)
            table.add_row(stage, f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", f"{max(took):.1f}")
    Console().print(table)


async def _next_first_token(port: int, words: int, until: bytes, dice: random.Random, reading: float) -> float:
    """Somebody with a prompt of `words` leaves at a random moment after `until`; how long the next one waits, in ms."""
    leaver = await _ask(port, _words(words, dice), until) if words else None
    waiter = None
    if leaver is not None:
        waiter = await _ask(port, "Hello", b"response.in_progress", text=None)
        await asyncio.sleep(dice.random() * min(1.0, reading))
    left = time.perf_counter()
    if leaver is not None:
        await _leave(leaver)
    waiter = waiter or await _ask(port, "Hello", b"response.in_progress", text=None)
    await waiter[0].readuntil(b"output_text.delta")
    took = (time.perf_counter() - left) * 1000
    await _leave(waiter)
    return took


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _ask(port: int, prompt: str, until: bytes, **more: object) -> Connection:
    """A stream that has come as far as `until`, and that does not end by itself unless `more` says so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request({"input": prompt, "store": False, "text": {"format": ENDLESS}, **more}))
    await reader.readuntil(until)
    return reader, writer


async def _leave(connection: Connection) -> None:
    connection[1].transport.abort()


def _words(count: int, dice: random.Random) -> str:
    return " ".join(f"w{dice.randrange(40_000)}" for _ in range(count))


async def measure_memory(model: Path, folder: Path, requests: int) -> None:
    """Print resident memory after a tenth of the requests and after all of them."""
    table = Table(title="Resident memory in MiB, ore-tiny, 8 clients, stored responses")
    for heading in ("process", f"after {requests // 10}", f"after {requests}", "ratio"):
        table.add_column(heading, justify="right")
    with Serving(folder, one_model(model, slots=8)) as server:
        bodies: list[dict[str, object]] = [{"input": f"Hello {i}", "max_output_tokens": 32} for i in range(8)]
        await run_clients(server.port, bodies, requests // 10 // 8 + 1)
        early = server.resident_bytes()
        await run_clients(server.port, bodies, requests * 9 // 10 // 8 + 1)
        late = server.resident_bytes()
    for name in early:
        table.add_row(
            name, f"{early[name] / 2**20:.1f}", f"{late[name] / 2**20:.1f}", f"{late[name] / early[name]:.3f}"
        )
    Console().print(table)
