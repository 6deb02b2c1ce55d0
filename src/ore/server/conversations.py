"""The endpoints of conversations: each reads its request, asks the store, and answers. Runs are none of theirs.

A conversation may be read, changed and deleted while a response runs in it: that response goes on with what it was
given at its start.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route

from ore.errors import NotFound
from ore.ids import NewId
from ore.protocol.configuration import check_include
from ore.protocol.conversations import (
    Conversation,
    check_metadata_update,
    check_new_conversation,
    check_new_items,
    no_conversation,
    with_free_ids,
)
from ore.protocol.decoding import JsonObject, quoted
from ore.protocol.events import encode
from ore.server.answers import item_list, json_response, unknown_cursor
from ore.server.reading import OWNER, array, checked, page_query
from ore.stores.base import ItemPage, Store, StoredConversation, StoredItem, TakenIds, UnknownCursor

T = TypeVar("T")


class ConversationEndpoints:
    """All endpoints about conversations, over one store."""

    def __init__(self, *, store: Store, new_id: NewId, now: Callable[[], int], strict_fields: bool) -> None:
        self._store = store
        self._new_id = new_id
        self._now = now
        self._strict_fields = strict_fields

    def routes(self) -> list[Route]:
        """Ids of items are chosen by clients and may contain slashes."""
        one = "/v1/conversations/{conversation_id}"
        table = [
            ("POST", "/v1/conversations", self.create),
            ("GET", one, self.retrieve),
            ("POST", one, self.update),
            ("DELETE", one, self.delete),
            ("POST", f"{one}/items", self.add_items),
            ("GET", f"{one}/items", self.list_items),
            ("GET", f"{one}/items/{{item_id:path}}", self.retrieve_item),
            ("DELETE", f"{one}/items/{{item_id:path}}", self.delete_item),
        ]
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]

    async def create(self, request: Request) -> HTTPResponse:
        """`POST /conversations`: with its first items, if there are any."""
        check = partial(check_new_conversation, new_id=self._new_id, strict_fields=self._strict_fields)
        new = await checked(request, check)
        conversation_id = self._new_id("conversation")
        made = StoredConversation(id=conversation_id, created_at=self._now(), metadata=encode(new.metadata))
        await self._store.create_conversation(OWNER, made, _to_stored(new.items))
        return _shown(made)

    async def retrieve(self, request: Request) -> HTTPResponse:
        """`GET /conversations/{id}`."""
        conversation_id = request.path_params["conversation_id"]
        return _shown(_there(await self._store.load_conversation(OWNER, conversation_id), conversation_id))

    async def update(self, request: Request) -> HTTPResponse:
        """`POST /conversations/{id}`: other metadata."""
        conversation_id = request.path_params["conversation_id"]
        metadata = await checked(request, partial(check_metadata_update, strict_fields=self._strict_fields))
        found = await self._store.update_conversation(OWNER, conversation_id, encode(metadata))
        return _shown(_there(found, conversation_id))

    async def delete(self, request: Request) -> HTTPResponse:
        """`DELETE /conversations/{id}`: gone with its items; a second time is a 404. Responses made in it stay."""
        conversation_id = request.path_params["conversation_id"]
        if not await self._store.delete_conversation(OWNER, conversation_id):
            raise no_conversation(conversation_id, param="conversation_id")
        return json_response(encode({"id": conversation_id, "object": "conversation.deleted", "deleted": True}))

    async def add_items(self, request: Request) -> HTTPResponse:
        """`POST /conversations/{id}/items`: all or none; the answer shows them as they are kept."""
        conversation_id = request.path_params["conversation_id"]
        check_include(array(request, "include"))
        check = partial(check_new_items, new_id=self._new_id, strict_fields=self._strict_fields)
        added = await self._added(conversation_id, await checked(request, check))
        return item_list(ItemPage(items=added, has_more=False))

    async def list_items(self, request: Request) -> HTTPResponse:
        """`GET /conversations/{id}/items`: a page at a time, newest first unless asked otherwise."""
        conversation_id = request.path_params["conversation_id"]
        check_include(array(request, "include"))
        limit, order, after = page_query(request)
        try:
            page = await self._store.list_conversation_items(
                OWNER, conversation_id, limit=limit, order=order, after=after
            )
        except UnknownCursor:
            raise unknown_cursor(after) from None
        return item_list(_there(page, conversation_id))

    async def retrieve_item(self, request: Request) -> HTTPResponse:
        """`GET /conversations/{id}/items/{item_id}`."""
        conversation_id, item_id = request.path_params["conversation_id"], request.path_params["item_id"]
        check_include(array(request, "include"))
        found = await self._store.conversation_item(OWNER, conversation_id, item_id)
        if found is None:
            _there(await self._store.load_conversation(OWNER, conversation_id), conversation_id)
            raise _no_item(item_id)
        return json_response(found.body)

    async def delete_item(self, request: Request) -> HTTPResponse:
        """`DELETE /conversations/{id}/items/{item_id}`: the answer is the conversation."""
        conversation_id, item_id = request.path_params["conversation_id"], request.path_params["item_id"]
        found = _there(await self._store.load_conversation(OWNER, conversation_id), conversation_id)
        if not await self._store.delete_conversation_item(OWNER, conversation_id, item_id):
            raise _no_item(item_id)
        return _shown(found)

    async def _added(self, conversation_id: str, items: list[JsonObject]) -> tuple[StoredItem, ...]:
        """Add items. Those whose id the conversation has already get new ones, and all are tried again."""
        while True:
            stored = _to_stored(items)
            try:
                if not await self._store.add_conversation_items(OWNER, conversation_id, stored):
                    raise no_conversation(conversation_id, param="conversation_id")
            except TakenIds as taken:
                items = with_free_ids(items, taken.args[0], self._new_id)
            else:
                return stored


def _to_stored(items: list[JsonObject]) -> tuple[StoredItem, ...]:
    return tuple(StoredItem(item["id"], encode(item)) for item in items)


def _shown(stored: StoredConversation) -> HTTPResponse:
    metadata = msgspec.json.decode(stored.metadata)
    return json_response(encode(Conversation(id=stored.id, created_at=stored.created_at, metadata=metadata)))


def _there(found: T | None, conversation_id: str) -> T:
    """What the store found in a conversation, or the 404 when there is no such conversation."""
    if found is None:
        raise no_conversation(conversation_id, param="conversation_id")
    return found


def _no_item(item_id: str) -> NotFound:
    return NotFound(f"Item with id {quoted(item_id)} not found.", param="item_id")
