"""A classical model: 1,000 clients with a row each, against one client with 1,000 rows.

    python -m benchmarks.classical [--rows 1000] [--rounds 5]

Needs the extra `sklearn`. Processor seconds of the server, its children too, as the kernel counts them, for:

    floor    so many concurrent requests of one row to a model that says a fixed answer: what HTTP and a response cost
    batch    one request with all rows
    single   so many concurrent requests of one row

The aim: single is at most floor and three times batch. It is met by predicting what has arrived together; `asked` is
how often the model was asked for all the single rows. All requests are waiting ones with `store: false`.
"""

import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving, cpu_seconds

PATIENT = "[server]\nheader_timeout = 120\n"
"""Clients of a busy machine open all connections first, and send what they ask much later."""

FLOOR = ("benchmarks/scripted_serve.py",)


async def post(port: int, bodies: Sequence[Any]) -> list[str]:
    """All of them at once; what is answered."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:

        async def ask(body: Any) -> str:
            async with session.post("/v1/responses", json=body) as answer:
                told = await answer.json()
                assert answer.status == 200, told
                return str(told["output"][0]["content"][0]["text"])

        return await asyncio.gather(*map(ask, bodies))


async def asked(port: int) -> int:
    """How often the model was asked to predict so far."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz?verbose") as answer:
        return int((await answer.json())["backends"]["bench"]["batches"])


def spent(server: Serving, bodies: Sequence[Any]) -> tuple[float, list[str]]:
    """Processor seconds of the server for these requests, and what it answered."""
    before = cpu_seconds(server.pid)
    told = asyncio.run(post(server.port, bodies))
    return cpu_seconds(server.pid) - before, told


def body(text: str) -> dict[str, Any]:
    return {"model": "bench", "input": text, "store": False}


@click.command()
@click.option("--rows", default=1000, help="Rows in all.")
@click.option("--rounds", default=5, help="Repetitions; the median of each part counts.")
def main(rows: int, rounds: int) -> None:
    """Measure and print."""
    from ore.backends.classical.demos import train_demo

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, demo in (("trees", "wine"), ("texts", "intents")):
            path = folder / f"{name}.skops"
            example = train_demo(demo, path).example
            report(name, folder, path, example, rows, rounds)


def report(name: str, folder: Path, path: Path, example: str, rows: int, rounds: int) -> None:
    """A table for one model."""
    text = json.dumps([json.loads(example) if name == "trees" else example] * rows)
    singles = [body(example)] * rows
    config = f"{PATIENT}[models.bench]\npath = '{path}'\n"
    found: dict[str, list[float]] = {"floor": [], "batch": [], "single": []}
    (folder / "floor").mkdir(exist_ok=True)
    with Serving(folder, config) as server:
        for at in range(rounds + 1):
            batch, (told,) = spent(server, [body(text)])
            before = asyncio.run(asked(server.port))
            single, answers = spent(server, singles)
            times = asyncio.run(asked(server.port)) - before
            assert set(answers) == {answers[0]}
            assert len(json.loads(told)["predictions"]) == rows
            if at:  # the first round warms up
                found["batch"].append(batch)
                found["single"].append(single)
    model = folder / "floor" / "any.gguf"
    model.touch()
    with Serving(folder / "floor", f"{PATIENT}[models.any]\npath = '{model}'\n", program=FLOOR) as server:
        for at in range(rounds + 1):
            floor, _ = spent(server, [{**each, "model": "row"} for each in singles])
            if at:
                found["floor"].append(floor)
    table = Table(title=f"{name}: {rows} rows, processor seconds of the server, median of {rounds}")
    for column in ("floor", "batch", "single", "single - floor", "in batches", "aim: at most 3", "asked"):
        table.add_column(column, justify="right")
    middle = {part: statistics.median(seconds) for part, seconds in found.items()}
    own = middle["single"] - middle["floor"]
    ratio = own / middle["batch"]
    table.add_row(
        *(f"{middle[part]:.2f}" for part in ("floor", "batch", "single")),
        *(f"{own:.2f}", f"{ratio:.2f}", "met" if ratio <= 3 else "not met", str(times)),
    )
    Console().print(table)


if __name__ == "__main__":
    main()
