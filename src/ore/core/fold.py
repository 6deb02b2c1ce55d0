"""The fold: events in, response out. The only code that changes a `Response`.

The writer applies every event it emits, so the stream, a snapshot in the middle, the stored object and what `GET`
returns agree by construction. The fold decides nothing: an event that the tables of `lifecycle` do not allow, or that
names a place which is not open, raises `ProtocolViolation`.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from ore.core.lifecycle import MAY_FOLLOW, NEXT_STATUS
from ore.protocol import content, items
from ore.protocol import events as e
from ore.protocol.decoding import JsonObject
from ore.protocol.responses import Response, Status


class ProtocolViolation(AssertionError):
    """A bug: an event that may not come here. Never the fault of a client."""


class Fold:
    """A response and the event that last changed it.

    Text that is still growing is a list of pieces, joined when somebody looks: appending to a string of 100,000
    characters costs more than the token that it holds.
    """

    def __init__(self) -> None:
        self._response: Response | None = None
        self._last: e.Event | None = None
        self._pieces: list[str] = []
        self._logprobs: list[JsonObject] = []

    @property
    def response(self) -> Response:
        """The response as it stands, growing text included."""
        if self._response is None:
            raise ProtocolViolation("no event yet")
        self._join()
        return self._response

    @property
    def begun(self) -> bool:
        """Whether any event came."""
        return self._response is not None

    @property
    def status(self) -> Status:
        """Of the response, without putting its growing text together."""
        if self._response is None:
            raise ProtocolViolation("no event yet")
        return self._response.status

    @property
    def text(self) -> str:
        """The text of the part, or the arguments of the call, that is open."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def logprobs(self) -> list[JsonObject]:
        """The logprobs of the text part that is open."""
        return self._logprobs

    def apply(self, event: e.Event) -> None:
        """Take one event in. Constant time for deltas."""
        kind = type(event)
        if (type(self._last) if self._last else None) not in MAY_FOLLOW[kind]:
            raise ProtocolViolation(f"{kind.__name__} may not follow {type(self._last).__name__}")
        if self._last is not None and event.sequence_number != self._last.sequence_number + 1:
            raise ProtocolViolation(f"number {event.sequence_number} after {self._last.sequence_number}")
        _APPLY[kind](self, event)
        self._last = event

    def settle(self, response: Response) -> None:
        """Take a whole response in, when its status may follow: lifecycle events, and `cancelled`, which has none."""
        if self._response is not None and response.status not in NEXT_STATUS[self._response.status]:
            raise ProtocolViolation(f"{response.status} may not follow {self._response.status}")
        self._response = msgspec.structs.replace(response, output=list(response.output))

    def item(self, index: int) -> items.Item:
        """The output item at `index`."""
        return self.response.output[index]

    def _open_item(self, index: int) -> Any:
        assert self._response is not None  # noqa: S101
        if index != len(self._response.output) - 1:
            raise ProtocolViolation(f"output item {index} is not open")
        return self._response.output[index]

    def _join(self) -> None:
        """Put the growing text where a reader of the response expects it."""
        if self._pieces and self._last is not None and (place := _GROWING.get(type(self._last))):
            place(self, self._last, self.text)


def _lifecycle(fold: Fold, event: Any) -> None:
    fold.settle(event.response)


def _item_added(fold: Fold, event: e.OutputItemAdded) -> None:
    response = fold._response
    if response is None or event.output_index != len(response.output):
        raise ProtocolViolation(f"output item {event.output_index} is out of order")
    response.output.append(_own_copy(event.item))
    _start_growing(fold)


def _item_done(fold: Fold, event: e.OutputItemDone) -> None:
    fold._open_item(event.output_index)
    assert fold._response is not None  # noqa: S101
    fold._response.output[event.output_index] = event.item


def _part_added(fold: Fold, event: e.ContentPartAdded) -> None:
    item = fold._open_item(event.output_index)
    if item.content is msgspec.UNSET:
        item.content = []
    if event.content_index != len(item.content):
        raise ProtocolViolation(f"content part {event.content_index} is out of order")
    item.content.append(_own_copy(event.part))
    _start_growing(fold)


def _part_done(fold: Fold, event: e.ContentPartDone) -> None:
    fold._open_item(event.output_index).content[event.content_index] = event.part


def _summary_added(fold: Fold, event: e.ReasoningSummaryPartAdded) -> None:
    item = fold._open_item(event.output_index)
    if event.summary_index != len(item.summary):
        raise ProtocolViolation(f"summary part {event.summary_index} is out of order")
    item.summary.append(_own_copy(event.part))
    _start_growing(fold)


