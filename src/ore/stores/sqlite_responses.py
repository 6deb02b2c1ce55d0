"""Responses and their items in SQLite: the statements, each within a transaction of the caller's.

What a response has to do with a conversation is in `sqlite_conversations`.
"""

import json
from operator import itemgetter
from typing import Final, Literal, NamedTuple

import apsw

from ore.stores import sqlite_conversations as conversations
from ore.stores.base import (
    ItemPage,
    MissingAncestor,
    ResponsePage,
    StoredItem,
    StoredResponse,
    Turn,
    UnknownCursor,
)
from ore.stores.chain_memory import ChainMemory
from ore.stores.sqlite_file import rows

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

# `+owner`: in the order of `seq` a page is found at once; by the index on the owner, all of them would be sorted first.
_HEADS: Final = {
    "desc": """
SELECT seq, id, created_at, status, previous_response_id, envelope FROM responses
WHERE +owner = ?1 AND (?2 IS NULL OR seq < ?2) ORDER BY seq DESC LIMIT ?3
""",
    "asc": """
SELECT seq, id, created_at, status, previous_response_id, envelope FROM responses
WHERE +owner = ?1 AND (?2 IS NULL OR seq > ?2) ORDER BY seq LIMIT ?3
""",
}
_LAST_INPUT: Final = """
SELECT id, body FROM items WHERE response = ? AND direction = 0 ORDER BY position DESC LIMIT 1
"""

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


_FIND_ITEM: Final = """
SELECT items.body FROM items JOIN responses ON responses.seq = items.response
WHERE items.id = ? AND responses.owner = ? ORDER BY items.seq DESC LIMIT 1
"""
_BODY: Final = "SELECT body FROM items WHERE seq = ?"

_UNENDED: Final = ("queued", "in_progress")  # as in the triggers: saving one of these again is no rewriting
_OUTPUT: Final = 1  # `items.direction`; 0 is input


class _Link(NamedTuple):
    """A response as a member of its chain."""

    seq: int
    id: str
    status: str
    previous: str | None


class _Entry(NamedTuple):
    """An item as a member of a listing, and the statement that gives its body for its `seq`."""

    id: str
    seq: int
    body: str


def save(db: apsw.Connection, owner: str, response: StoredResponse) -> None:
    ((seq,),) = rows(
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
    conversations.saved(db, owner, seq, response)


def delete(db: apsw.Connection, owner: str, response_id: str) -> bool:
    db.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, response_id))
    return db.changes() > 0


def load(db: apsw.Connection, owner: str, response_id: str) -> StoredResponse | None:
    found = rows(
        db,
        "SELECT seq, created_at, status, previous_response_id, envelope FROM responses WHERE owner = ? AND id = ?",
        owner,
        response_id,
    )
    if not found:
        return None
    ((seq, created_at, status, previous, envelope),) = found
    ((given, made),) = _items(db, [seq])
    return StoredResponse(
        id=response_id,
        created_at=created_at,
        status=status,
        previous_response_id=previous,
        conversation=conversations.of(db, seq),
        envelope=envelope,
        input=given,
        output=made,
    )


def page(db: apsw.Connection, owner: str, limit: int, order: Literal["asc", "desc"], after: str | None) -> ResponsePage:
    begin = None
    if after is not None:
        found = rows(db, _LINK, owner, after)
        if not found:
            raise UnknownCursor(after)
        begin = _Link(*found[0]).seq
    found = rows(db, _HEADS[order], owner, begin, limit + 1)
    return ResponsePage(responses=tuple(_head(db, *row) for row in found[:limit]), has_more=len(found) > limit)


def _head(
    db: apsw.Connection, seq: int, response_id: str, created_at: int, status: str, previous: str | None, envelope: bytes
) -> StoredResponse:
    return StoredResponse(
        id=response_id,
        created_at=created_at,
        status=status,
        previous_response_id=previous,
        conversation=conversations.of(db, seq),
        envelope=envelope,
        input=tuple(StoredItem(*row) for row in rows(db, _LAST_INPUT, seq)),
    )


