"""The writer: deltas in, events out. The only code that mints item ids, indexes and sequence numbers.

It alone knows the choreography of added, delta and done (wire contract, 8.2), driven by two tables, one row per kind of
part or call. Items are closed before the next one opens. Native calls (`native_tools`) have no deltas on the wire: what
the model writes is collected, and the item is emitted whole when the call closes. Emitting is a plain function (number,
apply, hand on) with no await in it, so order needs no lock. The writer does not sample, save or send.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ore.core import deltas
from ore.core.fold import Fold
from ore.core.native_tools import NATIVE_CALLS, Misfit, call_fields
from ore.errors import HTTPFault, ModelFailed
from ore.ids import NewId
from ore.protocol import content, items
from ore.protocol import events as e
from ore.protocol.decoding import JsonObject
from ore.protocol.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    ResponseError,
    Status,
    Usage,
)
from ore.protocol.wire import BOTH, Wire


class PartKind(Struct, frozen=True):
    """How one kind of part is opened, filled and closed."""

    item: type[items.Message] | type[items.Reasoning]
    index: str
    added: type[e.Event]
    delta: type[e.Event]
    done: type[e.Event]
    closed: type[e.Event]
    part: Callable[[str, list[JsonObject], list[JsonObject]], Any]
    whole: str = "text"


PARTS: dict[type[deltas.Delta], PartKind] = {
    deltas.Text: PartKind(
        items.Message,
        "content_index",
        e.ContentPartAdded,
        e.OutputTextDelta,
        e.OutputTextDone,
        e.ContentPartDone,
        lambda text, cited, logprobs: content.OutputText(text=text, annotations=cited, logprobs=logprobs),
    ),
    deltas.Refusal: PartKind(
        items.Message,
        "content_index",
        e.ContentPartAdded,
        e.RefusalDelta,
        e.RefusalDone,
        e.ContentPartDone,
        lambda text, _cited, _logprobs: content.Refusal(refusal=text),
        whole="refusal",
    ),
    deltas.Reasoning: PartKind(
        items.Reasoning,
        "content_index",
        e.ContentPartAdded,
        e.ReasoningDelta,
        e.ReasoningDone,
        e.ContentPartDone,
        lambda text, _cited, _logprobs: content.ReasoningText(text=text),
    ),
    deltas.ReasoningSummary: PartKind(
        items.Reasoning,
        "summary_index",
        e.ReasoningSummaryPartAdded,
        e.ReasoningSummaryTextDelta,
        e.ReasoningSummaryTextDone,
        e.ReasoningSummaryPartDone,
        lambda text, _cited, _logprobs: content.SummaryText(text=text),
    ),
}


_DELTA_OF_PART: dict[type[content.Part], type[deltas.Delta]] = {
    content.OutputText: deltas.Text,
    content.Refusal: deltas.Refusal,
    content.ReasoningText: deltas.Reasoning,
    content.SummaryText: deltas.ReasoningSummary,
}


def _parts(wire: Wire) -> dict[type[deltas.Delta], PartKind]:
    """`PARTS` with the wire's words for raw reasoning."""
    row = msgspec.structs.replace(PARTS[deltas.Reasoning], delta=wire.reasoning_delta, done=wire.reasoning_done)
    return {**PARTS, deltas.Reasoning: row}


class CallKind(Struct, frozen=True):
    """How one kind of call is filled and closed; `whole` is the field that holds what the model wrote."""

    item: type[items.FunctionCall] | type[items.CustomToolCall]
    delta: type[e.Event]
    done: type[e.Event]
    whole: str


CALLS: dict[str, CallKind] = {
    "function_call": CallKind(
        items.FunctionCall, e.FunctionCallArgumentsDelta, e.FunctionCallArgumentsDone, "arguments"
    ),
    "custom_tool_call": CallKind(items.CustomToolCall, e.CustomToolCallInputDelta, e.CustomToolCallInputDone, "input"),
}


class _Native(Struct, frozen=True):
    """A native call and the pieces of its arguments."""

    call: deltas.ToolCall
    pieces: list[str]


class _Open(Struct):
    """The item that is open, and within it the part that is."""

    id: str
    output_index: int
    kind: type[items.MadeItem] | type[JsonObject]
    call: CallKind | None = None
    part: PartKind | None = None
    place: dict[str, Any] = {}
    """Where the open part is: the fields that all of its events share."""
    parts: int = 0
    summaries: int = 0
    summary_key: int = 0
    annotations: list[JsonObject] = []
    state: str | None = None
    """What the backend wants back with a reasoning item."""
    by_upstream: bool = False
    """Whether the upstream makes it, and says when it ends."""


Seal = Callable[[str, str | None], str]
"""Seals a reasoning item's text and the backend's state of it, for the client to carry."""


