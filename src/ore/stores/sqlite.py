"""Durable state in one SQLite file, for one ORE process.

All writes go through one thread with one connection: it commits whatever waits in a single transaction, so that many
callers share one sync of the disk. Reads run beside it on a few threads, each on a snapshot of what was committed. No
caller is told that something is saved before the disk was told to keep it (WAL, `synchronous=FULL`).

It refuses to share its file with a second ORE process, to open a file that a newer ORE or another program made, and to
repair or replace a damaged one. It needs an asyncio event loop and a file system with `flock`.
"""

import asyncio
import errno
import fcntl
import hashlib
import json
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

import anyio
import apsw

from ore.errors import StartupError, StorageFailed
from ore.stores.base import ItemPage, MissingAncestor, StoredItem, StoredResponse, Turn, UnknownCursor

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]

READERS: Final = 4
"""Reads that run at the same time; further ones wait in line."""

MAX_PENDING_BYTES: Final = 256 * 1024 * 1024
"""Bytes that were accepted and not yet written; beyond them a save is refused."""

STALLED_SECONDS: Final = 5.0
"""A commit that takes longer than this means that the disk hangs."""

PROBE_SECONDS: Final = 1.0
"""How long `health` waits for its own probe."""

ROOM_BYTES: Final = 1024 * 1024
"""Free bytes on the disk below which a store that was refused a write does not call itself healthy again."""

BUSY_MILLISECONDS: Final = 5000
"""How long to wait for a lock that another program (a backup, a shell) holds on the file."""

CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Files up to this size are read through at the start to find damage; larger ones would take too long."""

APPLICATION_ID: Final = 0x4F524531
"""`PRAGMA application_id` of every file that ORE made."""

_JOB_OVERHEAD: Final = 512  # bytes counted for a write beside what it carries

_log = logging.getLogger(__name__)


class _Job(NamedTuple):
    """A write that was accepted, and who waits for it."""

    work: Work[Any]
    future: asyncio.Future[Any]
    size: int


class _Outcome(NamedTuple):
    """What came of a write: a value, or a failure."""

    value: Any
    failure: Exception | None


class SQLiteStore:
    """A `Store` in the file `path`; its folder is made when it is missing. Lives once: what was stopped stays so."""

    def __init__(self, path: Path, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        self.commits = 0
        """Transactions that wrote something, since the start."""
        self._path = path
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0  # touched on the event loop only
        self._state: Literal["new", "open", "closed"] = "new"
        self._healthy = False
        self._group_began: float | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._readers: _Readers | None = None
        self._identity: tuple[int, int] | None = None

    async def start(self) -> None:
        if self._state != "new":
            raise RuntimeError("a SQLiteStore can be started once")
        self._state = "closed"  # until it is open
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._live, name="ore-store-writer", daemon=True).start()
        try:
            await self._opened
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise
        self._state = "open"

    async def stop(self) -> None:
        if self._state == "new":
            return
        if self._state == "open":
            self._state = "closed"
            self._jobs.put(None)
        await asyncio.shield(self._finished)

    async def save(self, owner: str, response: StoredResponse) -> None:
        size = sum(len(item.body) for items in (response.input, response.output) for item in items)
        await self._write(lambda db: _save(db, owner, response), size + len(response.envelope))

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        return await self._read(lambda db: _load(db, owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        return await self._write(lambda db: _delete(db, owner, response_id), 0)

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        return await self._read(lambda db: _chain(db, owner, response_id))

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        return await self._read(lambda db: _input_items(db, owner, response_id, limit, order, after))

    async def health(self) -> bool:
        began = self._group_began
        if self._state != "open" or (began is not None and time.monotonic() - began > STALLED_SECONDS):
            return False
        if not self._healthy:
            with anyio.move_on_after(PROBE_SECONDS), suppress(StorageFailed):
                await self._write(self._probe, 0)
        return self._healthy

    # On the event loop

    async def _read(self, work: Work[T]) -> T:
        if self._state != "open" or self._readers is None:
            raise _closed()
        try:
            return await self._loop.run_in_executor(self._readers.pool, self._readers.run, work)
        except apsw.Error as failure:
            _log.error("a read failed: %s: %s", type(failure).__name__, failure)
            raise _storage_failed(failure) from failure

    async def _write(self, work: Work[T], size: int) -> T:
        """Have `work` done by the next transaction. A caller who is cancelled meanwhile does not undo it."""
        if self._state != "open":
            raise _closed()
        size += _JOB_OVERHEAD
        if self._pending_bytes and self._pending_bytes + size > self._max_pending_bytes:
            raise StorageFailed(
                "More is waiting to be saved than the server's storage takes at the moment. Try again in a moment.",
                code="server_is_overloaded",
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending_bytes += size
        self._jobs.put(_Job(work, future, size))
        return await future

    def _settle(self, jobs: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._pending_bytes -= job.size
            if job.future.done():  # cancelled: nobody waits for the answer
                continue
            if outcome.failure is None:
                job.future.set_result(outcome.value)
            elif isinstance(outcome.failure, apsw.Error | OSError):
                failed = _storage_failed(outcome.failure)
                failed.__cause__ = outcome.failure
                job.future.set_exception(failed)
            else:
                job.future.set_exception(outcome.failure)

    # On the writer's thread

    def _live(self) -> None:
        """Open, commit until the end of the queue, close."""
        try:
            with ExitStack() as stack:
                with _explained(self._path):
                    db = _open(self._path, stack)
                    self._readers = stack.enter_context(_Readers(self._path))
                    self._identity = _identity(self._path)
                    self._healthy = self._accepts_writes(db)
                self._post(_resolve, self._opened)
                while jobs := self._next_group():
                    self._post(self._settle, jobs, self._commit(db, jobs))
        except Exception as failure:
            self._post(_reject, self._opened, failure)
        finally:
            self._post(_resolve, self._finished)

    def _accepts_writes(self, db: apsw.Connection) -> bool:
        """Whether a write goes through. A full disk may be cleared while we run; every other reason is raised."""
        try:
            with _transaction(db, "IMMEDIATE"):
                self._probe(db)
        except apsw.FullError as failure:
            _log.error("the store refuses writes: %s", failure)
            return False
        return True

    def _probe(self, db: apsw.Connection) -> None:
        """A write that goes through only when others would: what is left over in the log must not make it seem so."""
        if shutil.disk_usage(self._path.parent).free < ROOM_BYTES:
            raise apsw.FullError("the disk is full")
        db.execute("UPDATE heartbeat SET beats = beats + 1")

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    def _next_group(self) -> list[_Job]:
        """All that waits, at least one job; empty at the end of the queue."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        with suppress(queue.Empty):
            while job is not None:
                jobs.append(job)
                job = self._jobs.get_nowait()
            if jobs:
                self._jobs.put(None)  # the end: seen again once these are written
        return jobs

    def _commit(self, db: apsw.Connection, jobs: Sequence[_Job]) -> list[_Outcome]:
        """One transaction for all. When the disk cannot take all, each gets its own: the small ones may fit."""
        self._group_began = time.monotonic()
        try:
            if _identity(self._path) != self._identity:  # SQLite would go on in a file that has no name any more
                raise apsw.IOError("the database file was moved or deleted")
            with _transaction(db, "IMMEDIATE"):
                outcomes = [_attempt(db, job.work) for job in jobs]
        except Exception as failure:
            if _is_full(failure, db.system_errno):
                failure = apsw.FullError(str(failure))
            if self._healthy:
                _log.error("the store refuses writes: %s: %s", type(failure).__name__, failure)
            self._healthy = False
            if len(jobs) > 1 and isinstance(failure, apsw.FullError):
                return [outcome for job in jobs for outcome in self._commit(db, [job])]
            return [_Outcome(None, failure)] * len(jobs)
        else:
            self.commits += 1
            if not self._healthy:
                _log.warning("the store takes writes again")
            self._healthy = True
            return outcomes
        finally:
            self._group_began = None


