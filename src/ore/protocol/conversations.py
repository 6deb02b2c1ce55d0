"""Conversations (wire contract, section 15): the object, and the check of what clients send about one.

Items take the forms that they have in a request's `input`. A reference is refused: what it stands for could be gone
when the conversation is read. Whether an id is in the conversation already is for those to find out who add to it.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

from ore.errors import InvalidRequest, NotFound
from ore.ids import NewId
from ore.protocol.configuration import check_metadata
from ore.protocol.content import check_string
from ore.protocol.decoding import JsonObject, convert, quoted, refuse_unknown
from ore.protocol.items import check_item

T = TypeVar("T", bound=Struct)

MAX_ITEMS = 20
"""Items that one request may bring."""


class Conversation(Struct, frozen=True, kw_only=True):
    """The conversation object; its items are asked for by themselves."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class ConversationReference(Struct, frozen=True):
    """How a response names the conversation it was made in."""

    id: str


class CreateConversationBody(Struct, kw_only=True):
    """The body of `POST /conversations` as clients send it."""

    items: Annotated[list[Any], Meta(max_length=MAX_ITEMS)] | None = None
    metadata: JsonObject | None = None


class UpdateConversationBody(Struct, kw_only=True):
    """The body of `POST /conversations/{id}`: null empties the metadata."""

    metadata: JsonObject | None


class AddItemsBody(Struct, kw_only=True):
    """The body of `POST /conversations/{id}/items`."""

    items: Annotated[list[Any], Meta(min_length=1, max_length=MAX_ITEMS)]


class NewConversation(Struct, frozen=True):
    """A conversation that is to be made."""

    metadata: dict[str, str]
    items: list[JsonObject]


def check_new_conversation(body: JsonObject, new_id: NewId, *, strict_fields: bool = False) -> NewConversation:
    sent = _converted(body, CreateConversationBody, strict_fields)
    return NewConversation(check_metadata(sent.metadata or {}), _check_items(sent.items or [], new_id))


def check_metadata_update(body: JsonObject, *, strict_fields: bool = False) -> dict[str, str]:
    """The metadata from now on: all of it, because an update replaces it."""
    return check_metadata(_converted(body, UpdateConversationBody, strict_fields).metadata or {})


def check_new_items(body: JsonObject, new_id: NewId, *, strict_fields: bool = False) -> list[JsonObject]:
    """Items to add, completed, each with an id that no other one of them has."""
    return _check_items(_converted(body, AddItemsBody, strict_fields).items, new_id)


def check_conversation(value: str | JsonObject | None) -> str | None:
    """The `conversation` of a create request: an id, or an object with one."""
    if not isinstance(value, dict):
        return check_string(value, "conversation", 512) if value else None
    if value.get("id") in (None, ""):
        message = "Missing required parameter: 'conversation.id'."
        raise InvalidRequest(message, code="missing_required_parameter", param="conversation.id")
    return check_string(value["id"], "conversation.id", 512)


def no_conversation(conversation_id: str, *, param: str) -> NotFound:
    """The fault of naming, in `param`, a conversation that is not there."""
    return NotFound(f"Conversation with id {quoted(conversation_id)} not found.", param=param)


def with_free_ids(items: list[JsonObject], taken: Collection[str], new_id: NewId) -> list[JsonObject]:
    """The same items; what comes under an id of something else gets a new one, as in the history of a response."""
    used = set(taken)
    free = []
    for item in items:
        if item["id"] in used:
            item = {**item, "id": new_id(item["type"])}
        used.add(item["id"])
        free.append(item)
    return free


def _converted(body: JsonObject, kind: type[T], strict_fields: bool) -> T:
    if strict_fields:
        refuse_unknown(body, kind)
    return convert(body, kind)


def _check_items(values: list[Any], new_id: NewId) -> list[JsonObject]:
    return with_free_ids(
        [_check_item(value, f"items[{index}]", new_id) for index, value in enumerate(values)], (), new_id
    )


def _check_item(value: Any, at: str, new_id: NewId) -> JsonObject:
    item = check_item(value, at, new_id)
    if item["type"] == "item_reference":
        message = f"'{at}' is an item reference, which a conversation cannot hold: send the item itself."
        raise InvalidRequest(message, code="unsupported_value", param=at)
    return item