class ResponseWriter:
    """Writes one response. `sink` gets every event, already applied, in order.

    With `seal`, reasoning items get `encrypted_content`: all of them where the client asked for it (`seals_all`), or
    else those with a state that the backend wants back.
    """

    def __init__(
        self,
        new_id: NewId,
        sink: Callable[[e.Event], None],
        *,
        wire: Wire = BOTH,
        seal: Seal | None = None,
        seals_all: bool = False,
    ) -> None:
        self._new_id = new_id
        self._sink = sink
        self._wire = wire
        self._parts = _parts(wire)
        self._seal = seal
        self._seals_all = seals_all
        self._number = 0
        self._open: _Open | None = None
        self._native: _Native | None = None
        self._phase: items.Phase | UnsetType = UNSET
        self._fold = Fold()

    @property
    def response(self) -> Response:
        """The response as it stands now."""
        return self._fold.response

    @property
    def status(self) -> Status:
        """Of the response as it stands now."""
        return self._fold.status

    @property
    def open_item(self) -> str | None:
        """The id of the item that is open."""
        return None if self._open is None else self._open.id

    def begin(self, response: Response) -> None:
        """`response.created`, then `response.queued` or `response.in_progress`, as its status says."""
        self._emit(e.Created, response=response)
        self._emit(e.Queued if response.status == "queued" else e.InProgress, response=response)

    def start(self) -> None:
        """`response.in_progress`, for what was queued."""
        self._emit(e.InProgress, response=msgspec.structs.replace(self.response, status="in_progress"))

    def resume(self, events: Iterable[e.Event]) -> None:
        """Take up a response where another writer left it, after `events`: those are applied, and not emitted."""
        for event in events:
            self._fold.apply(event)
            self._follow(event)
            self._number = event.sequence_number + 1

    def write(self, delta: deltas.Delta) -> None:
        """Write what a backend said. `Finish` is not for the writer."""
        kind = self._parts.get(type(delta))
        if kind is not None:
            self._write_part(kind, delta)
        elif isinstance(delta, deltas.ToolArguments):
            self._write_arguments(delta.text)
        elif isinstance(delta, deltas.ToolCall):
            self._open_call(delta)
        elif isinstance(delta, deltas.Annotation):
            self._write_annotation(delta.annotation)
        elif isinstance(delta, deltas.Begin):
            self._begin_anew(delta)
        elif isinstance(delta, deltas.ItemBegun):
            self._begin_item(delta.item)
        elif isinstance(delta, deltas.ItemEvent):
            self._pass_on(delta)
        elif isinstance(delta, deltas.WholeItem):
            self._write_whole(delta.item)
        elif isinstance(delta, deltas.ReasoningState):
            self._keep_state(delta.state)
        else:
            raise TypeError(f"{type(delta).__name__} cannot be written")

    def close(self, status: items.ItemStatus = "completed") -> None:
        """Close the open item, if there is one. Nothing may be written to it afterwards.

        Raises `ModelFailed` when the arguments of a native call do not make one.
        """
        if self._native is not None:
            native, self._native = self._native, None
            self._write_native(native.call, "".join(native.pieces), status)
        if self._open is None:
            return
        self._close_part()
        open_, call = self._open, self._open.call
        if open_.kind is dict:
            self.close_whole({**self._item(), "status": status})
            return
        if call is not None:
            whole: dict[str, Any] = {call.whole: self._fold.text}
            if call.whole == "arguments":
                whole["name"] = self._item().name
            self._emit(call.done, item_id=open_.id, output_index=open_.output_index, **whole)
        done = msgspec.structs.replace(self._item(), status=status)
        if isinstance(done, items.Reasoning) and self._seal and (self._seals_all or open_.state is not None):
            done.encrypted_content = self._seal(_reasoning_text(done), open_.state)
        self._emit(e.OutputItemDone, output_index=open_.output_index, item=done)
        self._open = None

    def open_whole(self, item: JsonObject) -> None:
        """Begin an item in the wire's shape, which has its `id`; `close_whole` ends it."""
        self.close()
        index = len(self._fold.response.output)
        self._open = _Open(id=item["id"], output_index=index, kind=dict)
        self._emit(e.OutputItemAdded, output_index=index, item=item)

    def emit_in_whole(self, kind: type[e.Event], **fields: Any) -> None:
        """An event about the whole item that is open."""
        assert self._open is not None  # noqa: S101
        self._emit(kind, item_id=self._open.id, output_index=self._open.output_index, **fields)

    def close_whole(self, item: JsonObject) -> None:
        """The item that is open, as it came out."""
        assert self._open is not None  # noqa: S101
        self._emit(e.OutputItemDone, output_index=self._open.output_index, item=item)
        self._open = None

    def final(
        self,
        status: Status,
        *,
        now: int,
        usage: deltas.Usage | None,
        incomplete: str | None = None,
        error: ResponseError | None = None,
    ) -> Response:
        """The response as it will be when it ends so; nothing is emitted. `now` is in seconds since 1970."""
        return msgspec.structs.replace(
            self.response,
            status=status,
            completed_at=now if status == "completed" else None,
            usage=wire_usage(usage) if usage else None,
            incomplete_details=IncompleteDetails(incomplete) if incomplete else None,
            error=error,
        )

    def end(self, final: Response, fault: HTTPFault | None = None) -> None:
        """Emit the one terminal event; for a failure, `error` goes before it (wire contract, 8.4)."""
        if final.status == "completed":
            self._emit(e.Completed, response=final)
        elif final.status == "incomplete":
            self._emit(e.Incomplete, response=final)
        elif final.status == "failed" and fault is not None:
            self._emit(e.Error, **self._wire.error_event(fault))
            self._emit(e.Failed, response=final)
        else:
            self._fold.settle(final)

    def _write_part(self, kind: PartKind, delta: Any) -> None:
        """The way of nearly all deltas: of text within the part that is open."""
        fields: dict[str, Any] = {"delta": delta.text}
        if kind.delta is e.OutputTextDelta:
            fields["logprobs"] = list(delta.logprobs)
        if delta.text or fields.get("logprobs"):
            self._ensure_part(kind, getattr(delta, "index", 0))
            self._emit_in_part(kind.delta, **fields)

    def write_empty_message(self) -> None:
        """A message with one empty text part, for a model that said nothing at all."""
        self._ensure_part(self._parts[deltas.Text], 0)
        self.close()

    def _ensure_part(self, kind: PartKind, summary_key: int) -> None:
        if self._open is None or self._open.kind is not kind.item or self._open.state is not None:
            self.close()
            self._open_item(kind.item)
        assert self._open is not None  # noqa: S101
        if self._open.part is kind and self._open.summary_key == summary_key:
            return
        self._close_part()
        self._enter_part(kind, summary_key)
        self._emit_in_part(kind.added, part=kind.part("", [], []))

    def _close_part(self) -> None:
        if self._open is None or self._open.part is None:
            return
        kind, cited, logprobs, text = self._open.part, self._open.annotations, self._fold.logprobs, self._fold.text
        fields: dict[str, Any] = {kind.whole: text}
        if kind.done is e.OutputTextDone:
            fields["logprobs"] = logprobs
        self._emit_in_part(kind.done, **fields)
        self._emit_in_part(kind.closed, part=kind.part(text, cited, logprobs))
        self._open.part = None

    def _write_annotation(self, annotation: JsonObject) -> None:
        self._ensure_part(self._parts[deltas.Text], 0)
        assert self._open is not None  # noqa: S101
        self._emit_in_part(
            e.OutputTextAnnotationAdded, annotation_index=len(self._open.annotations), annotation=annotation
        )
        self._open.annotations.append(annotation)

    def _open_item(self, kind: type[items.Message] | type[items.Reasoning]) -> None:
        if kind is items.Message:
            item: items.MadeItem = items.Message(
                id=self._new_id("message"), status="in_progress", phase=self._phase, content=[]
            )
            self._phase = UNSET
        else:
            item = items.Reasoning(id=self._new_id("reasoning"), status="in_progress", summary=[])
        self._add(item, None)

    def _open_call(self, call: deltas.ToolCall) -> None:
        self.close()
        if call.kind in NATIVE_CALLS:
            self._native = _Native(call, [])
            return
        kind = CALLS[call.kind]
        some: Any = {kind.whole: ""} | ({} if call.namespace is None else {"namespace": call.namespace})
        self._add(
            kind.item(id=self._new_id(call.kind), call_id=call.call_id, name=call.name, status="in_progress", **some),
            kind,
        )

    def _write_native(self, call: deltas.ToolCall, arguments: str, status: items.ItemStatus) -> None:
        """One that was cut off does nothing, whatever it said so far; where its type knows no such, it is left out."""
        fields = NATIVE_CALLS[call.kind].nothing if status == "incomplete" else _native_fields(call, arguments)
        if fields is None:
            return
        item = {"type": call.kind, "id": self._new_id(call.kind), "call_id": call.call_id, **fields}
        index = len(self._fold.response.output)
        self._emit(e.OutputItemAdded, output_index=index, item={**item, "status": "in_progress"})
        self._emit(e.OutputItemDone, output_index=index, item={**item, "status": status})

    def _write_arguments(self, text: str) -> None:
        if self._native is not None:
            self._native.pieces.append(text)
            return
        if self._open is None or self._open.call is None:
            raise TypeError("arguments came without a call")
        if text:
            self._emit(self._open.call.delta, item_id=self._open.id, output_index=self._open.output_index, delta=text)

    def _begin_anew(self, delta: deltas.Begin) -> None:
        """Close what the next delta would otherwise go on with."""
        if delta.what == "part":
            self._close_part()
            return
        self.close()
        self._phase = UNSET if delta.phase is None else delta.phase

    def _begin_item(self, item: JsonObject) -> None:
        self.close()
        self.open_whole(self._with_own_id(item))
        assert self._open is not None  # noqa: S101
        self._open.by_upstream = True

    def _write_whole(self, item: JsonObject) -> None:
        """An item that was begun keeps the id under which it was."""
        if self._open is not None and self._open.by_upstream:
            self.close_whole({**item, "id": self._open.id})
            return
        item = self._with_own_id(item)
        self.open_whole(item)
        self.close_whole(item)

    def _with_own_id(self, item: JsonObject) -> JsonObject:
        """The item with the id that its upstream gave, unless there is none, or another item has it."""
        taken = {items.id_of(each) for each in self._fold.response.output}
        given = item.get("id")
        if isinstance(given, str) and given and given not in taken:
            return item
        return {**item, "id": self._new_id(str(item.get("type")))}

    def _pass_on(self, delta: deltas.ItemEvent) -> None:
        open_ = self._open
        if open_ is None or not open_.by_upstream:
            raise TypeError("an event came without its item")
        self._emit(e.PassedOn, name=delta.name, item_id=open_.id, output_index=open_.output_index, fields=delta.fields)

    def remember_state(self, state: str) -> None:
        """The state of the reasoning item that is open, told again; of one that is closed, it has been sealed."""
        if self._open is not None and self._open.kind is items.Reasoning:
            self._open.state = state

    def _keep_state(self, state: str) -> None:
        if self._open is None or self._open.kind is not items.Reasoning or self._open.state is not None:
            self.close()
            self._open_item(items.Reasoning)
        assert self._open is not None  # noqa: S101
        self._open.state = state

    def _follow(self, event: e.Event) -> None:
        """What is open after an event of another writer's."""
        if isinstance(event, e.OutputItemAdded):
            kind, item = type(event.item), event.item
            call = next((row for row in CALLS.values() if row.item is kind), None)
            self._open = _Open(id=items.id_of(item), output_index=event.output_index, kind=kind, call=call)
            self._open.by_upstream = isinstance(item, dict)
        elif isinstance(event, e.OutputItemDone):
            self._open = None
        elif self._open is not None and isinstance(event, e.ContentPartAdded | e.ReasoningSummaryPartAdded):
            row = self._parts[_DELTA_OF_PART[type(event.part)]]
            self._enter_part(row, summary_key=self._open.summaries if row.index == "summary_index" else 0)
        elif self._open is not None and isinstance(event, e.ContentPartDone | e.ReasoningSummaryPartDone):
            self._open.part = None
        elif self._open is not None and isinstance(event, e.OutputTextAnnotationAdded):
            self._open.annotations.append(event.annotation)

    def _enter_part(self, kind: PartKind, summary_key: int) -> None:
        """Count the part that is opened."""
        open_ = self._open
        assert open_ is not None  # noqa: S101
        open_.part, open_.summary_key, open_.annotations = kind, summary_key, []
        if kind.index == "summary_index":
            index, open_.summaries = open_.summaries, open_.summaries + 1
        else:
            index, open_.parts = open_.parts, open_.parts + 1
        open_.place = {"item_id": open_.id, "output_index": open_.output_index, kind.index: index}

    def _add(self, item: items.MadeItem, call: CallKind | None) -> None:
        index = len(self._fold.response.output)
        self._open = _Open(id=item.id, output_index=index, kind=type(item), call=call)
        self._emit(e.OutputItemAdded, output_index=index, item=item)

    def _item(self) -> Any:
        assert self._open is not None  # noqa: S101
        return self._fold.item(self._open.output_index)

    def _emit_in_part(self, kind: type[e.Event], **fields: Any) -> None:
        open_ = self._open
        assert open_ is not None  # noqa: S101
        self._say(kind(sequence_number=self._number, **open_.place, **fields))

    def _emit(self, kind: type[e.Event], **fields: Any) -> None:
        self._say(kind(sequence_number=self._number, **fields))

    def _say(self, event: e.Event) -> None:
        self._fold.apply(event)
        self._number += 1
        self._sink(event)


def _native_fields(call: deltas.ToolCall, arguments: str) -> JsonObject:
    try:
        return call_fields(call.kind, arguments)
    except Misfit as problem:
        message = f"The model called '{call.name}' with arguments that do not fit: {problem}. Send the request again."
        raise ModelFailed(message, code="invalid_model_output") from problem


def _reasoning_text(item: items.Reasoning) -> str:
    parts = item.content if isinstance(item.content, list) else []
    return "\n".join(part.text for part in parts)


def wire_usage(usage: deltas.Usage) -> Usage:
    """Usage in the wire's shape (4.5)."""
    return Usage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
