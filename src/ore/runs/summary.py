"""A stored response in one line, for lists: an extension of ORE's, because the Responses API has none.

It decodes of a response no more than the line shows, however long the instructions and the tools are.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from ore.protocol.decoding import JsonObject
from ore.stores.base import StoredResponse

WORDS: Final = 100
"""Characters of its input that a summary shows at most."""


class ResponseSummary(Struct, frozen=True, kw_only=True):
    """One line of a list of responses, which only ORE has: what it answers and how it ended, without any item.

    `input` are the first words of the last thing that it was given; `output_tokens` is None while it runs.
    """

    id: str
    object: Literal["ore:response"] = "ore:response"
    created_at: int
    status: str
    model: str
    previous_response_id: str | None
    conversation: str | None
    input: str
    output_tokens: int | None


class _Tokens(Struct):
    output_tokens: int


class _Envelope(Struct):
    """Of an envelope what a summary needs; the rest is not even decoded."""

    model: str
    previous_response_id: str | None = None
    usage: _Tokens | None = None


def summarised(head: StoredResponse) -> ResponseSummary:
    """Of the head of a response, as the store lists it."""
    envelope = msgspec.json.decode(head.envelope, type=_Envelope)
    return ResponseSummary(
        id=head.id,
        created_at=head.created_at,
        status=head.status,
        model=envelope.model,
        previous_response_id=envelope.previous_response_id,
        conversation=head.conversation,
        input=first_words(msgspec.json.decode(head.input[-1].body)) if head.input else "",
        output_tokens=None if envelope.usage is None else envelope.usage.output_tokens,
    )


def first_words(item: JsonObject) -> str:
    """What an item says, on one line of at most 100 characters; its type when it has no words."""
    said = item.get("content") or item.get("output") or ""
    parts = [part.get("text") for part in said if isinstance(part, dict)] if isinstance(said, list) else [said]
    text = " ".join(part[: WORDS * 4] for part in parts[:8] if isinstance(part, str))
    line = " ".join(text.split()) or str(item["type"])
    return line if len(line) <= WORDS else f"{line[: WORDS - 1]}…"
