"""What lasts: slots after disconnects, and memory after many requests."""

import asyncio
import random
import statistics
import time
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving
from benchmarks.sse_clients import request, run_clients


async def measure_disconnects(model: Path, folder: Path, count: int) -> None:
    """Print the time from closing a client's connection until the engine has no slot in use."""
    dice = random.Random(0)
    table = Table(title=f"Milliseconds from disconnect to a free slot, {count} disconnects, one slot")
    for heading in ("the client left", "p50", "p99", "max"):
        table.add_column(heading, justify="right")
    with Serving(model, folder, slots=1, context=2048) as server:
        async with aiohttp.ClientSession() as session:
            for stage in ("while the prompt is read", "while tokens come"):
                took = [await _disconnect_once(server.port, session, stage, dice) for _ in range(count // 2)]
                cuts = statistics.quantiles(took, n=100)
                table.add_row(stage, f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", f"{max(took):.1f}")
    Console().print(table)


async def _disconnect_once(port: int, session: aiohttp.ClientSession, stage: str, dice: random.Random) -> float:
    """Leave at a random moment of the stage; milliseconds until a new request's tokens could be sampled."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    words = 300 if stage.startswith("while the prompt") else 5
    text = " ".join(f"w{dice.randrange(10_000)}" for _ in range(words))
    writer.write(request({"input": text, "store": False}))
    await reader.readuntil(b"response.in_progress")
    if words == 5:
        await reader.readuntil(b"output_text.delta")
    await asyncio.sleep(dice.random() * 0.1)
    left = time.perf_counter()
    writer.transport.abort()
    url = f"http://127.0.0.1:{port}/readyz?verbose"
    while True:
        async with session.get(url) as answer:
            engine = (await answer.json())["backends"]["bench"]
        if engine["busy_slots"] == 0:
            return (time.perf_counter() - left) * 1000
        await asyncio.sleep(0.002)


async def measure_memory(model: Path, folder: Path, requests: int) -> None:
    """Print resident memory after a tenth of the requests and after all of them."""
    table = Table(title="Resident memory in MiB, ore-tiny, 8 clients, stored responses")
    for heading in ("process", f"after {requests // 10}", f"after {requests}", "ratio"):
        table.add_column(heading, justify="right")
    with Serving(model, folder, slots=8) as server:
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