def _summary_done(fold: Fold, event: e.ReasoningSummaryPartDone) -> None:
    fold._open_item(event.output_index).summary[event.summary_index] = event.part


def _annotation(fold: Fold, event: e.OutputTextAnnotationAdded) -> None:
    fold._join()  # the next event is no delta, and would not say where the text belongs
    fold._open_item(event.output_index).content[event.content_index].annotations.append(event.annotation)


def _delta(fold: Fold, event: Any) -> None:
    fold._pieces.append(event.delta)


def _text_delta(fold: Fold, event: e.OutputTextDelta) -> None:
    fold._pieces.append(event.delta)
    if event.logprobs:
        fold._logprobs.extend(event.logprobs)


def _start_growing(fold: Fold) -> None:
    fold._pieces, fold._logprobs = [], []


def _done(fold: Fold, event: Any) -> None:
    whole = next(value for name in _WHOLE if (value := getattr(event, name, None)) is not None)
    if whole != fold.text:
        raise ProtocolViolation("the whole differs from its deltas")
    _GROWING[type(event)](fold, event, whole)
    _start_growing(fold)


_WHOLE = ("text", "refusal", "arguments", "input")
"""The field of a done event that holds the whole value."""


def _grow_part(fold: Fold, event: Any, text: str) -> None:
    part = fold._open_item(event.output_index).content[event.content_index]
    if isinstance(part, content.Refusal):
        part.refusal = text
    else:
        part.text = text
    if isinstance(part, content.OutputText):
        part.logprobs = list(fold._logprobs)


def _grow_summary(fold: Fold, event: Any, text: str) -> None:
    fold._open_item(event.output_index).summary[event.summary_index].text = text


def _grow_arguments(fold: Fold, event: Any, text: str) -> None:
    fold._open_item(event.output_index).arguments = text


def _grow_input(fold: Fold, event: Any, text: str) -> None:
    fold._open_item(event.output_index).input = text


def _nothing(_fold: Fold, _event: e.Event) -> None:
    """For `error`, which the response says only in `response.failed`, and for signs of life."""


def _own_copy(value: Any) -> Any:
    """A copy whose lists may grow without changing the event that brought it."""
    if isinstance(value, dict):
        return value
    lists = {name: list(entry) for name in value.__struct_fields__ if isinstance(entry := getattr(value, name), list)}
    return msgspec.structs.replace(value, **lists)


_GROWING: dict[type[e.Event], Callable[[Fold, Any, str], None]] = {
    e.OutputTextDelta: _grow_part,
    e.OutputTextAnnotationAdded: _grow_part,
    e.OutputTextDone: _grow_part,
    e.RefusalDelta: _grow_part,
    e.RefusalDone: _grow_part,
    e.ReasoningDelta: _grow_part,
    e.ReasoningDone: _grow_part,
    e.ReasoningTextDelta: _grow_part,
    e.ReasoningTextDone: _grow_part,
    e.ReasoningSummaryTextDelta: _grow_summary,
    e.ReasoningSummaryTextDone: _grow_summary,
    e.FunctionCallArgumentsDelta: _grow_arguments,
    e.FunctionCallArgumentsDone: _grow_arguments,
    e.CustomToolCallInputDelta: _grow_input,
    e.CustomToolCallInputDone: _grow_input,
}

_APPLY: dict[type[e.Event], Callable[[Fold, Any], None]] = {
    e.Created: _lifecycle,
    e.Queued: _lifecycle,
    e.InProgress: _lifecycle,
    e.Completed: _lifecycle,
    e.Incomplete: _lifecycle,
    e.Failed: _lifecycle,
    e.Error: _nothing,
    e.Compacting: _nothing,
    e.PassedOn: _nothing,
    e.OutputItemAdded: _item_added,
    e.OutputItemDone: _item_done,
    e.ContentPartAdded: _part_added,
    e.ContentPartDone: _part_done,
    e.OutputTextDelta: _text_delta,
    e.OutputTextDone: _done,
    e.OutputTextAnnotationAdded: _annotation,
    e.RefusalDelta: _delta,
    e.RefusalDone: _done,
    e.ReasoningDelta: _delta,
    e.ReasoningDone: _done,
    e.ReasoningTextDelta: _delta,
    e.ReasoningTextDone: _done,
    e.ReasoningSummaryPartAdded: _summary_added,
    e.ReasoningSummaryPartDone: _summary_done,
    e.ReasoningSummaryTextDelta: _delta,
    e.ReasoningSummaryTextDone: _done,
    e.FunctionCallArgumentsDelta: _delta,
    e.FunctionCallArgumentsDone: _done,
    e.CustomToolCallInputDelta: _delta,
    e.CustomToolCallInputDone: _done,
}
