"""The seam between ORE and its database: `Store`.

A store saves what it is given: ids and times are made above it. Every row has an owner and every look-up is scoped by
one; another owner's row is simply not there. A store does not know the wire: it keeps encoded objects.
"""

from collections.abc import Sequence
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
    turns costs each turn its own items. `conversation` is the id of the conversation it was made in, if any.
    """

    id: str
    created_at: int
    status: str
    previous_response_id: str | None = None
    conversation: str | None = None
    envelope: bytes
    input: tuple[StoredItem, ...] = ()
    output: tuple[StoredItem, ...] = ()


class StoredConversation(Struct, frozen=True, kw_only=True):
    """One conversation as it is kept, without its items. `metadata` is its JSON."""

    id: str
    created_at: int
    metadata: bytes


class ItemPage(Struct, frozen=True, kw_only=True):
    """One page of a list: items in the order asked for, and whether more follow."""

    items: tuple[StoredItem, ...]
    has_more: bool


class Turn(Struct, frozen=True, kw_only=True):
    """One response of a chain, as history needs it.

    Before a first response that was made in a conversation stands a turn of that conversation: its id, the status
    "completed", and as `input` the items that stood before the response's own.
    """

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

        A response with a `conversation` that is completed or incomplete has its input and output added there, once
        however often it is saved, but for items whose id is there already: they are passed over, because the
        response must not be lost for them. A response that has ended, however, gives back the lock that it holds. A
        conversation that is gone changes nothing about the save.
        """

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        """The response, or None when this owner has none of that id."""

    async def delete(self, owner: str, response_id: str) -> bool:
        """Remove the response and its items. False when there was none."""

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        """The turns from the first ancestor to `response_id`, oldest first, each once.

        None when `response_id` itself is not there. Raises `MissingAncestor` when one further back was deleted.

        A first ancestor that was made in a conversation comes after that conversation's items, as a turn of their
        own. They are those that stood there before its own items, and since it locked the conversation, if it did;
        without those deleted since, and without all of them when the conversation was deleted, or had none.
        """

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        """A page over everything the model was given: the chain's earlier input and output, then this input.

        What stood in a conversation before the first response is part of it, as in `chain`. None when the response
        is not there. `limit` is at least 1. Ids may repeat, because clients choose those of what they send; `after`
        means the first match in the order asked for. Raises `UnknownCursor` when it names no item of the list. A
        deleted ancestor is left out, and with it all that stood before it.
        """

    async def create_conversation(
        self, owner: str, conversation: StoredConversation, items: Sequence[StoredItem] = ()
    ) -> None:
        """Keep a new conversation with its first items, each with an id of its own. As durable as `save`."""

    async def load_conversation(self, owner: str, conversation_id: str) -> StoredConversation | None:
        """The conversation, or None when this owner has none of that id. So for all methods about conversations."""

    async def update_conversation(self, owner: str, conversation_id: str, metadata: bytes) -> StoredConversation | None:
        """Replace its metadata; gives the conversation as it is then."""

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Remove the conversation and its items. Responses made in it stay. False when there was none."""

    async def add_conversation_items(self, owner: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        """Add items at the end, all or none, in order. False when there is no such conversation.

        Raises `TakenIds` when some are there under the same id, or twice among `items`.
        """

    async def conversation_items(
        self, owner: str, conversation_id: str, *, holder: str | None = None
    ) -> tuple[StoredItem, ...] | None:
        """All of its items, oldest first. For the `holder` of its lock: those that stood there when it locked it."""

    async def list_conversation_items(
        self, owner: str, conversation_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        """A page of its items. `limit` is at least 1. Raises `UnknownCursor` when `after` names none of them."""

    async def conversation_item(self, owner: str, conversation_id: str, item_id: str) -> StoredItem | None:
        """One of its items."""

    async def delete_conversation_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        """Remove one of its items. False when it is not there."""

    async def lock_conversation(self, owner: str, conversation_id: str, holder: str, seconds: float) -> bool | None:
        """Keep it for the response `holder`: false while another one has it. None when there is no such conversation.

        The lock ends by `unlock_conversation`, by `save`, or by itself after `seconds` of the database's own clock,
        because the process of its holder may have died. It survives a restart: who resumes a run is the same holder,
        who may lock again and so keep it for longer. A lock keeps other responses away, and nothing else.
        """

    async def unlock_conversation(self, owner: str, conversation_id: str, holder: str) -> None:
        """Give the lock back, if `holder` has it."""

    async def health(self) -> bool:
        """Whether a write would go through right now, as far as is known.

        Costs nothing while the last write went through; after one that failed, a small one is tried, for a second at
        most. False before `start` and after `stop`.
        """


class MissingAncestor(Exception):
    """A response further back in a chain was deleted. `args[0]` is its id."""


class UnknownCursor(Exception):
    """The `after` of a listing names no item in it. `args[0]` is the id."""


class TakenIds(Exception):
    """Items could not be added to a conversation because of their ids. `args[0]` is the set of those."""
