"""Compaction (wire contract, section 13): a long conversation becomes its own words and one sealed item.

The sealed item is self-contained: it holds all that stands for the conversation from then on, which is what system,
developer and user said, and a summary of the rest. In a context it replaces everything before it. Nothing is sampled,
sealed or opened here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import structs

from ore.core.sealing import NotOurs
from ore.errors import CONTEXT_TOO_LONG, InvalidRequest, ModelFailed
from ore.ids import NewId
from ore.protocol.content import MAX_ENCRYPTED
from ore.protocol.decoding import JsonObject
from ore.protocol.responses import Create

PURPOSE: Final = "compaction"

SUMMARY_TOKENS: Final = 2048
"""Tokens of a summary, at most; one that is cut there is still worth having."""

ASKED: Final = (
    "Summarize our conversation so far for yourself: what was done, found and decided, and what is still open. "
    "Leave out what I said word for word; I keep that. Write the summary only."
)
INTRODUCED: Final = "Summary of our conversation so far:\n"

_KEPT: Final = ("message", "additional_tools")

Open = Callable[[str], Any]
"""Opens a sealed text. Raises `NotOurs`."""


def refuse_all(_: str) -> Any:
    """An `Open` without a key."""
    raise NotOurs("there is no key")


QUICK: Final = {"effort": "none", "summary": None}


def question(new_id: NewId) -> JsonObject:
    """The item that asks for a summary of all before it."""
    return {
        "type": "message",
        "id": new_id("message"),
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": ASKED}],
    }


def summarising(create: Create, new_id: NewId) -> Create:
    """The request for a summary of what `create` holds: its context, and a question at its end. It is not stored."""
    return structs.replace(
        create,
        input=[*create.input, question(new_id)],
        tool_choice="none",
        store=False,
        compacts=False,
        truncation="auto",  # what is too long is what has to be compacted
        max_output_tokens=SUMMARY_TOKENS,
        reasoning=QUICK,
    )


def kept(context: Sequence[JsonObject]) -> list[JsonObject]:
    """The items that survive as they are: messages of everybody but the assistant, and the tools that were added."""
    return [item for item in context if item["type"] in _KEPT and item.get("role") != "assistant"]


def has_something_to_fold(context: Sequence[JsonObject]) -> bool:
    """Whether a compaction would make anything shorter: there is more than what is kept, and the last summary."""
    return any(
        not _is_summary(item) for item in context if item["type"] != "message" or item.get("role") == "assistant"
    )


def _is_summary(item: JsonObject) -> bool:
    parts = item["content"] if item["type"] == "message" else []
    return any(str(part.get("text", "")).startswith(INTRODUCED) for part in parts)


def window(context: Sequence[JsonObject], summary: str, new_id: NewId) -> list[JsonObject]:
    """What stands for a conversation: its kept items, then the summary as the assistant's words.

    Raises `ModelFailed` when there is none, and something that it would have stood for.
    """
    text = summary.strip()
    if not text and len(kept(context)) < len(context):
        raise ModelFailed(
            "The model gave no summary of this conversation. Send the request again, or to another model."
        )
    if not text:
        return kept(context)
    part = {"type": "output_text", "text": INTRODUCED + text, "annotations": [], "logprobs": []}
    said = {"type": "message", "id": new_id("message"), "status": "completed", "role": "assistant", "content": [part]}
    return [*kept(context), said]


def item(sealed: str, item_id: str) -> JsonObject:
    """The compaction item; nothing is sealed into it while it is being made.

    Raises `InvalidRequest` when it is too long to be sent back to us.
    """
    if len(sealed) > MAX_ENCRYPTED:
        message = "The messages of this conversation are too large to be compacted. Leave out images and files."
        raise InvalidRequest(message, code=CONTEXT_TOO_LONG, param="input")
    return {"type": "compaction", "id": item_id, "encrypted_content": sealed}


def newest(items: Sequence[JsonObject]) -> int | None:
    """Where the newest compaction item stands; one that was broken off holds nothing."""
    places = reversed(range(len(items)))
    return next((at for at in places if items[at]["type"] == "compaction" and items[at]["encrypted_content"]), None)


def unfold(items: list[JsonObject], opened: Open, param: str) -> list[JsonObject]:
    """The items from the newest compaction on, which gives way to what it holds.

    Raises `InvalidRequest` for an item that is not ours; `param` is its place.
    """
    at = newest(items)
    if at is None:
        return items
    try:
        return [*opened(items[at]["encrypted_content"]), *items[at + 1 :]]
    except NotOurs as problem:
        message = f"This compaction item cannot be opened here: {problem}. Send the conversation itself instead."
        raise InvalidRequest(message, code="invalid_encrypted_content", param=param) from None
