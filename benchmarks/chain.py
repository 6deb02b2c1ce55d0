"""What a long conversation costs the store: `python -m benchmarks.chain [--turns 1000] [--folder FOLDER]`.

A chain by `previous_response_id`, one turn after another, through the real run loop over a real SQLite store, all in
this process; a scripted backend answers. Each turn's input is a line of about 60 bytes and its answer one of about 250.

Prints for turn 10, turn 100 and the last what the store does for that turn: the pages it writes, the time to save, the
time to read what came before; and what a turn takes as a whole, with what the run loop does for a long history. Then
the same reads and saves once more, on a new store with nothing between them: a run loop that has just gone through a
long history leaves cold caches to whoever works next. Each figure is the median of the turns around that point. The
baseline is the chain's own beginning: the ratio is the last over turn 10.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw
import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from ore.backends.scripted import ScriptedBackend, says
from ore.core.sealing import KEY_BYTES, Sealer
from ore.ids import new_id
from ore.protocol.responses import check_create
from ore.routing.router import Router
from ore.runs.supervisor import Supervisor
from ore.stores.base import StoredResponse, Turn
from ore.stores.sqlite import SQLiteStore

T = TypeVar("T")

OWNER = "bench"
ANSWER = "It goes on and on, as long conversations do. " * 5


class Cost(Struct):
    """Of one turn: KiB written, then milliseconds."""

    written: float = 0.0
    save: float = 0.0
    read: float = 0.0
    turn: float = 0.0

    @property
    def store(self) -> float:
        return self.save + self.read


class Watched(SQLiteStore):
    """The store, with a stopwatch on what a turn asks of it."""

    cost = Cost()
    saved: list[StoredResponse] = []  # noqa: RUF012 - one store is watched

    async def save(self, owner: str, response: StoredResponse, **more: Any) -> None:
        self.saved.append(response)
        _, self.cost.save = await timed(super().save(owner, response, **more))

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        turns, self.cost.read = await timed(super().chain(owner, response_id))
        return turns

    async def written(self) -> float:
        """KiB of pages that the writer has given to the log so far."""
        pages = await self._write(lambda db: db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0], 0)
        return pages * 4.0


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    """What it gives, and the milliseconds it took."""
    begun = time.perf_counter()
    result = await work
    return result, (time.perf_counter() - begun) * 1000


@click.command()
@click.option("--turns", default=1000, show_default=True, type=click.IntRange(min=120), help="Turns of the chain.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write; on the disk that a server would use.")
def main(turns: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder or Path.cwd(), prefix="bench-chain-") as made:
        asyncio.run(compare(Path(made), turns))


async def compare(folder: Path, turns: int) -> None:
    store = Watched(folder / "ore.db")
    await store.start()
    show("in the run loop", await measure(store, turns), IN_THE_LOOP)
    await store.stop()
    show("the store alone", await replay(folder / "alone.db", store.saved), ALONE)


async def replay(path: Path, responses: Sequence[StoredResponse]) -> list[Cost]:
    """What each turn costs a store of which nothing else is asked."""
    store, costs = Watched(path), []
    await store.start()
    for response in list(responses):
        store.cost = Cost()
        if response.previous_response_id is not None:
            await store.chain(OWNER, response.previous_response_id)
        await store.save(OWNER, response)
        costs.append(store.cost)
    await store.stop()
    return costs


async def measure(store: Watched, turns: int) -> list[Cost]:
    """What each turn cost."""
    backend = ScriptedBackend({"m": says(ANSWER, pieces=4)})
    costs, previous = [], None
    async with Supervisor(
        Router({"scripted": backend}),
        store,
        Sealer(bytes(KEY_BYTES)),
        new_id=new_id,
        now=lambda: int(time.time()),
        run_seconds=60,
    ) as supervisor:
        for number in range(turns):
            store.cost, before = Cost(), await store.written()
            body = {
                "model": "m",
                "input": f"This is turn {number + 1}. Please go on.",
                "previous_response_id": previous,
            }
            run = supervisor.start(OWNER, check_create(body, new_id))
            _, store.cost.turn = await timed(run.ended())
            assert run.response.status == "completed", run.response
            assert len(backend.requests.pop().items) == 2 * number + 1
            store.cost.written = await store.written() - before
            costs.append(store.cost)
            previous = run.id
    return costs


Rows = dict[str, Callable[[Cost], float]]

ALONE: Rows = {
    "save, ms": lambda cost: cost.save,
    "read the history, ms": lambda cost: cost.read,
    "store in all, ms": lambda cost: cost.store,
}
IN_THE_LOOP: Rows = {
    "written, KiB": lambda cost: cost.written,
    **ALONE,
    "the whole turn, ms": lambda cost: cost.turn,
}


def show(title: str, costs: Sequence[Cost], rows: Rows) -> None:
    last = len(costs)
    points = {"turn 10": costs[4:15], "turn 100": costs[89:110], f"turn {last:,}": costs[-21:]}
    table = Table(title, *points, f"{last:,} / 10")
    for name, of in rows.items():
        middle = [statistics.median(of(cost) for cost in around) for around in points.values()]
        table.add_row(name, *(f"{value:.2f}" for value in middle), f"{middle[-1] / middle[0]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
