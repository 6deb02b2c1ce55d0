"""What is left after clients that leave, cancel or are too late, and after engines that are killed, per engine.

    python -m benchmarks.cancellation [--engines llama_cpp,candle] [--cancellations 500] [--kills 100]

A real `ore serve` has a model with random weights and one slot, so that a slot that is lost is lost to everybody. In
random turns a client leaves while its prompt is read or while its tokens come, a background response is cancelled, or
it reaches its deadline. The next client waits already then, and the clock runs until its first token. How long that
takes when nobody had been there stands beside it: reading the prompt is part of it. Then the engine's process is
killed in the middle of a stream, again and again: the stream has to end with one terminal event, and the next request
has to be answered. Exits with 1 where a slot was lost or a stream ended otherwise.
"""

# ruff: noqa: ASYNC110 -- polls, as clients do

import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from benchmarks.lasting import ENDLESS
from benchmarks.servers import Serving, children

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engines.engine_rows import ROWS, Wanted

CONFIG: Final = """\
[background]
timeout = 0.8
[models.bench]
path = '{path}'
engine = "{engine}"
slots = 1
load = "start"
"""
PATIENCE: Final = 20.0
"""Seconds without a token after which a slot counts as lost."""
TERMINAL: Final = ("response.completed", "response.failed", "response.incomplete")


class Found(Struct):
    """What happened with an engine. Times are in milliseconds, sizes in bytes."""

    alone: list[float] = field(default_factory=list)
    freed: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in _WAYS})
    lost: int = 0
    resident: list[int] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


