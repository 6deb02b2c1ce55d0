"""Durable state in one SQLite file, for one ORE process.

All writes go through one thread with one connection: it commits whatever waits in a single transaction, so that many
callers share one sync of the disk. Reads run beside it on a few threads, each on a snapshot of what was committed. No
caller is told that something is saved before the disk was told to keep it (WAL, `synchronous=FULL`).

The statements are in files of their own, one for each kind of thing that is kept. It needs an asyncio event loop.
"""

import asyncio
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

import anyio
import apsw

from ore.errors import StorageFailed
from ore.stores import sqlite_conversations as conversations
from ore.stores import sqlite_idempotency as idempotency
from ore.stores import sqlite_responses as responses
from ore.stores import sqlite_runs as background
from ore.stores.base import (
    ClaimedRun,
    Fenced,
    ItemPage,
    Lease,
    Reservation,
    ResponsePage,
    RunState,
    StoredAnswer,
    StoredConversation,
    StoredEvent,
    StoredItem,
    StoredResponse,
    StoredRun,
    TakenIds,
    Turn,
)
from ore.stores.chain_memory import MAX_BYTES, ChainMemory
from ore.stores.sqlite_file import connect, explained, identity, is_full, open_file, storage_failed, transaction

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

    def __init__(self, path: Path, *, max_pending_bytes: int = MAX_PENDING_BYTES, chain_bytes: int = MAX_BYTES) -> None:
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
        self._chains = ChainMemory(chain_bytes)

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

    async def save(
        self,
        owner: str,
        response: StoredResponse,
        *,
        fence: int | None = None,
        events: Sequence[StoredEvent] = (),
    ) -> None:
        if fence is None:
            await self._write(lambda db: responses.save(db, owner, response), _size_of_response(response))
        else:
            size = _size_of_response(response) + _size(events)
            await self._write(lambda db: background.end(db, owner, response, fence, events), size)

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        return await self._read(lambda db: responses.load(db, owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        return await self._write(lambda db: responses.delete(db, owner, response_id), 0)

    async def list_responses(
        self, owner: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ResponsePage:
        return await self._read(lambda db: responses.page(db, owner, limit, order, after))

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        return await self._read(lambda db: responses.chain(db, owner, response_id, self._chains))

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        return await self._read(lambda db: responses.input_items(db, owner, response_id, limit, order, after))

    async def begin(self, owner: str, response: StoredResponse, run: StoredRun, lease: Lease) -> int:
        size = _size_of_response(response) + len(run.request) + len(run.progress)
        return await self._write(lambda db: background.begin(db, owner, response, run, lease), size)

    async def append(
        self, owner: str, response_id: str, fence: int, events: Sequence[StoredEvent], progress: bytes | None
    ) -> None:
        size = _size(events) + len(progress or b"")
        await self._write(lambda db: background.append(db, owner, response_id, fence, events, progress), size)

    async def events(self, owner: str, response_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        return await self._read(lambda db: background.read_events(db, owner, response_id, after, limit))

    async def run_state(self, owner: str, response_id: str) -> RunState | None:
        return await self._read(lambda db: background.state(db, owner, response_id))

    async def renew(self, runs: Sequence[tuple[str, str]], lease: Lease) -> None:
        await self._write(lambda db: background.renew(db, runs, lease), 0)

    async def claim(self, lease: Lease, *, limit: int) -> list[ClaimedRun]:
        return await self._write(lambda db: background.claim(db, lease, limit), 0)

    async def take(self, owner: str, response_id: str, lease: Lease) -> ClaimedRun | None:
        return await self._write(lambda db: background.take(db, owner, response_id, lease), 0)

    async def release(self, owner: str, response_id: str, fence: int) -> None:
        await self._write(lambda db: background.release(db, owner, response_id, fence), 0)

    async def prune(self, *, events_before: float | None, responses_before: float | None, limit: int) -> int:
        return await self._write(lambda db: background.prune(db, events_before, responses_before, limit), 0)

    async def find_item(self, owner: str, item_id: str) -> StoredItem | None:
        return await self._read(lambda db: responses.find_item(db, owner, item_id))

    async def create_conversation(
        self, owner: str, conversation: StoredConversation, items: Sequence[StoredItem] = ()
    ) -> None:
        size = _size(items) + len(conversation.metadata)
        await self._write(lambda db: conversations.create(db, owner, conversation, items), size)

    async def load_conversation(self, owner: str, conversation_id: str) -> StoredConversation | None:
        return await self._read(lambda db: conversations.load(db, owner, conversation_id))

    async def update_conversation(self, owner: str, conversation_id: str, metadata: bytes) -> StoredConversation | None:
        return await self._write(lambda db: conversations.update(db, owner, conversation_id, metadata), len(metadata))

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        return await self._write(lambda db: conversations.delete(db, owner, conversation_id), 0)

    async def add_conversation_items(self, owner: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        taken = await self._write(lambda db: conversations.add(db, owner, conversation_id, items), _size(items))
        if taken:
            raise TakenIds(taken)
        return taken is not None

    async def conversation_items(
        self, owner: str, conversation_id: str, *, holder: str | None = None
    ) -> tuple[StoredItem, ...] | None:
        return await self._read(lambda db: conversations.all_items(db, owner, conversation_id, holder))

    async def list_conversation_items(
        self, owner: str, conversation_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        return await self._read(lambda db: conversations.page(db, owner, conversation_id, limit, order, after))

    async def conversation_item(self, owner: str, conversation_id: str, item_id: str) -> StoredItem | None:
        return await self._read(lambda db: conversations.item(db, owner, conversation_id, item_id))

    async def delete_conversation_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        return await self._write(lambda db: conversations.delete_item(db, owner, conversation_id, item_id), 0)

    async def lock_conversation(self, owner: str, conversation_id: str, holder: str, seconds: float) -> bool | None:
        return await self._write(lambda db: conversations.lock(db, owner, conversation_id, holder, seconds), 0)

    async def unlock_conversation(self, owner: str, conversation_id: str, holder: str) -> None:
        await self._write(lambda db: conversations.unlock(db, owner, conversation_id, holder), 0)

    async def reserve(
        self, owner: str, key: str, fingerprint: bytes, *, holder: str, seconds: float
    ) -> Reservation | StoredAnswer:
        return await self._write(lambda db: idempotency.reserve(db, owner, key, fingerprint, holder, seconds), 0)

    async def complete(self, owner: str, key: str, holder: str, answer: StoredAnswer, *, seconds: float) -> None:
        size = len(answer.headers) + len(answer.body)
        await self._write(lambda db: idempotency.complete(db, owner, key, holder, answer, seconds), size)

    async def free(self, owner: str, key: str, holder: str) -> None:
        await self._write(lambda db: idempotency.free(db, owner, key, holder), 0)

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
            raise storage_failed(failure) from failure

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
                failed = storage_failed(outcome.failure)
                failed.__cause__ = outcome.failure
                job.future.set_exception(failed)
            else:
                job.future.set_exception(outcome.failure)

    # On the writer's thread

    def _live(self) -> None:
        """Open, commit until the end of the queue, close."""
        try:
            with ExitStack() as stack:
                with explained(self._path):
                    db = open_file(self._path, stack)
                    self._readers = stack.enter_context(_Readers(self._path))
                    self._identity = identity(self._path)
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
            with transaction(db, "IMMEDIATE"):
                self._probe(db)
                background.expire_all(db)
                idempotency.free_all(db)
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
            if identity(self._path) != self._identity:  # SQLite would go on in a file that has no name any more
                raise apsw.IOError("the database file was moved or deleted")
            with transaction(db, "IMMEDIATE"):
                outcomes = [_attempt(db, job.work) for job in jobs]
        except Exception as failure:
            if is_full(failure, db.system_errno):
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
            db = connect(path, apsw.SQLITE_OPEN_READWRITE)
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


def _size(kept: Sequence[StoredItem] | Sequence[StoredEvent]) -> int:
    return sum(len(one.body) for one in kept)


def _size_of_response(response: StoredResponse) -> int:
    """Bytes that saving it keeps waiting, about."""
    return len(response.envelope) + _size(response.input) + _size(response.output)


def _closed() -> StorageFailed:
    return StorageFailed("The server's storage is closed: it is starting or shutting down. Try again in a moment.")


def _attempt(db: apsw.Connection, work: Work[Any]) -> _Outcome:
    """One caller's part of a transaction. Raises when its failure is everybody's."""
    db.execute("SAVEPOINT one")
    try:
        value = work(db)
    except Exception as failure:
        if isinstance(failure, apsw.FullError | apsw.IOError | apsw.ReadOnlyError | OSError) or not db.in_transaction:
            raise
        if not isinstance(failure, Fenced):
            _log.error("a write failed: %s: %s", type(failure).__name__, failure)
        db.execute("ROLLBACK TO one; RELEASE one")
        return _Outcome(None, failure)
    db.execute("RELEASE one")
    return _Outcome(value, None)
