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


class ResponsePage(Struct, frozen=True, kw_only=True):
    """One page of a list: the heads of responses in the order asked for, and whether more follow.

    A head has no output, and of the input the last item alone: it tells what the response answers, and is one item
    however long the input was.
    """

    responses: tuple[StoredResponse, ...]
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


class StoredEvent(Struct, frozen=True):
    """An event as it goes over the wire: its number, its type, and its JSON."""

    number: int
    type: str
    body: bytes


class Lease(Struct, frozen=True):
    """The right of one process to drive a run: a name nobody else has, and for how many seconds."""

    holder: str
    seconds: float


class StoredRun(Struct, frozen=True, kw_only=True):
    """What it takes to go on with a background run elsewhere: the checked request, and what the loop noted last."""

    request: bytes
    progress: bytes
    streamed: bool = False
    """Whether its events may be asked for."""


class ClaimedRun(Struct, frozen=True, kw_only=True):
    """A run that changed hands. Writes go through with this `fence` only; `attempt` counts those who drove it.

    Its events are for `Store.events` to read.
    """

    owner: str
    fence: int
    attempt: int
    response: StoredResponse
    run: StoredRun


class RunState(Struct, frozen=True, kw_only=True):
    """Where a background run stands. `events` is how many are kept: none once they were pruned."""

    streamed: bool
    ended: bool
    events: int


class StoredAnswer(Struct, frozen=True):
    """An HTTP answer, to be given again as it was. `headers` is JSON: pairs of name and value."""

    status: int
    headers: bytes
    body: bytes


Reservation = Literal["reserved", "in use", "other request"]
"""What became of the wish to answer under a key, when there is no answer yet."""


class Store(Protocol):
    """Durable state. Safe for concurrent use from one event loop; raises `StorageFailed`, never a driver's error."""

    async def start(self) -> None:
        """Open, migrate, recover. Raises `StartupError` with the fix (newer schema, second writer, corrupt file)."""

    async def stop(self) -> None:
        """Finish what was accepted, then close. Idempotent."""

    async def save(
        self,
        owner: str,
        response: StoredResponse,
        *,
        fence: int | None = None,
        events: Sequence[StoredEvent] = (),
    ) -> None:
        """Keep a response with its items, all or nothing. When this returns, it survives `kill -9` and power loss.

        Saving an id again replaces all of it. A caller who is cancelled while waiting does not undo the save. With a
        `fence` it is the end of a background run, whose last `events` are kept with it; raises `Fenced` when the run
        has changed hands.

        A response with a `conversation` that is completed or incomplete has its input and output added there, once
        however often it is saved, but for items whose id is there already: they are passed over, because the
        response must not be lost for them. A response that has ended, however, gives back the lock that it holds. A
        conversation that is gone changes nothing about the save.
        """

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        """The response, or None when this owner has none of that id."""

    async def delete(self, owner: str, response_id: str) -> bool:
        """Remove the response and its items. False when there was none."""

    async def list_responses(
        self, owner: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ResponsePage:
        """A page of all responses, in the order in which their ids were first saved. `limit` is at least 1.

        Raises `UnknownCursor` when `after` names none of them.
        """

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

    async def begin(self, owner: str, response: StoredResponse, run: StoredRun, lease: Lease) -> int:
        """Keep a background run that is about to start, as `save` would. Gives the fence of its first holder."""

    async def append(
        self, owner: str, response_id: str, fence: int, events: Sequence[StoredEvent], progress: bytes | None
    ) -> None:
        """Keep the next events of a run, and what the loop notes with them. Raises `Fenced`."""

    async def events(self, owner: str, response_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        """Events with numbers above `after`, in order, at most `limit`."""

    async def run_state(self, owner: str, response_id: str) -> RunState | None:
        """None when the response is not there or was not made in the background."""

    async def renew(self, runs: Sequence[tuple[str, str]], lease: Lease) -> None:
        """Prolong the lease of these runs, each by its owner and id, as far as its holder has them."""

    async def claim(self, lease: Lease, *, limit: int) -> list[ClaimedRun]:
        """Take over runs that nobody drives, or whose lease ran out; oldest first."""

    async def take(self, owner: str, response_id: str, lease: Lease) -> ClaimedRun | None:
        """Take over one run, whoever drives it. None when it has ended or is not there."""

    async def release(self, owner: str, response_id: str, fence: int) -> None:
        """Let go of a run, so that the next one who claims gets it, and without counting this attempt.

        Nothing happens when it has changed hands.
        """

    async def prune(self, *, events_before: float | None, responses_before: float | None, limit: int) -> int:
        """Forget events of runs that ended, and responses that were made, before these Unix seconds.

        Runs that have not ended are left alone. At most `limit` of either kind go at once, so that others have their
        turn. Gives how many went.
        """

    async def find_item(self, owner: str, item_id: str) -> StoredItem | None:
        """The item of that id in any response, the newest one where several have it."""

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

    async def reserve(
        self, owner: str, key: str, fingerprint: bytes, *, holder: str, seconds: float
    ) -> Reservation | StoredAnswer:
        """Reserve an idempotency key for `holder`, who is about to answer the request of this fingerprint.

        "in use" while another holder answers that request, and its answer once there is one; "other request" when the
        key belongs to one of another fingerprint. A reservation ends by `complete`, by `free`, or by itself after
        `seconds` of the database's own clock; and at a start of the store, when its holder cannot be alive.
        """

    async def complete(self, owner: str, key: str, holder: str, answer: StoredAnswer, *, seconds: float) -> None:
        """Keep the answer for so many seconds, as durably as `save`. Nothing happens without the reservation."""

    async def free(self, owner: str, key: str, holder: str) -> None:
        """Give a reservation back. Nothing happens to one that is another's, or complete."""

    async def health(self) -> bool:
        """Whether a write would go through right now, as far as is known.

        Costs nothing while the last write went through; after one that failed, a small one is tried, for a second at
        most. False before `start` and after `stop`.
        """


class Fenced(Exception):
    """The run is driven by somebody else now, or is gone: its last holder may not write any more."""


class MissingAncestor(Exception):
    """A response further back in a chain was deleted. `args[0]` is its id."""


class UnknownCursor(Exception):
    """The `after` of a listing names no item in it. `args[0]` is the id."""


class TakenIds(Exception):
    """Items could not be added to a conversation because of their ids. `args[0]` is the set of those."""
