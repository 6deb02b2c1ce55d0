"""Conversations in SQLite: the statements, each within a transaction of the caller's.

An item's `seq` is its place: it grows with every insert and is never used again. A response that was made in a
conversation remembers the place behind which its own items begin, and so what it was given can be told later on.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import apsw

from ore.stores.base import ItemPage, StoredConversation, StoredItem, StoredResponse, Turn, UnknownCursor
from ore.stores.sqlite_file import rows

BODY: Final = "SELECT body FROM conversation_items WHERE seq = ?"

_APPENDED: Final = ("completed", "incomplete")
_ENDED: Final = (*_APPENDED, "failed", "cancelled")

_LOCK: Final = """
UPDATE conversations SET
    held_after = CASE WHEN holder IS ?1 THEN held_after ELSE ?2 END,
    held_until = unixepoch('subsec') + ?3,
    holder = ?1
WHERE seq = ?4 AND (holder IS NULL OR holder = ?1 OR held_until <= unixepoch('subsec'))
"""

_UNLOCK: Final = """
UPDATE conversations SET holder = NULL, held_until = NULL, held_after = NULL
WHERE owner = ? AND id = ? AND NOT deleted AND holder = ?
"""

# The place is found by the first save; later ones leave it as it is, also when there was no conversation.
_JOIN: Final = """
INSERT INTO conversation_responses (response, id, conversation, after, appended) VALUES (?, ?, ?, ?, 0)
ON CONFLICT (response) DO NOTHING
"""

_BEFORE: Final = """
SELECT {} FROM conversation_responses AS made
JOIN conversation_items AS items ON items.conversation = made.conversation AND items.seq <= made.after
WHERE made.response = ? ORDER BY items.seq
"""


def create(db: apsw.Connection, owner: str, conversation: StoredConversation, items: Sequence[StoredItem]) -> None:
    ((seq,),) = rows(
        db,
        "INSERT INTO conversations (owner, id, created_at, metadata) VALUES (?, ?, ?, ?) RETURNING seq",
        owner,
        conversation.id,
        conversation.created_at,
        conversation.metadata,
    )
    _insert(db, seq, items)


def load(db: apsw.Connection, owner: str, conversation_id: str) -> StoredConversation | None:
    statement = "SELECT created_at, metadata FROM conversations WHERE owner = ? AND id = ? AND NOT deleted"
    found = rows(db, statement, owner, conversation_id)
    return StoredConversation(id=conversation_id, created_at=found[0][0], metadata=found[0][1]) if found else None


def update(db: apsw.Connection, owner: str, conversation_id: str, metadata: bytes) -> StoredConversation | None:
    statement = "UPDATE conversations SET metadata = ? WHERE owner = ? AND id = ? AND NOT deleted"
    db.execute(statement, (metadata, owner, conversation_id))
    return load(db, owner, conversation_id)


def delete(db: apsw.Connection, owner: str, conversation_id: str) -> bool:
    """Gone for its owner; what responses were given there stays for as long as one of them does."""
    seq = _seq(db, owner, conversation_id)
    if seq is None:
        return False
    if rows(db, "SELECT 1 FROM conversation_responses WHERE conversation = ? LIMIT 1", seq):
        db.execute("UPDATE conversations SET deleted = 1 WHERE seq = ?", (seq,))
    else:
        db.execute("DELETE FROM conversations WHERE seq = ?", (seq,))
    return True


def add(db: apsw.Connection, owner: str, conversation_id: str, items: Sequence[StoredItem]) -> frozenset[str] | None:
    """Add all or nothing: the ids that forbid it, none when it was done. None when there is no such conversation."""
    seq = _seq(db, owner, conversation_id)
    if seq is None:
        return None
    seen: set[str] = set()
    taken: set[str] = set()
    for one in items:
        (taken if one.id in seen or _find(db, seq, one.id) is not None else seen).add(one.id)
    if not taken:
        _insert(db, seq, items)
    return frozenset(taken)


def all_items(
    db: apsw.Connection, owner: str, conversation_id: str, holder: str | None
) -> tuple[StoredItem, ...] | None:
    seq, last = _place(db, owner, conversation_id, holder)
    if seq is None:
        return None
    statement = "SELECT id, body FROM conversation_items WHERE conversation = ? AND seq <= ? ORDER BY seq"
    return tuple(StoredItem(*row) for row in rows(db, statement, seq, last))


def page(
    db: apsw.Connection,
    owner: str,
    conversation_id: str,
    limit: int,
    order: Literal["asc", "desc"],
    after: str | None,
) -> ItemPage | None:
    seq = _seq(db, owner, conversation_id)
    if seq is None:
        return None
    statement, at = ("seq > ? ORDER BY seq", 0) if order == "asc" else ("seq < ? ORDER BY seq DESC", 2**63 - 1)
    if after is not None:
        found = _find(db, seq, after)
        if found is None:
            raise UnknownCursor(after)
        at = found
    statement = f"SELECT id, body FROM conversation_items WHERE conversation = ? AND {statement} LIMIT ?"
    found_items = tuple(StoredItem(*row) for row in rows(db, statement, seq, at, limit + 1))
    return ItemPage(items=found_items[:limit], has_more=len(found_items) > limit)


def item(db: apsw.Connection, owner: str, conversation_id: str, item_id: str) -> StoredItem | None:
    seq = _seq(db, owner, conversation_id)
    found = None if seq is None else _find(db, seq, item_id)
    return None if found is None else StoredItem(item_id, rows(db, BODY, found)[0][0])


def delete_item(db: apsw.Connection, owner: str, conversation_id: str, item_id: str) -> bool:
    seq = _seq(db, owner, conversation_id)
    if seq is None:
        return False
    db.execute("DELETE FROM conversation_items WHERE conversation = ? AND id = ?", (seq, item_id))
    return db.changes() > 0


def lock(db: apsw.Connection, owner: str, conversation_id: str, holder: str, seconds: float) -> bool | None:
    seq = _seq(db, owner, conversation_id)
    if seq is None:
        return None
    db.execute(_LOCK, (holder, _last(db, seq), seconds, seq))
    return db.changes() > 0


def unlock(db: apsw.Connection, owner: str, conversation_id: str, holder: str) -> None:
    db.execute(_UNLOCK, (owner, conversation_id, holder))


# What a response has to do with the conversation it was made in


def saved(db: apsw.Connection, owner: str, response: int, kept: StoredResponse) -> None:
    """Note the place of a response that was saved as row `response`, add its items if it is time, and unlock."""
    db.execute("DELETE FROM conversation_responses WHERE response = ? AND id IS NOT ?", (response, kept.conversation))
    if kept.conversation is None:
        return
    db.execute(_JOIN, (response, kept.conversation, *_place(db, owner, kept.conversation, kept.id)))
    if kept.status in _APPENDED:
        _append(db, response, (*kept.input, *kept.output))
    if kept.status in _ENDED:
        unlock(db, owner, kept.conversation, kept.id)


def of(db: apsw.Connection, response: int) -> str | None:
    """The id of the conversation that a response was made in."""
    found = rows(db, "SELECT id FROM conversation_responses WHERE response = ?", response)
    return found[0][0] if found else None


def turn_before(db: apsw.Connection, response: int) -> Turn | None:
    """What is left of the items that stood before those of a response, as a turn. None when nothing is."""
    found = rows(db, _BEFORE.format("made.id, items.id, items.body"), response)
    if not found:
        return None
    items = tuple(StoredItem(item_id, body) for _, item_id, body in found)
    return Turn(id=found[0][0], status="completed", input=items, output=())


def ids_before(db: apsw.Connection, response: int) -> list[tuple[str, int]]:
    """The same items as `(id, seq)`, without any body."""
    return [(item_id, seq) for item_id, seq in rows(db, _BEFORE.format("items.id, items.seq"), response)]


def _place(db: apsw.Connection, owner: str, conversation_id: str, holder: str | None) -> tuple[int | None, int]:
    """The row of a conversation, and its last item: for the holder of its lock the one that was it at that time."""
    found = rows(
        db,
        "SELECT seq, CASE WHEN holder = ? THEN held_after END FROM conversations "
        "WHERE owner = ? AND id = ? AND NOT deleted",
        holder,
        owner,
        conversation_id,
    )
    if not found:
        return None, 0
    ((seq, after),) = found
    return seq, _last(db, seq) if after is None else after


def _append(db: apsw.Connection, response: int, items: Iterable[StoredItem]) -> None:
    due = rows(
        db,
        "UPDATE conversation_responses SET appended = 1 "
        "WHERE response = ? AND NOT appended AND conversation IS NOT NULL RETURNING conversation",
        response,
    )
    for (conversation,) in due:
        _insert(db, conversation, items, "ON CONFLICT (conversation, id) DO NOTHING")


def _insert(db: apsw.Connection, conversation: int, items: Iterable[StoredItem], conflict: str = "") -> None:
    statement = f"INSERT INTO conversation_items (conversation, id, body) VALUES (?, ?, ?) {conflict}"
    db.executemany(statement, ((conversation, one.id, one.body) for one in items))


def _seq(db: apsw.Connection, owner: str, conversation_id: str) -> int | None:
    found = rows(db, "SELECT seq FROM conversations WHERE owner = ? AND id = ? AND NOT deleted", owner, conversation_id)
    return found[0][0] if found else None


def _last(db: apsw.Connection, conversation: int) -> int:
    """The place of its last item; whatever is added from now on comes behind it."""
    ((last,),) = rows(db, "SELECT coalesce(max(seq), 0) FROM conversation_items WHERE conversation = ?", conversation)
    return int(last)


def _find(db: apsw.Connection, conversation: int, item_id: str) -> int | None:
    found = rows(db, "SELECT seq FROM conversation_items WHERE conversation = ? AND id = ?", conversation, item_id)
    return found[0][0] if found else None
