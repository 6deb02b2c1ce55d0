"""The fold and its two tables: what is legal is applied, what is not raises, and growing text can be looked at."""

import itertools
from typing import Any

import msgspec
import pytest

from core.writing import CITED, LOGPROB, RICH, Recording, begun, recorded
from ore.core import deltas as d
from ore.core.fold import Fold, ProtocolViolation
from ore.core.lifecycle import MAY_FOLLOW, NEXT_STATUS, TERMINAL_STATUSES
from ore.protocol import content, items
from ore.protocol import events as e
from ore.protocol.wire import WIRES

SAMPLE = {
    "response": begun(),
    "item": items.Message(id="m", status="in_progress", content=[]),
    "part": content.OutputText(text="", annotations=[], logprobs=[]),
    "output_index": 0,
    "content_index": 0,
    "summary_index": 0,
    "annotation_index": 0,
    "item_id": "m",
    "delta": "x",
    "logprobs": [],
    "annotation": CITED,
    "error": {},
    "code": None,
    "param": None,
}


def any_event(kind: type[e.Event], number: int) -> Any:
    """An event of that kind, whatever is in it."""
    fields = {name: SAMPLE.get(name, "x") for name in kind.__struct_fields__ if name != "sequence_number"}
    return kind(sequence_number=number, **fields)


def folded(events: list[e.Event]) -> Fold:
    fold = Fold()
    for event in events:
        fold.apply(event)
    return fold


def moments() -> dict[type[e.Event] | None, list[e.Event]]:
    """For every event that the writer makes, a beginning of a stream that ends with it."""
    found: dict[type[e.Event] | None, list[e.Event]] = {None: []}
    for status, wire in itertools.product(("completed", "incomplete", "failed"), WIRES.values()):
        events = recorded(RICH, status, wire).events
        for at, event in enumerate(events):
            found.setdefault(type(event), events[: at + 1])
    created = found[e.Created]
    queued = e.Queued(sequence_number=1, response=begun())
    added = e.OutputItemAdded(sequence_number=2, output_index=0, item={"type": "compaction", "id": "c"})
    compacting = e.Compacting(sequence_number=3, item_id="c", output_index=0)
    in_progress = found[e.InProgress]
    return found | {e.Queued: [*created, queued], e.Compacting: [*in_progress, added, compacting]}


MOMENTS = moments()
ILLEGAL = [(last, kind) for last in MOMENTS for kind in MAY_FOLLOW if last not in MAY_FOLLOW[kind]]


def test_the_tables_know_every_event_and_every_status() -> None:
    """No event is without a row, each names only events there are, and the terminal ones are followed by nothing."""
    kinds = {kind for kind in vars(e).values() if isinstance(kind, type) and issubclass(kind, e.Event)}
    concrete = {kind for kind in kinds if isinstance(kind.__struct_config__.tag, str) and "." in e.event_type(kind)}  # type: ignore[arg-type]
    assert concrete | {e.Error, e.PassedOn} == set(MAY_FOLLOW)
    assert set(MOMENTS) == {None, *MAY_FOLLOW}
    for terminal in (e.Completed, e.Incomplete, e.Failed):
        assert not any(terminal in before for before in MAY_FOLLOW.values())
    assert set(NEXT_STATUS) == {"queued", "in_progress", *TERMINAL_STATUSES}


@pytest.mark.parametrize("last", MOMENTS, ids=lambda kind: kind.__name__ if kind else "beginning")
def test_every_illegal_order_is_a_violation(last: type[e.Event] | None) -> None:
    """After each event, every event that the table does not allow is refused, and leaves no trace."""
    fold = folded(MOMENTS[last])
    before = e.encode(fold.response) if last else None
    refused = [kind for moment, kind in ILLEGAL if moment is last]
    assert refused
    for kind in refused:
        with pytest.raises(ProtocolViolation):
            fold.apply(any_event(kind, len(MOMENTS[last])))
    if last:
        assert e.encode(fold.response) == before


