"""The SQLite file of a store: opened alone, checked, migrated; and what may go wrong with it, in words for people.

It refuses to share the file with a second ORE process, to open one that a newer ORE or another program made, and to
repair or replace a damaged one. Needs a file system with `flock`.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import apsw

from ore.errors import StartupError, StorageFailed, StoreTaken

BUSY_MILLISECONDS: Final = 5000
"""How long to wait for a lock that another program (a backup, a shell) holds on the file."""

CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Files up to this size are read through at the start to find damage; larger ones would take too long."""

APPLICATION_ID: Final = 0x4F524531
"""`PRAGMA application_id` of every file that ORE made."""


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


def open_file(path: Path, stack: ExitStack) -> apsw.Connection:
    """The writer's connection to a file that is ours alone, sound and of our schema. `stack` closes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.enter_context(_locked(path))
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size and not (path.exists() and path.stat().st_size):
        raise _damaged(path, f"it is missing or empty, but {log.name} is there")  # SQLite would drop the log
    path.touch(mode=0o600)  # the log files take these rights over
    db = connect(path, apsw.SQLITE_OPEN_READWRITE)
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
    if (
        path.stat().st_size <= CHECKED_BYTES
        and (finding := db.execute("PRAGMA quick_check(1)").fetchall()[0][0]) != "ok"
    ):
        raise _damaged(path, str(finding))
    return db


def identity(path: Path) -> tuple[int, int] | None:
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
            raise StoreTaken(
                f"Another ore process{f' (pid {holder})' if holder else ''} uses the database {path}. Stop it first, "
                "or start this one with another --data-dir."
            ) from None
        with suppress(OSError):  # the number is a courtesy; a full disk must not forbid the start
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def connect(path: Path, flags: int) -> apsw.Connection:
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(BUSY_MILLISECONDS)
    return db


def rows(db: apsw.Connection, statement: str, *bindings: str | bytes | float | None) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = db.execute(statement, bindings).fetchall()
    return rows


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
        with transaction(db, "EXCLUSIVE"):
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


@contextmanager
def transaction(db: apsw.Connection, kind: Literal["IMMEDIATE", "EXCLUSIVE"]) -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(apsw.Error):
                db.execute("ROLLBACK")
        raise


def storage_failed(failure: Exception) -> StorageFailed:
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


def is_full(failure: Exception, system_errno: int = 0) -> bool:
    """Whether the disk or a quota is used up, which SQLite calls `FullError` for some writes only."""
    no_room = {errno.ENOSPC, errno.EDQUOT}
    if isinstance(failure, apsw.IOError):
        index_cannot_grow = getattr(failure, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
        return index_cannot_grow or system_errno in no_room
    return isinstance(failure, apsw.FullError) or (isinstance(failure, OSError) and failure.errno in no_room)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what may go wrong while opening `path` into one sentence for the operator."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError, apsw.FormatError) as failure:
        raise _damaged(path, str(failure)) from failure
    except (apsw.Error, OSError) as failure:
        reason = (failure.strerror if isinstance(failure, OSError) else None) or str(failure)
        if is_full(failure):
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
