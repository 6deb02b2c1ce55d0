"""Which status may follow which, and which event may follow which: two tables, and nothing else.

The fold looks every event up here, so an order that the contract (sections 4.3 and 8.2) does not allow is a bug that
shows itself at once, in every test and in production alike.
"""

from typing import Final

from ore.protocol import events as e

NEXT_STATUS: Final[dict[str, frozenset[str]]] = {
    "queued": frozenset({"queued", "in_progress", "cancelled", "failed"}),
    "in_progress": frozenset({"in_progress", "completed", "incomplete", "failed", "cancelled"}),
    "completed": frozenset(),
    "incomplete": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""Status of a response -> what it may become. `cancelled` has no event."""

TERMINAL_STATUSES: Final = frozenset(status for status, following in NEXT_STATUS.items() if not following)

MAY_FOLLOW: Final[dict[type[e.Event], frozenset[type[e.Event] | None]]] = {
    e.Created: frozenset({None}),
    e.Queued: frozenset({e.Created}),
    e.InProgress: frozenset({e.Created, e.Queued}),
    e.OutputItemAdded: frozenset({e.InProgress, e.OutputItemDone}),
    e.ContentPartAdded: frozenset({e.OutputItemAdded, e.ContentPartDone, e.ReasoningSummaryPartDone}),
    e.OutputTextDelta: frozenset({e.ContentPartAdded, e.OutputTextDelta, e.OutputTextAnnotationAdded}),
    e.OutputTextAnnotationAdded: frozenset({e.ContentPartAdded, e.OutputTextDelta, e.OutputTextAnnotationAdded}),
    e.OutputTextDone: frozenset({e.ContentPartAdded, e.OutputTextDelta, e.OutputTextAnnotationAdded}),
    e.RefusalDelta: frozenset({e.ContentPartAdded, e.RefusalDelta}),
    e.RefusalDone: frozenset({e.ContentPartAdded, e.RefusalDelta}),
    **dict.fromkeys(
        (e.ReasoningDelta, e.ReasoningDone, e.ReasoningTextDelta, e.ReasoningTextDone),
        # both names: a run may go on in a process that uses the other one
        frozenset({e.ContentPartAdded, e.ReasoningDelta, e.ReasoningTextDelta}),
    ),
    e.ContentPartDone: frozenset({e.OutputTextDone, e.RefusalDone, e.ReasoningDone, e.ReasoningTextDone}),
    e.ReasoningSummaryPartAdded: frozenset({e.OutputItemAdded, e.ReasoningSummaryPartDone, e.ContentPartDone}),
    e.ReasoningSummaryTextDelta: frozenset({e.ReasoningSummaryPartAdded, e.ReasoningSummaryTextDelta}),
    e.ReasoningSummaryTextDone: frozenset({e.ReasoningSummaryPartAdded, e.ReasoningSummaryTextDelta}),
    e.ReasoningSummaryPartDone: frozenset({e.ReasoningSummaryTextDone}),
    e.FunctionCallArgumentsDelta: frozenset({e.OutputItemAdded, e.FunctionCallArgumentsDelta}),
    e.FunctionCallArgumentsDone: frozenset({e.OutputItemAdded, e.FunctionCallArgumentsDelta}),
    e.CustomToolCallInputDelta: frozenset({e.OutputItemAdded, e.CustomToolCallInputDelta}),
    e.CustomToolCallInputDone: frozenset({e.OutputItemAdded, e.CustomToolCallInputDelta}),
    e.Compacting: frozenset({e.OutputItemAdded}),
    e.PassedOn: frozenset({e.OutputItemAdded, e.PassedOn}),
    e.OutputItemDone: frozenset(
        {
            e.OutputItemAdded,
            e.Compacting,
            e.PassedOn,
            e.ContentPartDone,
            e.ReasoningSummaryPartDone,
            e.FunctionCallArgumentsDone,
            e.CustomToolCallInputDone,
        }
    ),
    e.Error: frozenset({e.Queued, e.InProgress, e.OutputItemDone}),
    e.Completed: frozenset({e.InProgress, e.OutputItemDone}),
    e.Incomplete: frozenset({e.InProgress, e.OutputItemDone}),
    e.Failed: frozenset({e.Error}),
}
"""Event -> the events that it may come right after; `None` is the beginning of the stream."""