@pytest.mark.parametrize("last", [kind for kind in MOMENTS if kind], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("wrong", [-1, 1], ids=["again", "gap"])
def test_a_number_out_of_order_is_a_violation(last: type[e.Event], wrong: int) -> None:
    """The next number is one more than the last, whatever the event."""
    legal = next((kind for kind, before in MAY_FOLLOW.items() if last in before), None)
    if legal is not None:
        with pytest.raises(ProtocolViolation, match="number"):
            folded(MOMENTS[last]).apply(any_event(legal, len(MOMENTS[last]) + wrong))


@pytest.mark.parametrize(("now", "then"), list(itertools.product(NEXT_STATUS, repeat=2)))
def test_the_status_follows_its_table(now: str, then: str) -> None:
    """Each step of the status machine of 4.3 is allowed, and no other; nothing leaves a terminal status."""
    fold = Fold()
    fold.settle(msgspec.structs.replace(begun(), status=now))
    step = msgspec.structs.replace(begun(), status=then)
    if then in NEXT_STATUS[now]:
        fold.settle(step)
        assert fold.response.status == then
    else:
        with pytest.raises(ProtocolViolation):
            fold.settle(step)
        assert fold.response.status == now


def place(kind: type[e.Event], number: int, **more: Any) -> Any:
    return kind(sequence_number=number, item_id="message_1", **{"output_index": 0, "content_index": 0, **more})


TEXT_OPEN = Recording().write([d.Text("ab")]).events
WRONG_PLACES: dict[str, tuple[list[e.Event], Any]] = {
    "an item too far": (TEXT_OPEN[:2], e.OutputItemAdded(sequence_number=2, output_index=1, item=SAMPLE["item"])),
    "an item again": (
        recorded([d.Text("a")]).events[:-1],
        e.OutputItemAdded(sequence_number=8, output_index=0, item=SAMPLE["item"]),
    ),
    "done elsewhere": (TEXT_OPEN[:3], e.OutputItemDone(sequence_number=3, output_index=1, item=SAMPLE["item"])),
    "a part too far": (
        TEXT_OPEN[:3],
        place(e.ContentPartAdded, 3, content_index=1, part=content.Refusal(refusal="")),
    ),
    "a part elsewhere": (
        TEXT_OPEN[:3],
        place(e.ContentPartAdded, 3, output_index=1, part=content.Refusal(refusal="")),
    ),
    "not what was spelled": (TEXT_OPEN, place(e.OutputTextDone, 5, text="abc", logprobs=[])),
    "less than was spelled": (TEXT_OPEN, place(e.OutputTextDone, 5, text="", logprobs=[])),
}


@pytest.mark.parametrize(("events", "wrong"), WRONG_PLACES.values(), ids=WRONG_PLACES)
def test_an_event_for_a_place_that_is_not_open_is_a_violation(events: list[e.Event], wrong: Any) -> None:
    """Indices are dense, and a whole equals its deltas, or the event is refused."""
    with pytest.raises(ProtocolViolation):
        folded(events).apply(wrong)


def test_nothing_was_said_yet() -> None:
    """Before the first event there is no response to look at."""
    with pytest.raises(ProtocolViolation):
        _ = Fold().response


GROWING: dict[str, tuple[list[d.Delta], list[Any]]] = {
    "text": ([d.Text("a", (LOGPROB,)), d.Text("b"), d.Text("c")], ["content", 0, "text"]),
    "refusal": ([d.Refusal("a"), d.Refusal("b"), d.Refusal("c")], ["content", 0, "refusal"]),
    "reasoning": ([d.Reasoning("a"), d.Reasoning("b"), d.Reasoning("c")], ["content", 0, "text"]),
    "summary": (
        [d.ReasoningSummary("a"), d.ReasoningSummary("b"), d.ReasoningSummary("c")],
        ["summary", 0, "text"],
    ),
    "arguments": (
        [d.ToolCall("c", "f"), d.ToolArguments("a"), d.ToolArguments("b"), d.ToolArguments("c")],
        ["arguments"],
    ),
    "input": (
        [d.ToolCall("c", "f", "custom_tool_call"), *map(d.ToolArguments, "abc")],
        ["input"],
    ),
    "cited text": ([d.Text("a"), d.Text("b"), d.Annotation(CITED), d.Text("c")], ["content", 0, "text"]),
}


@pytest.mark.parametrize("looks", [(), (1,), (1, 2, 3), (3, 3)], ids=str)
@pytest.mark.parametrize(("deltas", "path"), GROWING.values(), ids=GROWING)
def test_a_snapshot_in_the_middle_is_the_joined_pieces(
    deltas: list[d.Delta], path: list[Any], looks: tuple[int, ...]
) -> None:
    """Whoever looks while text grows sees all of it so far, as often as they like, and disturbs nothing."""
    recording = Recording()
    said = ""
    for at, delta in enumerate(deltas):
        recording.writer.write(delta)
        said += getattr(delta, "text", "")
        for _ in range(looks.count(at)):
            value = recording.final["output"][0]
            for step in path:
                value = value[step]
            assert value == said
    undisturbed = Recording().write(deltas).end()
    assert recording.end().wire == undisturbed.wire


def test_a_snapshot_while_text_grows_has_its_logprobs_and_citations() -> None:
    """The part that is open shows what it has, not only its text."""
    recording = Recording().write([d.Text("a", (LOGPROB,)), d.Annotation(CITED), d.Text("b", (LOGPROB,))])
    (part,) = recording.final["output"][0]["content"]
    assert part == {"type": "output_text", "text": "ab", "annotations": [CITED], "logprobs": [LOGPROB, LOGPROB]}
    assert recording.final["status"] == "in_progress"
