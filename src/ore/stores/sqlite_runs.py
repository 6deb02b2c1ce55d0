"""Background runs and their events in SQLite: the statements, each within a transaction of the caller's.

Time is the database's own clock, so that processes on one database agree on it.
"""

from collections.abc import Sequence
from typing import Final

import apsw

from ore.stores import sqlite_responses as responses
from ore.stores.base import (
    ClaimedRun,
    Fenced,
    Lease,
    RunState,
    StoredEvent,
    StoredResponse,
    StoredRun,
)
from ore.stores.sqlite_file import rows

_NOW: Final = "unixepoch('subsec')"

_RUN: Final = "(SELECT seq FROM responses WHERE owner = ? AND id = ?)"

_EXPIRED: Final = f"""
SELECT responses.owner, responses.id FROM runs JOIN responses ON responses.seq = runs.response
WHERE runs.ended_at IS NULL AND runs.lease_until < {_NOW} ORDER BY runs.response LIMIT ?
"""

_TAKE: Final = f"""
UPDATE runs SET holder = ?, lease_until = {_NOW} + ?, fence = fence + 1, attempt = attempt + 1
WHERE response = {_RUN} AND ended_at IS NULL
RETURNING response, fence, attempt, streamed, progress, request
"""

_STATE: Final = f"""
SELECT streamed, ended_at IS NOT NULL, (SELECT count(*) FROM events WHERE events.response = runs.response)
FROM runs WHERE response = {_RUN}
"""


def begin(db: apsw.Connection, owner: str, response: StoredResponse, run: StoredRun, lease: Lease) -> int:
    responses.save(db, owner, response)
    db.execute(
        f"INSERT INTO runs (response, streamed, holder, lease_until, fence, attempt, progress, request) "
        f"VALUES ({_RUN}, ?, ?, {_NOW} + ?, 1, 1, ?, ?)",
        (owner, response.id, run.streamed, lease.holder, lease.seconds, run.progress, run.request),
    )
    return 1


def append(
    db: apsw.Connection,
    owner: str,
    response_id: str,
    fence: int,
    events: Sequence[StoredEvent],
    progress: bytes | None,
) -> None:
    run = _held(db, owner, response_id, fence)
    db.executemany(
        "INSERT INTO events (response, number, type, body) VALUES (?, ?, ?, ?)",
        ((run, event.number, event.type, event.body) for event in events),
    )
    if progress is not None:
        db.execute("UPDATE runs SET progress = ? WHERE response = ?", (progress, run))


def end(db: apsw.Connection, owner: str, response: StoredResponse, fence: int, events: Sequence[StoredEvent]) -> None:
    append(db, owner, response.id, fence, events, None)
    responses.save(db, owner, response)
    db.execute(
        f"UPDATE runs SET ended_at = {_NOW}, holder = NULL, progress = x'', request = x'' WHERE response = {_RUN}",
        (owner, response.id),
    )


def read_events(db: apsw.Connection, owner: str, response_id: str, after: int, limit: int) -> list[StoredEvent]:
    found = rows(
        db,
        f"SELECT number, type, body FROM events WHERE response = {_RUN} AND number > ? ORDER BY number LIMIT ?",
        owner,
        response_id,
        after,
        limit,
    )
    return [StoredEvent(*row) for row in found]


def state(db: apsw.Connection, owner: str, response_id: str) -> RunState | None:
    row = db.execute(_STATE, (owner, response_id)).fetchone()
    return None if row is None else RunState(streamed=bool(row[0]), ended=bool(row[1]), events=row[2])


def renew(db: apsw.Connection, runs: Sequence[tuple[str, str]], lease: Lease) -> None:
    db.executemany(
        f"UPDATE runs SET lease_until = {_NOW} + ? WHERE response = {_RUN} AND ended_at IS NULL AND holder = ?",
        ((lease.seconds, owner, response_id, lease.holder) for owner, response_id in runs),
    )


def claim(db: apsw.Connection, lease: Lease, limit: int) -> list[ClaimedRun]:
    expired = rows(db, _EXPIRED, limit)
    claimed = [take(db, owner, response_id, lease) for owner, response_id in expired]
    return [run for run in claimed if run is not None]


def take(db: apsw.Connection, owner: str, response_id: str, lease: Lease) -> ClaimedRun | None:
    row = db.execute(_TAKE, (lease.holder, lease.seconds, owner, response_id)).fetchone()
    if row is None:
        return None
    _, fence, attempt, streamed, progress, request = row
    response = responses.load(db, owner, response_id)
    assert response is not None  # noqa: S101 - the run refers to it
    return ClaimedRun(
        owner=owner,
        fence=fence,
        attempt=attempt,
        response=response,
        run=StoredRun(request=request, progress=progress, streamed=bool(streamed)),
    )


def release(db: apsw.Connection, owner: str, response_id: str, fence: int) -> None:
    db.execute(
        f"UPDATE runs SET holder = NULL, lease_until = 0, attempt = attempt - 1 "
        f"WHERE response = {_RUN} AND fence = ? AND ended_at IS NULL",
        (owner, response_id, fence),
    )


def expire_all(db: apsw.Connection) -> None:
    """For a process that has the file for itself: whoever held a lease is dead."""
    db.execute("UPDATE runs SET holder = NULL, lease_until = 0 WHERE ended_at IS NULL AND lease_until > 0")


_OLD_EVENTS: Final = """
SELECT response FROM runs WHERE ended_at < ? AND EXISTS (SELECT 1 FROM events WHERE events.response = runs.response)
LIMIT ?
"""

_OLD_RESPONSES: Final = """
SELECT seq FROM responses
WHERE created_at < ? AND seq NOT IN (SELECT response FROM runs WHERE ended_at IS NULL) LIMIT ?
"""


def prune(db: apsw.Connection, events_before: float | None, responses_before: float | None, limit: int) -> int:
    runs = [] if events_before is None else rows(db, _OLD_EVENTS, events_before, limit)
    db.executemany("DELETE FROM events WHERE response = ?", runs)
    old = [] if responses_before is None else rows(db, _OLD_RESPONSES, responses_before, limit)
    db.executemany("DELETE FROM responses WHERE seq = ?", old)
    return len(runs) + len(old)


def _held(db: apsw.Connection, owner: str, response_id: str, fence: int) -> int:
    """The run's row, for the one who may write to it. Raises `Fenced`."""
    row = db.execute(
        f"SELECT response FROM runs WHERE response = {_RUN} AND fence = ? AND ended_at IS NULL",
        (owner, response_id, fence),
    ).fetchone()
    if row is None:
        raise Fenced(response_id)
    (run,) = row
    return int(run)