def _items(db: apsw.Connection, seqs: list[int]) -> list[tuple[tuple[StoredItem, ...], tuple[StoredItem, ...]]]:
    """The input and the output of each response, in order."""
    lists: list[tuple[list[StoredItem], list[StoredItem]]] = [([], []) for _ in seqs]
    for place, direction, _, item_id, body in sorted(rows(db, _BODIES, json.dumps(seqs)), key=_order):
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


def chain(db: apsw.Connection, owner: str, response_id: str, memory: ChainMemory) -> list[Turn] | None:
    """Read what is not remembered. Only what deleting or rewriting a response could change is remembered."""
    ((version,),) = rows(db, "SELECT version FROM history")
    return (
        memory.find(owner, response_id, version)
        or _continued(db, owner, response_id, memory, version)
        or _whole(db, owner, response_id, memory, version)
    )


def _continued(
    db: apsw.Connection, owner: str, response_id: str, memory: ChainMemory, version: int
) -> list[Turn] | None:
    """A chain that is remembered but for its last turn; None when it is not."""
    links = [_Link(*row) for row in rows(db, _LINK, owner, response_id)]
    previous = links[0].previous if links else None
    turns = None if previous is None else memory.find(owner, previous, version)
    if previous is None or turns is None:
        return None
    (newest,) = _turns(db, links)
    if newest.status not in _UNENDED:
        memory.grow(owner, previous, newest, version)
    turns.append(newest)
    return turns


def _whole(db: apsw.Connection, owner: str, response_id: str, memory: ChainMemory, version: int) -> list[Turn] | None:
    links, missing = _walk(db, owner, response_id)
    if not links:
        return None
    if missing is not None:
        raise MissingAncestor(missing)
    turns = _turns(db, links)
    if links[0].previous is not None:  # a circle
        return turns
    before = conversations.turn_before(db, links[0].seq)
    if before is not None:
        return [before, *turns]
    if all(link.status not in _UNENDED for link in links):
        memory.keep(owner, turns, version)
    return turns


def _turns(db: apsw.Connection, links: list[_Link]) -> list[Turn]:
    items = _items(db, [link.seq for link in links])
    return [
        Turn(id=link.id, status=link.status, input=given, output=made)
        for link, (given, made) in zip(links, items, strict=True)
    ]


def input_items(
    db: apsw.Connection, owner: str, response_id: str, limit: int, order: Literal["asc", "desc"], after: str | None
) -> ItemPage | None:
    links, _ = _walk(db, owner, response_id)
    if not links:
        return None
    listing = _listing(db, links)
    if order == "desc":
        listing.reverse()
    begin = 0
    if after is not None:
        ids = [entry.id for entry in listing]
        if after not in ids:
            raise UnknownCursor(after)
        begin = ids.index(after) + 1
    page = listing[begin : begin + limit]
    return ItemPage(
        items=tuple(StoredItem(entry.id, rows(db, entry.body, entry.seq)[0][0]) for entry in page),
        has_more=begin + limit < len(listing),
    )


def _listing(db: apsw.Connection, links: list[_Link]) -> list[_Entry]:
    """All that the last response was given, oldest first, without any body."""
    last = len(links) - 1
    found = sorted(rows(db, _IDS, json.dumps([link.seq for link in links])), key=_order)
    before = conversations.ids_before(db, links[0].seq) if links[0].previous is None else []
    kept = [(item_id, seq) for place, direction, _, item_id, seq in found if (place, direction) != (last, _OUTPUT)]
    return [_Entry(*one, conversations.BODY) for one in before] + [_Entry(*one, _BODY) for one in kept]


def find_item(db: apsw.Connection, owner: str, item_id: str) -> StoredItem | None:
    row = db.execute(_FIND_ITEM, (item_id, owner)).fetchone()
    return None if row is None else StoredItem(item_id, row[0])
