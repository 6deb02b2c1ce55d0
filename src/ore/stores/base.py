"""The seam between ORE and its database: `Store`.

A store saves what it is given: ids and times are made above it. Every row has an owner and every look-up is scoped by
one; another owner's row is simply not there. A store does not know the wire: it keeps encoded objects.
"""

from typing import Literal, Protocol

from msgspec import Struct


class StoredItem(Struct, frozen=True):
    """One item: its id, and its JSON exactly as it is shown on the wire."""

    id: str
    body: bytes


class StoredResponse(Struct, frozen=True, kw_only=True):
    """One response as it is kept.

    `envelope` is the response object's JSON with an empty `output`; `input` are the items of this request alone (not
    those of its predecessors) and `output` the items it made. Each item is stored once, so a chain of a thousand
    turns costs each turn its own items.
    """

    id: str
    created_at: int
    status: str
    previous_response_id: str | None = None
    envelope: bytes
    input: tuple[StoredItem, ...] = ()
    output: tuple[StoredItem, ...] = ()


class ItemPage(Struct, frozen=True, kw_only=True):
    """One page of a list: items in the order asked for, and whether more follow."""

    items: tuple[StoredItem, ...]
    has_more: bool


class Turn(Struct, frozen=True, kw_only=True):
    """One response of a chain, as history needs it."""

    id: str
    status: str
    input: tuple[StoredItem, ...]
    output: tuple[StoredItem, ...]


class Store(Protocol):
    """Durable state. Safe for concurrent use from one event loop; raises `StorageFailed`, never a driver's error."""

    async def start(self) -> None:
        """Open, migrate, recover. Raises `StartupError` with the fix (newer schema, second writer, corrupt file)."""

    async def stop(self) -> None:
        """Finish what was accepted, then close. Idempotent."""

    async def save(self, owner: str, response: StoredResponse) -> None:
        """Keep a response with its items, all or nothing. When this returns, it survives `kill -9` and power loss.

        Saving an id again replaces all of it. A caller who is cancelled while waiting does not undo the save.
        """

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        """The response, or None when this owner has none of that id."""

    async def delete(self, owner: str, response_id: str) -> bool:
        """Remove the response and its items. False when there was none."""

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        """The turns from the first ancestor to `response_id`, oldest first, each once.

        None when `response_id` itself is not there. Raises `MissingAncestor` when one further back was deleted.
        """

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        """A page over everything the model was given: the chain's earlier input and output, then this input.

        None when the response is not there. `limit` is at least 1. Ids may repeat, because clients choose those of
        what they send; `after` means the first match in the order asked for. Raises `UnknownCursor` when it names no
        item of the list. A deleted ancestor is left out, and with it all that stood before it.
        """

    async def health(self) -> bool:
        """Whether a write would go through right now, as far as is known.

        Costs nothing while the last write went through; after one that failed, a small one is tried, for a second at
        most. False before `start` and after `stop`.
        """


class MissingAncestor(Exception):
    """A response further back in a chain was deleted. `args[0]` is its id."""


class UnknownCursor(Exception):
    """The `after` of a listing names no item in it. `args[0]` is the id."""
