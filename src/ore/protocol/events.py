"""Stream events (wire contract, section 7). Class names drop the common prefix: `response.output_text.delta` is
`OutputTextDelta`.

Only `ore.core.writer` makes them. Raw reasoning has two pairs of names, Open Responses' and OpenAI's; a stream has one
of them, as its `ore.protocol.wire` says.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ore.protocol.content import Part, SummaryText
from ore.protocol.decoding import JsonObject
from ore.protocol.items import Item, read_item
from ore.protocol.responses import Response, read_response


class Event(Struct, tag_field="type", kw_only=True):
    """What all events share. Numbers start at 0 and have no gaps within one response."""

    sequence_number: int


class Created(Event, tag="response.created"):
    response: Response


class Queued(Event, tag="response.queued"):
    response: Response


class InProgress(Event, tag="response.in_progress"):
    response: Response


class OutputItemAdded(Event, tag="response.output_item.added"):
    output_index: int
    item: Item


class OutputItemDone(Event, tag="response.output_item.done"):
    output_index: int
    item: Item


class _OfItem(Event):
    item_id: str
    output_index: int


class ContentPartAdded(_OfItem, tag="response.content_part.added"):
    content_index: int
    part: Part


class ContentPartDone(_OfItem, tag="response.content_part.done"):
    content_index: int
    part: Part


class OutputTextDelta(_OfItem, tag="response.output_text.delta"):
    content_index: int
    delta: str
    logprobs: list[JsonObject]


class OutputTextDone(_OfItem, tag="response.output_text.done"):
    content_index: int
    text: str
    logprobs: list[JsonObject]


class OutputTextAnnotationAdded(_OfItem, tag="response.output_text.annotation.added"):
    content_index: int
    annotation_index: int
    annotation: JsonObject


class RefusalDelta(_OfItem, tag="response.refusal.delta"):
    content_index: int
    delta: str


class RefusalDone(_OfItem, tag="response.refusal.done"):
    content_index: int
    refusal: str


class FunctionCallArgumentsDelta(_OfItem, tag="response.function_call_arguments.delta"):
    delta: str


class FunctionCallArgumentsDone(_OfItem, tag="response.function_call_arguments.done"):
    name: str
    arguments: str


class CustomToolCallInputDelta(_OfItem, tag="response.custom_tool_call_input.delta"):
    delta: str


class CustomToolCallInputDone(_OfItem, tag="response.custom_tool_call_input.done"):
    input: str


class ReasoningDelta(_OfItem, tag="response.reasoning.delta"):
    content_index: int
    delta: str


class ReasoningDone(_OfItem, tag="response.reasoning.done"):
    content_index: int
    text: str


class ReasoningTextDelta(_OfItem, tag="response.reasoning_text.delta"):
    """OpenAI's name for `ReasoningDelta`."""

    content_index: int
    delta: str


class ReasoningTextDone(_OfItem, tag="response.reasoning_text.done"):
    """OpenAI's name for `ReasoningDone`."""

    content_index: int
    text: str


class ReasoningSummaryPartAdded(_OfItem, tag="response.reasoning_summary_part.added"):
    summary_index: int
    part: SummaryText


class ReasoningSummaryPartDone(_OfItem, tag="response.reasoning_summary_part.done"):
    summary_index: int
    part: SummaryText


class ReasoningSummaryTextDelta(_OfItem, tag="response.reasoning_summary_text.delta"):
    summary_index: int
    delta: str


class ReasoningSummaryTextDone(_OfItem, tag="response.reasoning_summary_text.done"):
    summary_index: int
    text: str


class Compacting(_OfItem, tag="response.compaction.compacting"):
    """A summary is being sampled; only for requests that asked for compaction."""


class PassedOn(Event, tag="ore:passed_on"):
    """An event about an item that an upstream makes by itself (7.2), passed on as it came."""

    name: str
    """Its type on the wire."""
    item_id: str
    output_index: int
    fields: JsonObject

    def on_the_wire(self) -> JsonObject:
        """The event as clients see it. Some families name no item: theirs do not get an `item_id`."""
        of = {"item_id": self.item_id} if "item_id" in self.fields else {}
        at = {"sequence_number": self.sequence_number, "output_index": self.output_index}
        return {**self.fields, "type": self.name, **at, **of}


class Error(Event, tag="error"):
    """Nested, flat, or both at once: the only shape that every streaming client reports (8.4)."""

    error: JsonObject | UnsetType = UNSET
    code: str | UnsetType | None = UNSET
    message: str | UnsetType = UNSET
    param: str | UnsetType | None = UNSET


class Completed(Event, tag="response.completed"):
    response: Response


class Incomplete(Event, tag="response.incomplete"):
    response: Response


class Failed(Event, tag="response.failed"):
    response: Response


BY_TYPE: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (*Event.__subclasses__(), *_OfItem.__subclasses__())
    if kind is not _OfItem
}
"""Every event by its wire name."""

_encoder = msgspec.json.Encoder()


def event_type(event: Event) -> str:
    """The wire name, e.g. `response.output_text.delta`."""
    if isinstance(event, PassedOn):
        return event.name
    tag = event.__struct_config__.tag
    assert isinstance(tag, str)  # noqa: S101
    return tag


def decode(body: bytes) -> Event:
    """The event that `encode` made these bytes of. Encoding it again gives the same bytes."""
    raw = msgspec.json.decode(body)
    if raw["type"] not in BY_TYPE:
        return _passed_on(raw)
    if "item" in raw:
        return BY_TYPE[raw.pop("type")](**{**raw, "item": read_item(raw["item"])})
    if "response" in raw:
        kind: Any = BY_TYPE[raw["type"]]
        event: Event = kind(sequence_number=raw["sequence_number"], response=read_response(raw["response"]))
        return event
    return msgspec.convert(raw, BY_TYPE[raw["type"]])


def _passed_on(raw: JsonObject) -> PassedOn:
    fields = {key: value for key, value in raw.items() if key not in ("type", "sequence_number", "output_index")}
    return PassedOn(
        sequence_number=raw["sequence_number"],
        name=raw["type"],
        item_id=str(raw.get("item_id", "")),
        output_index=raw["output_index"],
        fields=fields,
    )


def decode_response(body: bytes) -> Response:
    """The response that `encode` made these bytes of."""
    return read_response(msgspec.json.decode(body))


def encode(value: Any) -> bytes:
    """The one encoder: whatever leaves ORE as JSON is made here, so equal objects are equal bytes."""
    return _encoder.encode(value.on_the_wire() if type(value) is PassedOn else value)