class Client(Struct):
    """What clients do with the server."""

    session: aiohttp.ClientSession
    url: str
    dice: random.Random

    @asynccontextmanager
    async def stream(self, **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
        """The names of the events as they come. Leaving closes the connection."""
        body = {"store": False, "stream": True, **fields}
        async with self.session.post(f"{self.url}/v1/responses", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {(await answer.text())[:200]}")
            try:
                yield _events(answer)
            finally:
                answer.close()

    def endless(self, words: int) -> dict[str, Any]:
        """A request that does not end by itself."""
        prompt = " ".join(f"w{self.dice.randrange(40_000)}" for _ in range(words))
        return {"input": prompt, "text": {"format": ENDLESS}, "temperature": 1.0}

    async def begin_background(self) -> str:
        """The id of a background response that does not end by itself."""
        body = {**self.endless(3), "background": True, "store": True}
        async with self.session.post(f"{self.url}/v1/responses", json=body) as answer:
            return str((await answer.json())["id"])

    async def cancel(self, response: str) -> None:
        async with self.session.post(f"{self.url}/v1/responses/{response}/cancel") as answer:
            await answer.read()

    async def while_status(self, response: str, status: str) -> None:
        """Ask until it has another one."""
        while await self._status(response) == status:
            await asyncio.sleep(0.002)

    async def _status(self, response: str) -> str:
        async with self.session.get(f"{self.url}/v1/responses/{response}") as answer:
            return str((await answer.json())["status"])


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in answer.content:
        if line.startswith(b"event: "):
            yield line[7:].decode().strip()


async def _until(events: AsyncIterator[str], name: str) -> None:
    async for event in events:
        if event == name:
            return
    raise RuntimeError(f"the stream ended before {name}")


async def _next_token(client: Client, gone: "asyncio.Event") -> float:
    """When the first token came to the one who waits for the slot."""
    async with client.stream(**client.endless(1)) as events:
        await _until(events, "response.in_progress")
        gone.set()
        await _until(events, "response.output_text.delta")
        return time.perf_counter()


async def free_again(client: Client, way: str) -> float:
    """Milliseconds from the end of one client until the next one's first token."""
    waiter, left = await _WAYS[way](client, asyncio.Event())
    async with asyncio.timeout(PATIENCE):
        return max(0.0, await waiter - left) * 1000


Ended = tuple["asyncio.Task[float]", float]
"""Who waits for the slot, and when it should have become free."""


async def _left_while_reading(client: Client, queued: asyncio.Event) -> Ended:
    return await _left(client, queued, words=300, until="response.in_progress")


async def _left_while_writing(client: Client, queued: asyncio.Event) -> Ended:
    return await _left(client, queued, words=3, until="response.output_text.delta")


async def _left(client: Client, queued: asyncio.Event, *, words: int, until: str) -> Ended:
    async with client.stream(**client.endless(words)) as events:
        await _until(events, until)
        waiter = asyncio.create_task(_next_token(client, queued))
        await queued.wait()
        await asyncio.sleep(client.dice.random() * 0.1)
        return waiter, time.perf_counter()


async def _cancelled(client: Client, queued: asyncio.Event) -> Ended:
    name, waiter = await _in_background(client, queued)
    await asyncio.sleep(client.dice.random() * 0.1)
    left = time.perf_counter()
    await client.cancel(name)
    return waiter, left


async def _too_late(client: Client, queued: asyncio.Event) -> Ended:
    name, waiter = await _in_background(client, queued)
    await client.while_status(name, "in_progress")
    return waiter, time.perf_counter()


async def _in_background(client: Client, queued: asyncio.Event) -> tuple[str, "asyncio.Task[float]"]:
    """A background response that has begun, and who waits for its slot."""
    name = await client.begin_background()
    await client.while_status(name, "queued")
    waiter = asyncio.create_task(_next_token(client, queued))
    await queued.wait()
    return name, waiter


_WAYS: Final = {
    "left while reading": _left_while_reading,
    "left while writing": _left_while_writing,
    "cancelled": _cancelled,
    "too late": _too_late,
}


async def measure_cancellations(server: Serving, count: int, found: Found) -> None:
    async with _client(server) as client:
        for _ in range(max(10, count // 10)):
            begun = time.perf_counter()
            found.alone.append((await _next_token(client, asyncio.Event()) - begun) * 1000)
        for number in range(count):
            way = client.dice.choice(list(_WAYS))
            try:
                found.freed[way].append(await free_again(client, way))
            except TimeoutError:
                found.lost += 1
            if number % (count // 10 or 1) == 0:
                found.resident.append(server.resident_bytes()["engine"])
        found.resident.append(server.resident_bytes()["engine"])


async def measure_kills(server: Serving, count: int, found: Found) -> None:
    async with _client(server) as client:
        for _ in range(count):
            async with client.stream(**client.endless(3)) as events:
                await _until(events, "response.output_text.delta")
                os.kill(_engine(server.pid), signal.SIGKILL)
                killed = time.perf_counter()
                rest = [event async for event in events]
                found.ended.append((time.perf_counter() - killed) * 1000)
            if [event for event in rest if event in TERMINAL] != ["response.failed"] or rest[-1] != "response.failed":
                found.wrong.append(f"a stream ended with {rest[-3:]}")
            await _until_answered(client, found)
            found.back.append((time.perf_counter() - killed) * 1000)


async def _until_answered(client: Client, found: Found) -> None:
    """Ask until the engine is back: a 503 with `Retry-After` is what is told before."""
    body = {"input": "Hello", "max_output_tokens": 4, "store": False}
    async with asyncio.timeout(60):
        while True:
            async with client.session.post(f"{client.url}/v1/responses", json=body) as answer:
                told = await answer.json()
                if answer.status == 200 and told["status"] in ("completed", "incomplete"):
                    return
                if answer.status != 503 or "Retry-After" not in answer.headers:
                    found.wrong.append(f"{answer.status}: {told.get('error') or told}"[:300])
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _client(server: Serving) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        yield Client(session, f"http://127.0.0.1:{server.port}", random.Random(0))


def _engine(pid: int) -> int:
    """The process that has the model."""
    for child in children(pid):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"ore.backends.local." in command and b"grammar_process" not in command:
            return child
    raise RuntimeError("the server has no engine")


@click.command(help=__doc__)
@click.option("--engines", default=",".join(ROWS), show_default=True)
@click.option("--cancellations", default=500, show_default=True)
@click.option("--kills", default=100, show_default=True)
def main(engines: str, cancellations: int, kills: int) -> None:
    found: dict[str, Found] = {}
    for name in engines.split(","):
        if find_spec(ROWS[name].package) is None:
            print(f"{name}: not installed")
            continue
        found[name] = Found()
        with tempfile.TemporaryDirectory() as folder:
            path = ROWS[name].make(Path(folder), Wanted()).options.path
            config = CONFIG.format(path=path, engine=name)
            with Serving(Path(folder), config, program=("-m", "benchmarks.quick_restarts")) as server:
                if cancellations:
                    asyncio.run(measure_cancellations(server, cancellations, found[name]))
                if kills:
                    asyncio.run(measure_kills(server, kills, found[name]))
    show(found)
    sys.exit(any(each.lost or each.wrong for each in found.values()))


def show(found: dict[str, Found]) -> None:
    table = Table(title="Milliseconds until the slot works for the next client; one slot")
    for heading in ("engine", "the client before", "times", "p50", "p99", "max"):
        table.add_column(heading, justify="left" if heading in ("engine", "the client before") else "right")
    after = Table(title="Afterwards")
    for heading in (
        "engine",
        "slots lost",
        "RSS MiB",
        "kills",
        "stream ended ms p50",
        "p99",
        "answered ms p50",
        "wrong",
    ):
        after.add_column(heading, justify="left" if heading == "engine" else "right")
    for name, each in found.items():
        for way, took in {"nobody": each.alone, **each.freed}.items():
            table.add_row(name, way, *_quantiles(took, "max"))
        sizes = " ".join(f"{size >> 20}" for size in each.resident[:: max(1, len(each.resident) // 5)])
        ended, back = _quantiles(each.ended), _quantiles(each.back)
        after.add_row(name, str(each.lost), sizes, ended[0], ended[1], ended[2], back[1], str(len(each.wrong)))
        for line in each.wrong[:5]:
            print(f"{name}: {line}")
    for shown in (table, after):
        Console(width=max(120, Console().width)).print(shown)


def _quantiles(took: list[float], *more: str) -> list[str]:
    if len(took) < 2:
        return [str(len(took)), "-", "-", *("-" for _ in more)]
    cut = statistics.quantiles(took, n=100)
    return [str(len(took)), f"{cut[49]:.0f}", f"{cut[98]:.0f}", *(f"{max(took):.0f}" for _ in more)]


if __name__ == "__main__":
    main()
