"""Local first, spilling over: who answers while the load on the local model rises and falls.

    python -m benchmarks.hybrid [--seconds 10]

`ore serve` has the bundled model with two slots, and a provider on this machine (`benchmarks.loopback_upstream`: 20 ms
to the first word, 270 ms in all). The alias `hybrid` asks the model first, and the provider when one request waits
there. Clients come in three waves: few, many, few; each asks again as soon as it is answered. The same waves go to the
model alone, for comparison. Who answered is told by the metadata of each response.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.servers import Answering, Serving

WAVES: Final = (("before", 2), ("flood", 24), ("after", 2))
"""Clients at the same time."""

CONFIG: Final = """\
[llama_cpp]
slots = 2
context = 1024
[models.ore-tiny]
path = "ore-tiny"
[providers.loopback]
kind = "chat_completions"
base_url = "http://127.0.0.1:{port}/v1"
[models.hybrid]
targets = ["ore-tiny", "loopback/paced"]
spill_waiting = 1
"""


class Answer(Struct, frozen=True):
    """One request: who answered, seconds to the first word, and in all."""

    by: str
    first: float
    whole: float
    status: str


class Wave(Struct, frozen=True):
    """One wave of clients of one model."""

    model: str
    name: str
    clients: int
    answers: list[Answer]

    def row(self) -> Sequence[str]:
        """What the table shows of it."""
        local = [each for each in self.answers if each.by == "ore-tiny"]
        first = _quantiles([each.first for each in self.answers])
        whole = _quantiles([each.whole for each in self.answers])
        failed = sum(each.status != "completed" for each in self.answers)
        share = len(local) / max(1, len(self.answers))
        return (
            *(self.model, self.name, str(self.clients), str(len(self.answers))),
            *(f"{share:.0%}", f"{1 - share:.0%}", str(failed)),
            *(f"{seconds * 1000:.0f}" for seconds in (*first, *whole)),
        )


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    if len(seconds) < 2:
        return (float("nan"), float("nan"))
    cut = statistics.quantiles(seconds, n=100)
    return (cut[49], cut[98])


async def ask(session: aiohttp.ClientSession, url: str, model: str) -> Answer:
    body = {
        "model": model,
        "input": "Tell me about the sea, and about the mountains.",
        "stream": True,
        "store": False,
        "metadata": {"ore.route": ""},
    }
    begun, first, final = time.perf_counter(), 0.0, None
    async with session.post(f"{url}/v1/responses", json=body) as response:
        async for line in response.content:
            if not first and line.startswith(b"event: response.output_text.delta"):
                first = time.perf_counter() - begun
            if line.startswith(b'data: {"type":"response.') and b'"status":"' in line:
                final = line
    told: Any = json.loads((final or b"data: {}")[6:]).get("response", {})
    by = told.get("metadata", {}).get("ore.route", "").rpartition("; ")[2].partition(":")[0]
    return Answer(by or model, first, time.perf_counter() - begun, told.get("status", "none"))


async def waves(url: str, model: str, seconds: float) -> list[Wave]:
    found = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=2**20) as session:
        for name, clients in WAVES:
            until, answers = time.monotonic() + seconds, list[Answer]()

            async def client(until: float = until, answers: list[Answer] = answers) -> None:
                while time.monotonic() < until:
                    answers.append(await ask(session, url, model))

            await asyncio.gather(*(client() for _ in range(clients)))
            found.append(Wave(model, name, clients, answers))
    return found


@click.command(help=__doc__)
@click.option("--seconds", default=10.0, show_default=True, help="How long each wave lasts.")
def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, Answering("benchmarks.loopback_upstream") as upstream:
        config = CONFIG.format(port=int(upstream.read()))
        with Serving(Path(folder), config) as server:
            url = f"http://127.0.0.1:{server.port}"
            found = [wave for model in ("ore-tiny", "hybrid") for wave in asyncio.run(waves(url, model, seconds))]
    shown = Table(title="Who answers as the load rises and falls; milliseconds")
    for heading in ("model", "wave", "clients", "answers", "local", "spilled", "failed", *_LATENCIES):
        shown.add_column(heading, justify="left" if heading in ("model", "wave") else "right")
    for wave in found:
        shown.add_row(*wave.row())
    Console(width=max(110, Console().width)).print(shown)


_LATENCIES: Final = ("first p50", "first p99", "whole p50", "whole p99")

if __name__ == "__main__":
    main()
