"""What a committed save costs: `SQLiteStore` beside one commit per save in a thread, on the same disk in the same run.

    python -m benchmarks.store [--folder FOLDER] [--saves N]

Prints microseconds of wall time per acknowledged save of a response of about 1 KB (a 300-byte envelope, an input and
an output item of 350 bytes each) at 1, 8 and 32 concurrent callers, and how many saves shared a commit. The folder
should lie on the disk that a server would use: on tmpfs a sync is free, and so grouping seems to gain little. Then the
same store's reads: a chain of 1,000 turns, and a page of 20 items out of it.

It measures no server, no protocol and no model.
"""

import argparse
import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw

from ore.stores.base import StoredItem, StoredResponse
from ore.stores.sqlite import SQLiteStore

CALLERS = (1, 8, 32)
ROUNDS = 3

Save = Callable[[StoredResponse], Awaitable[None]]


def make_response(previous: str | None = None) -> StoredResponse:
    return StoredResponse(
        id=f"resp_{secrets.token_hex(16)}",
        created_at=1_700_000_000,
        status="completed",
        previous_response_id=previous,
        envelope=b"e" * 300,
        input=(StoredItem(f"msg_{secrets.token_hex(16)}", b"i" * 350),),
        output=(StoredItem(f"msg_{secrets.token_hex(16)}", b"o" * 350),),
    )


class OneCommitPerSave:
    """The baseline: the same rows and the same durability, a transaction for each save, in a worker thread."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path))
        self._db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE responses (seq INTEGER PRIMARY KEY, owner, id, envelope, UNIQUE (owner, id))")
        self._db.execute(
            "CREATE TABLE items (seq INTEGER PRIMARY KEY, response, slot, id, body, UNIQUE(response, slot))"
        )
        self._lock = asyncio.Lock()

    async def save(self, response: StoredResponse) -> None:
        async with self._lock:
            await asyncio.to_thread(self._save, response)

    def _save(self, response: StoredResponse) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(
            "INSERT INTO responses (owner, id, envelope) VALUES (?, ?, ?)", ("o", response.id, response.envelope)
        )
        seq = self._db.last_insert_rowid()
        self._db.executemany(
            "INSERT INTO items (response, slot, id, body) VALUES (?, ?, ?, ?)",
            [(seq, slot, item.id, item.body) for slot, item in enumerate(response.input + response.output)],
        )
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


async def microseconds_per_save(save: Save, callers: int, saves: int) -> float:
    """Median of some rounds: the wall time of all saves, divided by their number."""

    async def caller() -> None:
        for _ in range(saves // callers):
            await save(make_response())

    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        rounds.append((time.perf_counter() - began) / (saves // callers * callers) * 1e6)
    return statistics.median(rounds)


async def measure_saves(folder: Path, saves: int) -> None:
    print(f"{'callers':>8} {'one commit per save':>20} {'SQLiteStore':>12} {'faster':>7} {'saves per commit':>17}")
    for callers in CALLERS:
        baseline = OneCommitPerSave(folder / f"baseline-{callers}.db")
        plain = await microseconds_per_save(baseline.save, callers, saves)
        baseline.close()
        store = SQLiteStore(folder / f"store-{callers}.db")
        await store.start()
        ours = await microseconds_per_save(lambda response, store=store: store.save("o", response), callers, saves)
        grouped = saves // callers * callers * ROUNDS / store.commits
        await store.stop()
        print(f"{callers:>8} {plain:>17.0f} us {ours:>9.0f} us {plain / ours:>6.1f}x {grouped:>17.1f}")


async def measure_reads(folder: Path) -> None:
    store = SQLiteStore(folder / "reads.db")
    await store.start()
    chain = [make_response()]
    for _ in range(999):
        chain.append(make_response(chain[-1].id))
    await asyncio.gather(*(store.save("o", response) for response in chain))
    last = chain[-1].id

    async def milliseconds(read: Callable[[], Awaitable[object]]) -> float:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            await read()
            times.append((time.perf_counter() - began) * 1e3)
        return statistics.median(times)

    async def page(order: str, after: str | None = None) -> object:
        return await store.input_items("o", last, limit=20, order=order, after=after)  # type: ignore[arg-type]

    middle = chain[500].output[0].id
    print(f"load one response:                     {await milliseconds(lambda: store.load('o', last)):6.2f} ms")
    print(f"chain of 1,000 turns:                  {await milliseconds(lambda: store.chain('o', last)):6.2f} ms")
    print(f"input_items of it, newest 20:          {await milliseconds(lambda: page('desc')):6.2f} ms")
    print(f"input_items of it, 20 from the middle: {await milliseconds(lambda: page('asc', middle)):6.2f} ms")
    await store.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a new folder in the current one")
    parser.add_argument("--saves", type=int, default=1600, help="saves per round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix="bench-store-") as folder:
        asyncio.run(measure_saves(Path(folder), options.saves))
        asyncio.run(measure_reads(Path(folder)))


if __name__ == "__main__":
    main()
