"""What the tests of stores share: values to save, and a model of what a store must answer."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ore.stores.base import (
    ItemPage,
    MissingAncestor,
    Reservation,
    ResponsePage,
    Store,
    StoredAnswer,
    StoredConversation,
    StoredItem,
    StoredResponse,
    TakenIds,
    Turn,
    UnknownCursor,
)
from ore.stores.sqlite import SQLiteStore

AnyStore = TypeVar("AnyStore", bound=Store)
StoreFactory = Callable[[], Store]
"""Makes a store that was not started; each one it makes has the same data."""


def sqlite_stores(folder: Path) -> StoreFactory:
    return lambda: SQLiteStore(folder / "ore.db")


KINDS: dict[str, Callable[[Path], StoreFactory]] = {"sqlite": sqlite_stores}
"""Which stores the shared suite is run against: a kind that is added here must pass all of it."""


@asynccontextmanager
async def running(store: AnyStore) -> AsyncIterator[AnyStore]:
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def items(*ids: str, mark: str = "") -> tuple[StoredItem, ...]:
    return tuple(StoredItem(one, f'{{"id":"{one}","mark":"{mark}"}}'.encode()) for one in ids)


def response(
    id: str,
    previous: str | None = None,
    *,
    conversation: str | None = None,
    given: tuple[str, ...] | None = None,
    made: tuple[str, ...] | None = None,
    status: str = "completed",
    mark: str = "",
) -> StoredResponse:
    """A response with one input and one output item, named after it, unless the test names others."""
    return StoredResponse(
        id=id,
        created_at=1_700_000_000,
        status=status,
        previous_response_id=previous,
        conversation=conversation,
        envelope=f'{{"id":"{id}","mark":"{mark}"}}'.encode(),
        input=items(*(f"{id}_in",) if given is None else given, mark=mark),
        output=items(*(f"{id}_out",) if made is None else made, mark=mark),
    )


def conversation(id: str, mark: str = "") -> StoredConversation:
    return StoredConversation(id=id, created_at=1_700_000_000, metadata=f'{{"mark":"{mark}"}}'.encode())


@dataclass
class Kept:
    """A conversation of the model: its items by their places, and who holds it since which place."""

    about: StoredConversation
    items: dict[int, StoredItem] = field(default_factory=dict)
    last: int = 0
    holder: str | None = None
    expired: bool = True
    held_after: int = 0

    def add(self, items: Sequence[StoredItem]) -> None:
        for item in items:
            self.last += 1
            self.items[self.last] = item

    def place_of(self, id: str) -> int | None:
        return next((place for place, item in self.items.items() if item.id == id), None)

    def unlock(self, holder: str) -> None:
        if self.holder == holder:
            self.holder, self.expired = None, True


@dataclass
class Keyed:
    """An idempotency key of the model: whose it is, and the answer that is kept under it."""

    fingerprint: bytes
    holder: str
    expired: bool
    answer: StoredAnswer | None = None


@dataclass
class Joined:
    """What a response has to do with a conversation: where its own items begin, and whether they were added."""

    id: str
    kept: Kept | None
    after: int
    appended: bool = False


class Model:
    """A store for one owner, as short as its contract."""

    def __init__(self) -> None:
        self.responses: dict[str, StoredResponse] = {}
        self.conversations: dict[str, Kept] = {}
        self.joined: dict[str, Joined] = {}
        self.keys: dict[str, Keyed] = {}

    def save(self, response: StoredResponse) -> None:
        self.responses[response.id] = response
        joined = self.joined.get(response.id)
        if joined is not None and joined.id != response.conversation:
            del self.joined[response.id]
        if response.conversation is not None:
            self._join(response, response.conversation)

    def _join(self, response: StoredResponse, id: str) -> None:
        kept = self.conversations.get(id)
        after = 0 if kept is None else kept.held_after if kept.holder == response.id else kept.last
        joined = self.joined.setdefault(response.id, Joined(id, kept, after))
        if response.status in ("completed", "incomplete") and joined.kept is not None and not joined.appended:
            joined.appended = True
            for item in response.input + response.output:
                if joined.kept.place_of(item.id) is None:
                    joined.kept.add([item])
        if kept is not None and response.status not in ("queued", "in_progress"):
            kept.unlock(response.id)

    def load(self, id: str) -> StoredResponse | None:
        return self.responses.get(id)

    def list_responses(self, limit: int, order: Literal["asc", "desc"], after: str | None) -> ResponsePage:
        listing = list(self.responses.values())
        if order == "desc":
            listing.reverse()
        ids = [one.id for one in listing]
        if after is not None and after not in ids:
            raise UnknownCursor(after)
        rest = listing[ids.index(after) + 1 :] if after is not None else listing
        heads = tuple(msgspec.structs.replace(one, input=one.input[-1:], output=()) for one in rest[:limit])
        return ResponsePage(responses=heads, has_more=len(rest) > limit)

    def delete(self, id: str) -> bool:
        self.joined.pop(id, None)
        return self.responses.pop(id, None) is not None

    def _walk(self, id: str) -> tuple[list[StoredResponse], str | None]:
        turns: list[StoredResponse] = []
        at: str | None = id
        while at is not None and at not in [turn.id for turn in turns]:
            if at not in self.responses:
                return turns, at
            turns.insert(0, self.responses[at])
            at = turns[0].previous_response_id
        return turns, None

    def _before(self, root: StoredResponse) -> tuple[StoredItem, ...]:
        joined = self.joined.get(root.id)
        if root.previous_response_id is not None or joined is None or joined.kept is None:
            return ()
        return tuple(item for place, item in joined.kept.items.items() if place <= joined.after)

    def chain(self, id: str) -> list[Turn] | None:
        turns, missing = self._walk(id)
        if turns and missing is not None:
            raise MissingAncestor(missing)
        chain = [Turn(id=t.id, status=t.status, input=t.input, output=t.output) for t in turns]
        if turns and (before := self._before(turns[0])):
            chain.insert(0, Turn(id=turns[0].conversation or "", status="completed", input=before, output=()))
        return chain or None

    def input_items(self, id: str, limit: int, order: Literal["asc", "desc"], after: str | None) -> ItemPage | None:
        turns, _ = self._walk(id)
        if not turns:
            return None
        earlier = [item for turn in turns[:-1] for item in turn.input + turn.output]
        return page([*self._before(turns[0]), *earlier, *turns[-1].input], limit, order, after)

    def create_conversation(self, about: StoredConversation, items: Sequence[StoredItem] = ()) -> None:
        self.conversations[about.id] = Kept(about)
        self.conversations[about.id].add(items)

    def load_conversation(self, id: str) -> StoredConversation | None:
        kept = self.conversations.get(id)
        return kept and kept.about

    def update_conversation(self, id: str, metadata: bytes) -> StoredConversation | None:
        kept = self.conversations.get(id)
        if kept is not None:
            kept.about = StoredConversation(id=id, created_at=kept.about.created_at, metadata=metadata)
        return kept and kept.about

    def delete_conversation(self, id: str) -> bool:
        return self.conversations.pop(id, None) is not None

    def add_conversation_items(self, id: str, items: Sequence[StoredItem]) -> bool:
        kept = self.conversations.get(id)
        if kept is None:
            return False
        ids = [item.id for item in items]
        if taken := {one for one in ids if ids.count(one) > 1 or kept.place_of(one) is not None}:
            raise TakenIds(taken)
        kept.add(items)
        return True

    def conversation_items(self, id: str, holder: str | None = None) -> tuple[StoredItem, ...] | None:
        kept = self.conversations.get(id)
        if kept is None:
            return None
        last = kept.held_after if holder is not None and kept.holder == holder else kept.last
        return tuple(item for place, item in kept.items.items() if place <= last)

    def list_conversation_items(
        self, id: str, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        found = self.conversation_items(id)
        return None if found is None else page(list(found), limit, order, after)

    def conversation_item(self, id: str, item_id: str) -> StoredItem | None:
        return next((item for item in self.conversation_items(id) or () if item.id == item_id), None)

    def delete_conversation_item(self, id: str, item_id: str) -> bool:
        kept = self.conversations.get(id)
        place = None if kept is None else kept.place_of(item_id)
        return kept is not None and place is not None and kept.items.pop(place) is not None

    def lock_conversation(self, id: str, holder: str, seconds: float) -> bool | None:
        kept = self.conversations.get(id)
        if kept is None:
            return None
        if kept.holder != holder:
            if not kept.expired:
                return False
            kept.holder, kept.held_after = holder, kept.last
        kept.expired = seconds <= 0
        return True

    def unlock_conversation(self, id: str, holder: str) -> None:
        if id in self.conversations:
            self.conversations[id].unlock(holder)

    def reserve(self, key: str, fingerprint: bytes, holder: str, seconds: float) -> Reservation | StoredAnswer:
        found = self.keys.get(key)
        if found is None or found.expired:
            self.keys[key] = Keyed(fingerprint, holder, seconds <= 0)
            return "reserved"
        if found.fingerprint != fingerprint:
            return "other request"
        return found.answer or "in use"

    def complete(self, key: str, holder: str, answer: StoredAnswer, seconds: float) -> None:
        found = self.keys.get(key)
        if found is not None and found.answer is None and found.holder == holder and not found.expired:
            found.answer, found.expired = answer, seconds <= 0

    def free(self, key: str, holder: str) -> None:
        found = self.keys.get(key)
        if found is not None and found.answer is None and found.holder == holder:
            del self.keys[key]


def page(listing: list[StoredItem], limit: int, order: Literal["asc", "desc"], after: str | None) -> ItemPage:
    if order == "desc":
        listing = listing[::-1]
    ids = [item.id for item in listing]
    if after is not None and after not in ids:
        raise UnknownCursor(after)
    rest = listing[ids.index(after) + 1 :] if after is not None else listing
    return ItemPage(items=tuple(rest[:limit]), has_more=len(rest) > limit)
