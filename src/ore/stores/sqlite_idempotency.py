"""Idempotency keys in SQLite: the statements, each within a transaction of the caller's.

Time is the database's own clock. A row that has expired is not there, whether it has been removed yet or not.
"""

from typing import Final

import apsw

from ore.stores.base import Reservation, StoredAnswer
from ore.stores.sqlite_file import rows

_NOW: Final = "unixepoch('subsec')"

REMOVED_AT_ONCE: Final = 100
"""Expired rows that one reservation removes: more than come, and too few to keep others waiting."""

_REMOVE: Final = f"""
DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency WHERE expires_at <= {_NOW} LIMIT ?)
"""

_RESERVE: Final = f"""
INSERT INTO idempotency (owner, key, fingerprint, holder, expires_at) VALUES (?1, ?2, ?3, ?4, {_NOW} + ?5)
ON CONFLICT (owner, key) DO UPDATE SET
    fingerprint = ?3, holder = ?4, expires_at = {_NOW} + ?5, status = NULL, headers = NULL, body = NULL
WHERE expires_at <= {_NOW}
"""

_COMPLETE: Final = f"""
UPDATE idempotency SET holder = NULL, expires_at = {_NOW} + ?4, status = ?5, headers = ?6, body = ?7
WHERE owner = ?1 AND key = ?2 AND holder = ?3 AND expires_at > {_NOW}
"""


def reserve(
    db: apsw.Connection, owner: str, key: str, fingerprint: bytes, holder: str, seconds: float
) -> Reservation | StoredAnswer:
    db.execute(_REMOVE, (REMOVED_AT_ONCE,))
    db.execute(_RESERVE, (owner, key, fingerprint, holder, seconds))
    if db.changes():
        return "reserved"
    ((first, held_by, status, headers, body),) = rows(
        db, "SELECT fingerprint, holder, status, headers, body FROM idempotency WHERE owner = ? AND key = ?", owner, key
    )
    if first != fingerprint:
        return "other request"
    return "in use" if held_by is not None else StoredAnswer(status, headers, body)


def complete(db: apsw.Connection, owner: str, key: str, holder: str, answer: StoredAnswer, seconds: float) -> None:
    db.execute(_COMPLETE, (owner, key, holder, seconds, answer.status, answer.headers, answer.body))


def free(db: apsw.Connection, owner: str, key: str, holder: str) -> None:
    db.execute("DELETE FROM idempotency WHERE owner = ? AND key = ? AND holder = ?", (owner, key, holder))


def free_all(db: apsw.Connection) -> None:
    """For a process that has the file for itself: whoever reserved a key is dead."""
    db.execute(f"DELETE FROM idempotency WHERE holder IS NOT NULL OR expires_at <= {_NOW}")