class _Readers:
    """Connections that see what is committed, and the threads that use them."""

    def __init__(self, path: Path) -> None:
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="ore-store-reader")
        self._free: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        for _ in range(READERS):
            db = _connect(path, apsw.SQLITE_OPEN_READWRITE)
            db.execute("PRAGMA query_only = ON")
            self._free.put(db)

    def run(self, work: Work[T]) -> T:
        """Do `work` on one snapshot."""
        db = self._free.get()
        try:
            db.execute("BEGIN")
            return work(db)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._free.put(db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(wait=True)
        for _ in range(READERS):
            self._free.get().close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reject(future: asyncio.Future[None], failure: Exception) -> None:
    if not future.done():
        future.set_exception(failure)


# Errors


def _closed() -> StorageFailed:
    return StorageFailed("The server's storage is closed: it is starting or shutting down. Try again in a moment.")


def _storage_failed(failure: Exception) -> StorageFailed:
    """What a caller may know of it. The log has the rest."""
    if isinstance(failure, apsw.FullError):
        return StorageFailed(
            "The server's storage is full, so nothing was saved. Try again when space was freed, "
            "or send `store: false`.",
            code="storage_full",
        )
    if isinstance(failure, apsw.BusyError):
        return StorageFailed("The server's storage is busy. Try again in a moment.")
    return StorageFailed("The server's storage failed. Try again later, or send `store: false`.")


def _is_full(failure: Exception, system_errno: int = 0) -> bool:
    """Whether the disk or a quota is used up, which SQLite calls `FullError` for some writes only."""
    no_room = {errno.ENOSPC, errno.EDQUOT}
    if isinstance(failure, apsw.IOError):
        index_cannot_grow = getattr(failure, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
        return index_cannot_grow or system_errno in no_room
    return isinstance(failure, apsw.FullError) or (isinstance(failure, OSError) and failure.errno in no_room)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what may go wrong while opening `path` into one sentence for the operator."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError, apsw.FormatError) as failure:
        raise _damaged(path, str(failure)) from failure
    except (apsw.Error, OSError) as failure:
        reason = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
        if _is_full(failure):
            fix = "Free some space on that disk"
        elif isinstance(failure, apsw.BusyError):
            fix = "Close the other program that has it open"
        else:
            fix = f"Give this user the right to write in {path.parent}"
        raise StartupError(
            f"Cannot write to the database {path}: {reason}. {fix}, or use another --data-dir."
        ) from failure


def _damaged(path: Path, reason: str) -> StartupError:
    return StartupError(
        f"The database {path} is damaged or no database at all ({reason}). ORE neither repairs nor replaces it: "
        "restore a backup, or move it away together with its -wal file, or use another --data-dir."
    )


# Opening


class Migration(NamedTuple):
    """One numbered step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All steps this ORE knows, in order: `0001_name.sqlite.sql` is the first."""
    folder = resources.files("ore.stores") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sqlite.sql")), key=lambda file: file.name)
    return [
        Migration(int(file.name[:4]), file.name.removesuffix(".sqlite.sql"), file.read_text(encoding="utf-8"))
        for file in files
    ]


def _open(path: Path, stack: ExitStack) -> apsw.Connection:
    """The writer's connection to a file that is ours alone, sound and of our schema. `stack` closes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.enter_context(_locked(path))
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size and not (path.exists() and path.stat().st_size):
        raise _damaged(path, f"it is missing or empty, but {log.name} is there")  # SQLite would drop the log
    path.touch(mode=0o600)  # the log files take these rights over
    db = _connect(path, apsw.SQLITE_OPEN_READWRITE)
    stack.callback(_close, db)
    _refuse_strangers(db, path)
    if db.pragma("journal_mode", "wal") != "wal":
        raise StartupError(f"The file system of {path} cannot hold a write-ahead log; use another --data-dir.")
    _migrate(db, path)
    for name, value in (
        ("synchronous", "full"),
        ("fullfsync", "on"),  # macOS: fsync alone does not reach the disk there
        ("checkpoint_fullfsync", "on"),
        ("foreign_keys", "on"),
        ("temp_store", "memory"),
        ("journal_size_limit", str(64 * 1024 * 1024)),
    ):
        db.pragma(name, value)
    if path.stat().st_size <= CHECKED_BYTES and (finding := _rows(db, "PRAGMA quick_check(1)")[0][0]) != "ok":
        raise _damaged(path, str(finding))
    return db


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at `path`; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep every other ORE away from `path`. The operating system frees the lock when the process ends, however."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode("ascii", "replace").strip()
            raise StartupError(
                f"Another ore process{f' (pid {holder})' if holder else ''} uses the database {path}. Stop it first, "
                "or start this one with another --data-dir."
            ) from None
        with suppress(OSError):  # the number is a courtesy; a full disk must not forbid the start
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _connect(path: Path, flags: int) -> apsw.Connection:
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(BUSY_MILLISECONDS)
    return db


def _close(db: apsw.Connection) -> None:
    with suppress(apsw.Error):  # a full disk: the log keeps what is committed
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close(force=True)


def _refuse_strangers(db: apsw.Connection, path: Path) -> None:
    application_id = db.pragma("application_id")
    if application_id != APPLICATION_ID and db.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
        raise StartupError(f"The database {path} was made by another program; use another --data-dir.")


def _migrate(db: apsw.Connection, path: Path) -> None:
    """Apply the steps that are missing, each in a transaction of its own: all of it or none."""
    known = migrations()
    for migration in known[_applied(db, path, known) :]:
        with _transaction(db, "EXCLUSIVE"):
            db.execute(migration.sql)
            db.execute(
                "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, unixepoch())",
                (migration.version, migration.name, migration.checksum),
            )
            if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StartupError(f"The database {path} does not fit step {migration.name}; it was left as it was.")


def _applied(db: apsw.Connection, path: Path, known: Sequence[Migration]) -> int:
    """How many of the known steps `path` has. Raises `StartupError` when it has others."""
    if db.pragma("application_id") != APPLICATION_ID:
        return 0
    rows = db.execute("SELECT version, checksum FROM schema_migrations ORDER BY version").fetchall()
    if rows[len(known) :]:
        raise StartupError(
            f"The database {path} was made by a newer ORE (schema {rows[-1][0]}, this one knows {len(known)}); "
            "upgrade ore or use another --data-dir."
        )
    for (version, checksum), migration in zip(rows, known, strict=False):
        if (version, checksum) != (migration.version, migration.checksum):
            raise StartupError(
                f"The database {path} was made by a different build of ORE (schema step {version} is not the same); "
                "install the ore that made it or use another --data-dir."
            )
    return len(rows)


# Transactions


@contextmanager
def _transaction(db: apsw.Connection, kind: Literal["IMMEDIATE", "EXCLUSIVE"]) -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(apsw.Error):
                db.execute("ROLLBACK")
        raise


def _attempt(db: apsw.Connection, work: Work[Any]) -> _Outcome:
    """One caller's part of a transaction. Raises when its failure is everybody's."""
    db.execute("SAVEPOINT one")
    try:
        value = work(db)
    except Exception as failure:
        if isinstance(failure, apsw.FullError | apsw.IOError | apsw.ReadOnlyError | OSError) or not db.in_transaction:
            raise
        _log.error("a write failed: %s: %s", type(failure).__name__, failure)
        db.execute("ROLLBACK TO one; RELEASE one")
        return _Outcome(None, failure)
    db.execute("RELEASE one")
    return _Outcome(value, None)


# Statements

_UPSERT_RESPONSE: Final = """
INSERT INTO responses (owner, id, created_at, status, previous_response_id, envelope) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (owner, id) DO UPDATE SET
    created_at = excluded.created_at,
    status = excluded.status,
    previous_response_id = excluded.previous_response_id,
    envelope = excluded.envelope
RETURNING seq
"""

# Saving again must not write again what did not change: the input of a long run may be large.
_UPSERT_ITEM: Final = """
INSERT INTO items (response, direction, position, id, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (response, direction, position) DO UPDATE SET id = excluded.id, body = excluded.body
WHERE items.id IS NOT excluded.id OR items.body IS NOT excluded.body
"""

_DELETE_SURPLUS: Final = """
DELETE FROM items
WHERE response = ?1 AND ((direction = 0 AND position >= ?2) OR (direction = 1 AND position >= ?3))
"""

_LINK: Final = "SELECT seq, id, status, previous_response_id FROM responses WHERE owner = ? AND id = ?"

# Both take a JSON array of `responses.seq` and name an item's response by its place in it. One statement for a whole
# chain takes a tenth of the time of one for each response; they are put in order afterwards, lest SQLite copy bodies.
_BODIES: Final = """
SELECT chain.key, items.direction, items.position, items.id, items.body
FROM json_each(?) AS chain CROSS JOIN items ON items.response = +chain.value
"""
_IDS: Final = """
SELECT chain.key, items.direction, items.position, items.id, items.seq
FROM json_each(?) AS chain CROSS JOIN items ON items.response = +chain.value
"""


_OUTPUT: Final = 1  # `items.direction`; 0 is input


class _Link(NamedTuple):
    """A response as a member of its chain."""

    seq: int
    id: str
    status: str
    previous: str | None


def _rows(db: apsw.Connection, statement: str, *bindings: str | bytes | int | None) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = db.execute(statement, bindings).fetchall()
    return rows


def _save(db: apsw.Connection, owner: str, response: StoredResponse) -> None:
    ((seq,),) = _rows(
        db,
        _UPSERT_RESPONSE,
        owner,
        response.id,
        response.created_at,
        response.status,
        response.previous_response_id,
        response.envelope,
    )
    db.execute(_DELETE_SURPLUS, (seq, len(response.input), len(response.output)))
    db.executemany(
        _UPSERT_ITEM,
        (
            (seq, direction, position, item.id, item.body)
            for direction, items in enumerate((response.input, response.output))
            for position, item in enumerate(items)
        ),
    )


def _delete(db: apsw.Connection, owner: str, response_id: str) -> bool:
    db.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, response_id))
    return db.changes() > 0


def _load(db: apsw.Connection, owner: str, response_id: str) -> StoredResponse | None:
    rows = _rows(
        db,
        "SELECT seq, created_at, status, previous_response_id, envelope FROM responses WHERE owner = ? AND id = ?",
        owner,
        response_id,
    )
    if not rows:
        return None
    ((seq, created_at, status, previous, envelope),) = rows
    ((given, made),) = _items(db, [seq])
    return StoredResponse(
        id=response_id,
        created_at=created_at,
        status=status,
        previous_response_id=previous,
        envelope=envelope,
        input=given,
        output=made,
    )


def _items(db: apsw.Connection, seqs: list[int]) -> list[tuple[tuple[StoredItem, ...], tuple[StoredItem, ...]]]:
    """The input and the output of each response, in order."""
    lists: list[tuple[list[StoredItem], list[StoredItem]]] = [([], []) for _ in seqs]
    for place, direction, _, item_id, body in sorted(_rows(db, _BODIES, json.dumps(seqs)), key=_order):
        lists[place][direction].append(StoredItem(item_id, body))
    return [(tuple(given), tuple(made)) for given, made in lists]


_order = itemgetter(0, 1, 2)  # place in the chain, direction, position


def _walk(db: apsw.Connection, owner: str, response_id: str) -> tuple[list[_Link], str | None]:
    """The chain, oldest first, and the id at which it breaks off. A circle, which nobody makes, ends where it closes.

    One look-up for each link: inside the process that is as fast as a recursive query, and cannot run in circles.
    """
    links: list[_Link] = []
    seen: set[str] = set()
    at: str | None = response_id
    while at is not None and at not in seen:
        row = db.execute(_LINK, (owner, at)).fetchone()
        if row is None:
            break
        seen.add(at)
        links.append(_Link(*row))
        at = links[-1].previous
    links.reverse()
    return links, None if at in seen else at


def _chain(db: apsw.Connection, owner: str, response_id: str) -> list[Turn] | None:
    links, missing = _walk(db, owner, response_id)
    if not links:
        return None
    if missing is not None:
        raise MissingAncestor(missing)
    items = _items(db, [link.seq for link in links])
    return [
        Turn(id=link.id, status=link.status, input=given, output=made)
        for link, (given, made) in zip(links, items, strict=True)
    ]


def _input_items(
    db: apsw.Connection, owner: str, response_id: str, limit: int, order: Literal["asc", "desc"], after: str | None
) -> ItemPage | None:
    links, _ = _walk(db, owner, response_id)
    if not links:
        return None
    listing = _listing(db, [link.seq for link in links])
    if order == "desc":
        listing.reverse()
    begin = 0
    if after is not None:
        ids = [item_id for item_id, _ in listing]
        if after not in ids:
            raise UnknownCursor(after)
        begin = ids.index(after) + 1
    page = listing[begin : begin + limit]
    bodies = [_rows(db, "SELECT body FROM items WHERE seq = ?", seq)[0][0] for _, seq in page]
    return ItemPage(
        items=tuple(StoredItem(item_id, body) for (item_id, _), body in zip(page, bodies, strict=True)),
        has_more=begin + limit < len(listing),
    )


def _listing(db: apsw.Connection, seqs: list[int]) -> list[tuple[str, int]]:
    """`(id, seq)` of all that the last response was given, oldest first, without any body."""
    last = len(seqs) - 1
    rows = sorted(_rows(db, _IDS, json.dumps(seqs)), key=_order)
    return [(item_id, seq) for place, direction, _, item_id, seq in rows if (place, direction) != (last, _OUTPUT)]
