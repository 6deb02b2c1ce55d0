"""What a run's model is given: the chain, a connection's memory and the input, put together by `ore.core.history`.

Looks up what the request only names (an earlier response, an item) and opens what clients carry for us. Nothing is
sampled or saved here.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from ore.core import compaction, history
from ore.core.history import Context
from ore.core.sealing import NotOurs, Sealer
from ore.errors import Conflict, InvalidRequest, NotFound
from ore.protocol.conversations import no_conversation
from ore.protocol.decoding import JsonObject, quoted
from ore.runs.run import Run
from ore.stores.base import MissingAncestor, Store

LOCK_MARGIN = 60.0
"""Seconds that a conversation stays locked beyond the time that its run may take."""

REASONING = "reasoning"
"""The purpose under which reasoning is sealed."""


async def context(run: Run, store: Store, sealer: Sealer, *, hold: bool = True) -> Context:
    """The context of a run. Raises `InvalidRequest` or `NotFound` for what is not there, not ours or does not pair.

    `hold`: keep other runs away from its conversation from now on; raises `Conflict` when one is there already.
    """
    earlier = [_readable(item, sealer, run.owner) for item in await _earlier(run, store, hold=hold)]
    if run.claimed is not None:  # what was taken in has been checked, and has its ids
        new: Sequence[JsonObject] = run.context.taken
    else:
        new = await _resolved(run, store, {item.get("id"): item for item in earlier})
    _check_reasoning(new, sealer, run.owner)
    opened = opens_compaction(sealer, run.owner)
    if run.link is None and run.create.previous_response_id is not None:
        return history.context([], [*earlier, *new], run.new_id, opened)
    source = "conversation" if run.create.conversation is not None else "previous_response_id"
    return history.context(earlier, new, run.new_id, opened, source=source)


async def _conversation(run: Run, store: Store, conversation_id: str, *, hold: bool) -> list[JsonObject]:
    """The items of a conversation. Raises when it is gone, or when it is to be held and another run has it."""
    if hold:
        await _hold(run, store, conversation_id)
    items = await store.conversation_items(run.owner, conversation_id, holder=run.id if hold else None)
    if items is None:
        raise no_conversation(conversation_id, param="conversation")
    return [msgspec.json.decode(item.body) for item in items]


async def _hold(run: Run, store: Store, conversation_id: str) -> None:
    run.locked = True  # even when this is cancelled: the lock is on its way
    held = await store.lock_conversation(run.owner, conversation_id, run.id, run.seconds + LOCK_MARGIN)
    run.locked = bool(held)
    if held is None:
        raise no_conversation(conversation_id, param="conversation")
    if not held:
        raise Conflict(
            "Another response is being made in this conversation. Send the request again when it has ended.",
            code="conversation_locked",
            param="conversation",
            headers={"retry-after": "1", "x-should-retry": "true"},
        )


async def _earlier(run: Run, store: Store, *, hold: bool) -> list[JsonObject]:
    """The items that come before the input, oldest first.

    A connection's memory comes first, unless the response is to be stored: the store then knows where its history is.
    What only the connection knows becomes part of the input, because nobody could look it up later.
    """
    response_id, conversation_id = run.create.previous_response_id, run.create.conversation
    if conversation_id is not None:
        return await _conversation(run, store, conversation_id, hold=hold)
    if response_id is None or (run.claimed is not None and run.link is None):
        return []
    known = run.remembered(response_id) if run.remembered is not None else None
    if known is not None and not run.create.store:
        return list(known)
    try:
        turns = await store.chain(run.owner, response_id)
    except MissingAncestor as missing:
        if known is None:
            raise history.previous_not_found(str(missing.args[0])) from None
        turns = None
    if turns:
        history.check_continuable(turns[-1].status, response_id)
        return [msgspec.json.decode(item.body) for turn in turns for item in (*turn.input, *turn.output)]
    if known is None:
        raise history.previous_not_found(response_id)
    run.link = None
    return list(known)


def _readable(item: JsonObject, sealer: Sealer, owner: str) -> JsonObject:
    """A stored item; without a seal that cannot be opened, because the key was lost, or it never was ours."""
    if item["type"] != "reasoning" or "encrypted_content" not in item:
        return item
    try:
        opened_reasoning(item, sealer, owner)
    except NotOurs:
        return {key: value for key, value in item.items() if key != "encrypted_content"}
    return item


async def _resolved(run: Run, store: Store, earlier: Mapping[object, JsonObject]) -> list[JsonObject]:
    """The input with the items that it only refers to. What the chain brings anyway is not there twice for that."""
    items = []
    for index, item in enumerate(run.create.input):
        if item["type"] != "item_reference":
            items.append(item)
        elif item["id"] in earlier:
            items.append(earlier[item["id"]])
        else:
            found = await store.find_item(run.owner, item["id"])
            if found is None:
                message = f"Item with id {quoted(item['id'])} not found. Send the item itself."
                raise NotFound(message, param=f"input[{index}].id")
            items.append(msgspec.json.decode(found.body))
    return items


def _check_reasoning(items: Sequence[JsonObject], sealer: Sealer, owner: str) -> None:
    for index, item in enumerate(items):
        if item["type"] == "reasoning" and "encrypted_content" in item:
            try:
                opened_reasoning(item, sealer, owner)
            except NotOurs as problem:
                raise InvalidRequest(
                    f"The encrypted reasoning of this item cannot be opened here: {problem}. Leave the item out.",
                    code="invalid_encrypted_content",
                    param=f"input[{index}].encrypted_content",
                ) from None


def opens_compaction(sealer: Sealer, owner: str) -> compaction.Open:
    """What opens this owner's compaction items."""
    return partial(sealer.open, purpose=compaction.PURPOSE, owner=owner)


def sealed_reasoning(sealer: Sealer, owner: str, text: str, state: str | None) -> str:
    """What a client carries of a reasoning item: its text, and the backend's state of it."""
    return sealer.seal({"text": text, "state": state}, purpose=REASONING, owner=owner)


def opened_reasoning(item: JsonObject, sealer: Sealer, owner: str) -> JsonObject:
    """A reasoning item with what was sealed into it: its text, and the backend's `state`. Raises `NotOurs`."""
    sealed = item.get("encrypted_content")
    if sealed is None:
        return item
    inside = sealer.open(sealed, purpose=REASONING, owner=owner)
    text = [{"type": "reasoning_text", "text": inside["text"]}] if inside["text"] else []
    return {**item, "content": item.get("content") or text, "state": inside["state"]}
