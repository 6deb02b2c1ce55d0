"""Going on with another writer's response: the same events, wherever the first one broke off."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.writing import RICH, WHOLE_ITEMS, Recording, counted, recorded, scripts
from ore.core import deltas as d
from ore.core.fold import Fold
from ore.core.retrace import Diverged, Retrace
from ore.core.writer import ResponseWriter
from ore.protocol import events as e
from ore.protocol.wire import BOTH, WIRES, Wire, WireName


@given(scripts(), st.sampled_from(["completed", "incomplete", "failed"]))
def test_decoding_is_the_inverse_of_encoding(script: list[d.Delta], status: str) -> None:
    """Every event is the same bytes again, and folding the decoded ones gives the same response."""
    recording = recorded(script, status)
    again = [e.decode(e.encode(event)) for event in recording.events]
    assert [e.encode(event) for event in again] == [e.encode(event) for event in recording.events]
    fold = Fold()
    for event in again:
        fold.apply(event)
    assert e.encode(fold.response) == e.encode(recording.writer.response)


def test_items_keep_keys_that_no_struct_has() -> None:
    """An item of a known type that brought more than ORE makes is kept as it came."""
    item = {**WHOLE_ITEMS[1], "id": "fc_1", "caller": {"type": "direct"}}
    event = e.OutputItemDone(sequence_number=0, output_index=0, item=item)
    assert e.decode(e.encode(event)) == event


def told(script: list[d.Delta], wire: Wire = BOTH) -> Recording:
    return Recording(wire=wire).write(script)


def resumed(events: list[e.Event], script: list[d.Delta], wire: Wire = BOTH) -> list[e.Event]:
    """What a second writer emits that is told the whole `script` after the first one's `events`."""
    emitted: list[e.Event] = []
    ids = counted()
    for _ in range(100):  # the second process mints other ids
        ids("x")
    writer = ResponseWriter(ids, emitted.append, wire=wire)
    writer.resume(e.decode(e.encode(event)) for event in events)
    retrace = Retrace(events, 0)
    for delta in script:
        new = retrace.feed(delta)
        if new is not None:
            writer.write(new)
    writer.close()
    return emitted


def counting(script: list[d.Delta]) -> list[d.Delta]:
    """The same script with summary parts that count from 0 in each item, as backends do."""
    counted_script: list[d.Delta] = []
    last: int | None = None
    parts = -1
    for delta in script:
        if isinstance(delta, d.ReasoningSummary):
            if delta.text:
                parts, last = (parts, last) if delta.index == last else (parts + 1, delta.index)
            delta = d.ReasoningSummary(delta.text, max(parts, 0))
        elif isinstance(delta, d.Reasoning):
            last = None if delta.text else last
        elif not (isinstance(delta, d.Text | d.Refusal) and not delta.text and not getattr(delta, "logprobs", ())):
            parts, last = -1, None
        counted_script.append(delta)
    return counted_script


def without_ids(events: list[e.Event]) -> list[Any]:
    """Events with ids that tell only which item they name; logprobs are not told twice."""
    encoded = msgspec.json.decode(b"[" + b",".join(map(e.encode, events)) + b"]")
    return [_blank(event) for event in encoded]


def _blank(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _blank(entry) for key, entry in value.items() if key not in ("id", "item_id", "logprobs")}
    return [_blank(entry) for entry in value] if isinstance(value, list) else value


@given(scripts(), st.data())
def test_a_retold_turn_goes_on_where_it_broke_off(script: list[d.Delta], data: st.DataObject) -> None:
    """Whoever saw the first events and then those of the second writer saw what an unbroken turn would have shown."""
    script = counting(script)
    cut = data.draw(st.integers(0, len(script)))
    first = told(script[:cut])
    unbroken = told(script)
    unbroken.writer.close()
    both = [*first.events, *resumed(first.events, script)]
    assert without_ids(both) == without_ids(unbroken.events)
    assert [event.sequence_number for event in both] == list(range(len(both)))


@pytest.mark.parametrize("cut", range(len(RICH) + 1))
def test_every_kind_of_delta_can_be_retold(cut: int) -> None:
    """The same for the one script that has every kind, at every place."""
    first = told(list(RICH[:cut]))
    unbroken = told(list(RICH))
    unbroken.writer.close()
    assert without_ids([*first.events, *resumed(first.events, list(RICH))]) == without_ids(unbroken.events)


@pytest.mark.parametrize("cut", range(4))
def test_thoughts_after_a_summary_can_be_retold(cut: int) -> None:
    """A part of text that comes after parts of a summary is still the one that is open."""
    script: list[d.Delta] = [d.ReasoningSummary("s"), d.Reasoning("a"), d.Reasoning("b")]
    first, unbroken = told(script[:cut]), told(script)
    unbroken.writer.close()
    assert without_ids([*first.events, *resumed(first.events, script)]) == without_ids(unbroken.events)


@pytest.mark.parametrize("after", WIRES)
@pytest.mark.parametrize("before", WIRES)
@pytest.mark.parametrize("cut", range(len(RICH) + 1))
def test_a_turn_can_be_retold_on_any_wire(cut: int, before: WireName, after: WireName) -> None:
    """A process with another setting goes on too, in its own words; the response is the same."""
    first = told(list(RICH[:cut]), WIRES[before])
    unbroken = told(list(RICH))
    unbroken.writer.close()
    fold = Fold()
    for event in [*first.events, *resumed(first.events, list(RICH), WIRES[after])]:
        fold.apply(event)
    assert _blank(msgspec.to_builtins(fold.response)) == _blank(msgspec.to_builtins(unbroken.writer.response))


def test_pieces_may_be_cut_otherwise() -> None:
    """A token that was half said before is told from its middle on."""
    first = told([d.Text("Hel")])
    new = resumed(first.events, [d.Text("H"), d.Text("ello"), d.Text("!")])
    assert [event.delta for event in new if isinstance(event, e.OutputTextDelta)] == ["lo", "!"]


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ([d.Text("Hello")], [d.Text("Help")]),
        ([d.Text("Hello")], [d.Reasoning("Hello")]),
        ([d.Text("a"), d.Refusal("b")], [d.Text("ab")]),
        ([d.ToolCall("c", "f")], [d.ToolCall("c", "g")]),
        ([d.ToolCall("c", "f"), d.ToolArguments("{}")], [d.ToolCall("c", "f"), d.ToolArguments('{"a":1}')]),
        ([d.WholeItem(WHOLE_ITEMS[0])], [d.WholeItem(WHOLE_ITEMS[1])]),
    ],
    ids=["another word", "another kind", "longer than it was", "another tool", "other arguments", "another item"],
)
def test_a_model_that_says_something_else_is_noticed(said: list[d.Delta], again: list[d.Delta]) -> None:
    """Nothing is patched: what differs from what clients have seen is `Diverged`."""
    with pytest.raises(Diverged):
        resumed(told(said).events, again)
