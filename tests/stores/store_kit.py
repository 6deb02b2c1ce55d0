"""What the tests of stores share: values to save, and a model of what a store must answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeVar

from ore.stores.base import ItemPage, MissingAncestor, Store, StoredItem, StoredResponse, Turn, UnknownCursor
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
        envelope=f'{{"id":"{id}","mark":"{mark}"}}'.encode(),
        input=items(*(f"{id}_in",) if given is None else given, mark=mark),
        output=items(*(f"{id}_out",) if made is None else made, mark=mark),
    )


class Model:
    """A store for one owner, as short as its contract."""

    def __init__(self) -> None:
        self.responses: dict[str, StoredResponse] = {}

    def save(self, response: StoredResponse) -> None:
        self.responses[response.id] = response

    def load(self, id: str) -> StoredResponse | None:
        return self.responses.get(id)

    def delete(self, id: str) -> bool:
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

    def chain(self, id: str) -> list[Turn] | None:
        turns, missing = self._walk(id)
        if turns and missing is not None:
            raise MissingAncestor(missing)
        return [Turn(id=t.id, status=t.status, input=t.input, output=t.output) for t in turns] or None

    def input_items(self, id: str, limit: int, order: Literal["asc", "desc"], after: str | None) -> ItemPage | None:
        turns, _ = self._walk(id)
        if not turns:
            return None
        listing = [item for turn in turns[:-1] for item in turn.input + turn.output] + list(turns[-1].input)
        if order == "desc":
            listing.reverse()
        ids = [item.id for item in listing]
        if after is not None and after not in ids:
            raise UnknownCursor(after)
        rest = listing[ids.index(after) + 1 :] if after is not None else listing
        return ItemPage(items=tuple(rest[:limit]), has_more=len(rest) > limit)
