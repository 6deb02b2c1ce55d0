"""The writer: each delta's choreography (wire contract, 8.2 and Appendix A), and what holds for all of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.writing import CITED, LOGPROB, NOW, RICH, SEARCH, WHOLE_ITEMS, Recording, begun, recorded, scripts
from ore.core import deltas as d
from ore.core.fold import Fold
from ore.core.writer import ResponseWriter
from ore.errors import ModelFailed
from ore.protocol import events as e
from ore.protocol.decoding import JsonObject

STATUSES = ("completed", "incomplete", "failed", "cancelled")


def names(recording: Recording) -> list[str]:
    return [event["type"].removeprefix("response.") for event in recording.wire]


def body(recording: Recording) -> list[JsonObject]:
    """The events between `in_progress` and the terminal one, without their numbers."""
    return [{key: value for key, value in event.items() if key != "sequence_number"} for event in recording.wire[2:-1]]


def test_reasoning_and_text_follow_the_canonical_skeleton() -> None:
    """Appendix A.2, event by event."""
    recording = recorded([d.ReasoningSummary("Think"), d.ReasoningSummary("ing."), d.Text("Hi"), d.Text(".")])
    assert names(recording) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    wire = recording.wire
    assert wire[0]["response"]["status"] == "in_progress"
    assert wire[0]["response"]["output"] == []
    assert wire[0]["response"]["usage"] is None
    assert wire[2]["output_index"] == 0
    assert wire[2]["item"] == {"type": "reasoning", "id": "reasoning_1", "status": "in_progress", "summary": []}
    assert wire[3]["part"] == {"type": "summary_text", "text": ""}
    assert wire[7]["part"] == {"type": "summary_text", "text": "Thinking."}
    assert wire[9]["output_index"] == 1
    assert wire[9]["item"]["content"] == []
    assert wire[10]["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert wire[15]["item"]["status"] == "completed"
    assert wire[16]["response"] == recording.final


def test_a_function_call_follows_the_canonical_skeleton() -> None:
    """Appendix A.3: no content index and no content part; the done event has the whole arguments."""
    assert body(recorded([d.ToolCall("call_1", "f"), d.ToolArguments('{"a"'), d.ToolArguments(":1}")])) == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {
                "type": "function_call",
                "id": "function_call_1",
                "call_id": "call_1",
                "name": "f",
                "arguments": "",
                "status": "in_progress",
            },
        },
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "function_call_1",
            "output_index": 0,
            "delta": '{"a"',
        },
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "function_call_1",
            "output_index": 0,
            "delta": ":1}",
        },
        {
            "type": "response.function_call_arguments.done",
            "item_id": "function_call_1",
            "output_index": 0,
            "name": "f",
            "arguments": '{"a":1}',
        },
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {
                "type": "function_call",
                "id": "function_call_1",
                "call_id": "call_1",
                "name": "f",
                "arguments": '{"a":1}',
                "status": "completed",
            },
        },
    ]


PLACE = {"item_id": "message_1", "output_index": 0, "content_index": 0}
CHOREOGRAPHY: dict[str, tuple[list[d.Delta], list[str]]] = {
    "nothing": ([], []),
    "empty text": ([d.Text("")], []),
    "text": ([d.Text("a")], ["item+", "part+", "text", "text.", "part.", "item."]),
    "empty text between": (
        [d.Text("a"), d.Text(""), d.Text("b")],
        ["item+", "part+", "text", "text", "text.", "part.", "item."],
    ),
    "logprobs without text": ([d.Text("", (LOGPROB,))], ["item+", "part+", "text", "text.", "part.", "item."]),
    "citation": (
        [d.Text("a"), d.Annotation(CITED), d.Text("b")],
        ["item+", "part+", "text", "note", "text", "text.", "part.", "item."],
    ),
    "citation of nothing": ([d.Annotation(CITED)], ["item+", "part+", "note", "text.", "part.", "item."]),
    "refusal": ([d.Refusal("a")], ["item+", "part+", "refusal", "refusal.", "part.", "item."]),
    "text and refusal share a message": (
        [d.Text("a"), d.Refusal("b"), d.Text("c")],
        [
            *("item+", "part+", "text", "text.", "part."),
            *("part+", "refusal", "refusal.", "part."),
            *("part+", "text", "text.", "part.", "item."),
        ],
    ),
    "raw reasoning": ([d.Reasoning("a")], ["item+", "part+", "think", "think.", "part.", "item."]),
    "summaries by index": (
        [d.ReasoningSummary("a", 0), d.ReasoningSummary("b", 1), d.ReasoningSummary("c", 1)],
        ["item+", "sum+", "sum", "sum.", "sum-", "sum+", "sum", "sum", "sum.", "sum-", "item."],
    ),
    "raw and summary share an item": (
        [d.Reasoning("a"), d.ReasoningSummary("b")],
        ["item+", "part+", "think", "think.", "part.", "sum+", "sum", "sum.", "sum-", "item."],
    ),
    "reasoning ends at text": (
        [d.Reasoning("a"), d.Text("b")],
        [
            *("item+", "part+", "think", "think.", "part.", "item."),
            *("item+", "part+", "text", "text.", "part.", "item."),
        ],
    ),
    "call without arguments": ([d.ToolCall("c", "f")], ["item+", "args.", "item."]),
    "empty arguments": ([d.ToolCall("c", "f"), d.ToolArguments("")], ["item+", "args.", "item."]),
    "two calls": (
        [d.ToolCall("c", "f"), d.ToolArguments("{}"), d.ToolCall("d", "f"), d.ToolArguments("{}")],
        ["item+", "args", "args.", "item.", "item+", "args", "args.", "item."],
    ),
    "custom call": (
        [d.ToolCall("c", "f", "custom_tool_call"), d.ToolArguments("x")],
        ["item+", "input", "input.", "item."],
    ),
    "whole item": ([d.WholeItem(WHOLE_ITEMS[0])], ["item+", "item."]),
    "whole item closes text": (
        [d.Text("a"), d.WholeItem(WHOLE_ITEMS[0]), d.Text("b")],
        [
            *("item+", "part+", "text", "text.", "part.", "item."),
            *("item+", "item."),
            *("item+", "part+", "text", "text.", "part.", "item."),
        ],
    ),
}
SHORT: dict[type[e.Event], str] = {
    e.OutputItemAdded: "item+",
    e.OutputItemDone: "item.",
    e.ContentPartAdded: "part+",
    e.ContentPartDone: "part.",
    e.OutputTextDelta: "text",
    e.OutputTextDone: "text.",
    e.OutputTextAnnotationAdded: "note",
    e.RefusalDelta: "refusal",
    e.RefusalDone: "refusal.",
    e.ReasoningDelta: "think",
    e.ReasoningDone: "think.",
    e.ReasoningSummaryPartAdded: "sum+",
    e.ReasoningSummaryTextDelta: "sum",
    e.ReasoningSummaryTextDone: "sum.",
    e.ReasoningSummaryPartDone: "sum-",
    e.FunctionCallArgumentsDelta: "args",
    e.FunctionCallArgumentsDone: "args.",
    e.CustomToolCallInputDelta: "input",
    e.CustomToolCallInputDone: "input.",
    e.PassedOn: "passed_on",
}


@pytest.mark.parametrize(("deltas", "events"), CHOREOGRAPHY.values(), ids=CHOREOGRAPHY)
def test_each_delta_has_its_choreography(deltas: list[d.Delta], events: list[str]) -> None:
    """Items and parts are opened once, filled, and closed before the next one opens; nothing empty is said."""
    assert [SHORT[type(event)] for event in recorded(deltas).events[2:-1]] == events


def test_the_rich_script_has_every_event() -> None:
    """What the tests of the wire record covers every event that the writer can make."""
    seen = {type(event) for status in STATUSES for event in recorded(RICH, status).events}
    assert set(SHORT) | {e.Created, e.InProgress, e.Completed, e.Incomplete, e.Failed, e.Error} == seen


def test_logprobs_and_citations_are_whole_in_the_done_events() -> None:
    """The delta has its own logprobs; the done event, the part and the final item have all of them."""
    recording = recorded([d.Text("a", (LOGPROB,)), d.Annotation(CITED), d.Text("b", (LOGPROB,))])
    wire = recording.wire
    assert wire[4] == {**PLACE, "type": "response.output_text.delta", "sequence_number": 4} | {
        "delta": "a",
        "logprobs": [LOGPROB],
    }
    assert wire[5] == {**PLACE, "type": "response.output_text.annotation.added", "sequence_number": 5} | {
        "annotation_index": 0,
        "annotation": CITED,
    }
    assert wire[7]["logprobs"] == [LOGPROB, LOGPROB]
    part = {"type": "output_text", "text": "ab", "annotations": [CITED], "logprobs": [LOGPROB, LOGPROB]}
    assert wire[8]["part"] == part
    assert recording.final["output"][0]["content"] == [part]


def test_the_next_part_starts_without_the_last_one_s_citations_and_logprobs() -> None:
    """What belongs to one part does not leak into the next."""
    recording = recorded([d.Text("a", (LOGPROB,)), d.Annotation(CITED), d.Refusal("r"), d.Text("b")])
    first, _, last = recording.final["output"][0]["content"]
    assert first["annotations"] == [CITED]
    assert last == {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}


def test_a_whole_item_is_kept_as_it_came() -> None:
    """An upstream's item keeps its id, its unknown keys and its nulls; one without an id gets ours."""
    item = {"type": "acme:thing", "id": "t_1", "status": "odd", "n": None}
    bare = {"type": "web_search_call", "status": "completed"}
    assert recorded([d.WholeItem(item), d.WholeItem(bare)]).final["output"] == [
        item,
        {**bare, "id": "web_search_call_1"},
    ]
    assert "id" not in bare


def test_a_model_that_said_nothing_gets_an_empty_message() -> None:
    """An answer always has an output item, if only an empty text."""
    recording = Recording()
    recording.writer.write_empty_message()
    recording.end()
    assert recording.final["output"][0]["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


@pytest.mark.parametrize("deltas", [[d.ToolArguments("{}")], [d.Text("a"), d.ToolArguments("{}")], [d.Finish("stop")]])
def test_a_delta_that_belongs_nowhere_is_a_bug(deltas: list[d.Delta]) -> None:
    """Arguments without a call, and `Finish`, cannot be written."""
    with pytest.raises(TypeError):
        Recording().write(deltas)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("opened", [None, *RICH[:14]], ids=lambda delta: type(delta).__name__)
def test_each_status_has_its_ending(status: str, opened: d.Delta | None) -> None:
    """One terminal event, `error` before `failed`, none for `cancelled`; an item that was open is incomplete."""
    deltas = [opened] if opened else []
    if isinstance(opened, d.ToolArguments):
        deltas.insert(0, d.ToolCall("c", "f"))
    recording = recorded(deltas, status)
    final = recording.final
    endings = {"completed": ["completed"], "incomplete": ["incomplete"], "failed": ["error", "failed"], "cancelled": []}
    ended = [name for name in names(recording) if name in ("completed", "incomplete", "failed", "error")]
    assert ended == endings[status]
    assert final["status"] == status
    assert final["completed_at"] == (NOW if status == "completed" else None)
    assert final["incomplete_details"] == ({"reason": "max_output_tokens"} if status == "incomplete" else None)
    failure = {"code": "server_error", "message": "The model broke."}
    assert final["error"] == (failure if status == "failed" else None)
    assert final["usage"]["total_tokens"] == 11
    if opened:
        assert final["output"][-1]["status"] == ("completed" if status == "completed" else "incomplete")
    if ended:
        assert recording.wire[-1]["response"] == final


def test_the_error_event_has_both_shapes() -> None:
    """Nested for Open Responses and flat for OpenAI, with the same words (8.4)."""
    recording = Recording()
    fault = ModelFailed("It broke.", code="engine", param="model")
    recording.writer.end(recording.writer.final("failed", now=NOW, usage=None), fault)
    error = {"type": "server_error", "code": "engine", "message": "It broke.", "param": "model"}
    assert recording.wire[2] == {
        "type": "error",
        "sequence_number": 2,
        "error": error,
        "code": "engine",
        "message": "It broke.",
        "param": "model",
    }


def test_usage_has_all_keys_and_adds_up() -> None:
    """The total is the sum, and both details are there (4.5)."""
    assert recorded([]).final["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 11,
    }


def test_usage_of_turns_adds_up() -> None:
    """The usage of a response is the sum over its samplings."""
    one = d.Usage(input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4)
    assert one + one == d.Usage(input_tokens=2, output_tokens=4, cached_tokens=6, reasoning_tokens=8)


PRESENT = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "store"),
    *("max_output_tokens", "max_tool_calls", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
}
NULLS = {
    *("completed_at", "incomplete_details", "previous_response_id", "instructions", "error", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key"),
}


def test_a_response_has_all_keys_and_nulls_only_where_they_may_be() -> None:
    """The 31 keys are there from the first event on, and no other but `user` when it was sent (4.1)."""
    first = Recording().wire[0]["response"]
    assert set(first) == PRESENT
    assert {key for key, value in first.items() if value is None} == NULLS
    assert set(Recording(begun(user="u")).wire[0]["response"]) == PRESENT | {"user"}


ITEM_KEYS: dict[str, tuple[list[d.Delta], set[str]]] = {
    "message": ([d.Text("a")], {"type", "id", "status", "role", "content"}),
    "summary": ([d.ReasoningSummary("a")], {"type", "id", "status", "summary"}),
    "raw reasoning": ([d.Reasoning("a")], {"type", "id", "status", "summary", "content"}),
    "call": ([d.ToolCall("c", "f")], {"type", "id", "status", "call_id", "name", "arguments"}),
    "custom": ([d.ToolCall("c", "f", "custom_tool_call")], {"type", "id", "status", "call_id", "name", "input"}),
}


@pytest.mark.parametrize(("deltas", "keys"), ITEM_KEYS.values(), ids=ITEM_KEYS)
def test_an_item_has_its_keys_and_never_a_null(deltas: list[d.Delta], keys: set[str]) -> None:
    """Optional keys are absent when unset: `phase`, `content`, `encrypted_content` are never null (4.2)."""
    (item,) = recorded(deltas).final["output"]
    assert set(item) == keys
    raw = b"".join(e.encode(event) for event in recorded(deltas).events[2:-1])
    assert b"null" not in raw
    assert b"obfuscation" not in raw


def parts_of(item: JsonObject) -> list[JsonObject]:
    return [*item.get("content", []), *item.get("summary", [])]


def deltas_of(wire: list[JsonObject]) -> dict[tuple[Any, ...], str]:
    """The concatenated deltas by the place that they name."""
    text: dict[tuple[Any, ...], str] = {}
    for event in wire:
        if event["type"].endswith(".delta"):
            text[place(event)] = text.get(place(event), "") + event["delta"]
    return text


def place(event: JsonObject) -> tuple[Any, ...]:
    kind = event["type"].removeprefix("response.").rpartition(".")[0]
    return (kind, event["item_id"], event.get("content_index"), event.get("summary_index"))


ENDINGS = st.sampled_from(STATUSES)


# Numbers run from 0 without a gap, output indices are dense, ids are unique, and each added item is done exactly once.
@settings(deadline=None, max_examples=150)
@given(scripts(), ENDINGS)
def test_numbers_indices_and_ids(script: list[d.Delta], status: str) -> None:
    """The envelope of the stream holds for any deltas."""
    recording = recorded(script, status)
    wire = recording.wire
    assert [event["sequence_number"] for event in wire] == list(range(len(wire)))
    added = [event for event in wire if event["type"] == "response.output_item.added"]
    done = [event for event in wire if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert [event["output_index"] for event in done] == list(range(len(added)))
    identities = [(event["item"]["type"], event["item"]["id"]) for event in added]
    assert [(event["item"]["type"], event["item"]["id"]) for event in done] == identities
    assert len({made for _, made in identities}) == len(identities)
    assert [event["item"] for event in done] == recording.final["output"]
    assert {event["response"]["id"] for event in wire if "response" in event} == {"resp_1"}
    of_items = {event["output_index"]: event["item"]["id"] for event in added}
    assert all(of_items[event["output_index"]] == event["item_id"] for event in wire if "item_id" in event)


# What the deltas of a place spell is what its done event, its part and the final item say.
@settings(deadline=None, max_examples=150)
@given(scripts(), ENDINGS)
def test_deltas_are_the_done_values_are_the_final_values(script: list[d.Delta], status: str) -> None:
    """No reader of one kind of event learns something else than a reader of another."""
    recording = recorded(script, status)
    spelled = deltas_of(recording.wire)
    output = recording.final["output"]
    for event in recording.wire:
        kind = event["type"]
        if kind.endswith(".done") and "item_id" in event and "part" not in event:
            whole = next(event[key] for key in ("text", "refusal", "arguments", "input") if key in event)
            assert whole == spelled.get(place(event), "")
            item = output[event["output_index"]]
            if "content_index" in event:
                part = item["content"][event["content_index"]]
                assert whole == part.get("text", part.get("refusal"))
            elif "summary_index" in event:
                assert whole == item["summary"][event["summary_index"]]["text"]
            else:
                assert whole == item.get("arguments", item.get("input"))
        elif kind.endswith("part.done"):
            parts = output[event["output_index"]]["content" if "content_index" in event else "summary"]
            assert event["part"] == parts[event.get("content_index", event.get("summary_index"))]


# All that a backend said is in the final response, in the order in which it said it.
@settings(deadline=None, max_examples=100)
@given(scripts())
def test_nothing_that_was_said_is_lost(script: list[d.Delta]) -> None:
    """The texts of the deltas, kind by kind, are the texts of the response."""
    made = [item for item in recorded(script).final["output"] if not item["id"].startswith("up_")]
    given_without_id = [delta.item for delta in script if isinstance(delta, d.WholeItem) and "id" not in delta.item]
    made = [item for item in made if {k: v for k, v in item.items() if k != "id"} not in given_without_id]
    parts = [part for item in made for part in parts_of(item)]
    kinds = {
        "output_text": d.Text,
        "refusal": d.Refusal,
        "reasoning_text": d.Reasoning,
        "summary_text": d.ReasoningSummary,
    }
    for kind, delta_type in kinds.items():
        said = "".join(delta.text for delta in script if isinstance(delta, delta_type))
        assert said == "".join(p.get("text", p.get("refusal")) for p in parts if p["type"] == kind)
    arguments = "".join(delta.text for delta in script if isinstance(delta, d.ToolArguments))
    assert arguments == "".join(item.get("arguments", item.get("input", "")) for item in made)
    citations = sum(isinstance(delta, d.Annotation) for delta in script)
    assert citations == sum(len(part.get("annotations", [])) for part in parts)


# Folding the recorded events afresh, at every prefix, gives the response as the writer saw it at that moment.
@settings(deadline=None, max_examples=80)
@given(scripts(max_size=5), ENDINGS)
def test_the_stream_is_the_response(script: list[d.Delta], status: str) -> None:
    """A reader of the events and a reader of the snapshot know the same at every moment."""
    snapshots: list[bytes] = []
    events: list[e.Event] = []

    def take(event: e.Event) -> None:
        events.append(event)
        snapshots.append(e.encode(writer.response))

    recording = Recording()
    events.extend(recording.events)
    writer = recording.writer
    writer._sink = take
    recording.write(script).end(status)
    afresh = Fold()
    for number, event in enumerate(events):
        afresh.apply(event)
        if number >= 2:
            assert e.encode(afresh.response) == snapshots[number - 2]
    if status != "cancelled":
        assert e.encode(afresh.response) == e.encode(writer.response)


# Each event is valid by the published schema, and so is the final response in every status.
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=scripts(kinds=("function_call",)), status=ENDINGS)
def test_every_event_is_valid_by_the_published_schema(specification: Any, script: list[d.Delta], status: str) -> None:
    """The document accepts all that the writer says; custom tool calls are OpenAI's and not in it."""
    recording = recorded(script, status)
    for event in recording.wire:
        specification.check(schema_of(event["type"]), event)
    specification.check("ResponseResource", recording.final)


def schema_of(kind: str) -> str:
    """`response.output_text.delta` is `ResponseOutputTextDeltaStreamingEvent`; summary texts drop their `text`."""
    kind = kind.replace("reasoning_summary_text.", "reasoning_summary.")
    return "".join(word.capitalize() for word in kind.replace(".", "_").split("_")) + "StreamingEvent"


def test_the_sink_gets_each_event_once_it_is_applied() -> None:
    """Whoever hears of an event and looks at the response sees the event's effect."""
    seen: list[tuple[str, int]] = []
    writer = ResponseWriter(lambda purpose: f"{purpose}_1", lambda _: seen.append(("x", len(writer.response.output))))
    writer.begin(begun())
    writer.write(d.Text("a"))
    assert [count for _, count in seen] == [0, 0, 1, 1, 1]


def test_events_that_were_handed_on_never_change() -> None:
    """An event that a follower has not sent yet is not altered by what comes after it."""
    events: list[tuple[e.Event, bytes]] = []
    recording = Recording()
    recording.writer._sink = lambda event: events.append((event, e.encode(event)))
    recording.write(RICH).end()
    assert [e.encode(event) for event, _ in events] == [then for _, then in events]


def test_the_request_s_response_is_not_changed_by_the_writer() -> None:
    """The response that a run began with stays as it was."""
    first = begun()
    then = msgspec.json.encode(first)
    Recording(first).write(RICH).end()
    assert msgspec.json.encode(first) == then


def test_an_upstreams_item_is_passed_on_with_its_events() -> None:
    """Each event keeps its fields, and gets our place and number; the item keeps its id."""
    searching = d.ItemEvent("response.web_search_call.searching", {"item_id": "ws_upstream", "more": [1]})
    recording = recorded(
        [d.Text("Hi"), d.ItemBegun(SEARCH | {"status": "in_progress"}), searching, d.WholeItem(SEARCH)]
    )
    added, passed, done = recording.wire[-4:-1]
    assert added["item"] == SEARCH | {"status": "in_progress"}
    assert {key: passed[key] for key in ("type", "item_id", "output_index", "more")} == {
        "type": "response.web_search_call.searching",
        "item_id": "ws_upstream",
        "output_index": 1,
        "more": [1],
    }
    assert done["item"] == recording.final["output"][1] == SEARCH
    assert [e.encode(e.decode(e.encode(event))) for event in recording.events] == list(map(e.encode, recording.events))


def test_an_event_without_an_item_id_gets_none() -> None:
    """Shell events name no item (section 7.2)."""
    events = [d.ItemBegun(SEARCH), d.ItemEvent("response.shell_call_command.added", {"command_index": 0})]
    assert "item_id" not in recorded([*events, d.WholeItem(SEARCH)]).wire[-3]


def test_an_id_that_an_upstream_gives_twice_is_used_once() -> None:
    """Ids are unique within a response, whatever an upstream does (section 5)."""
    again = [d.ItemBegun(SEARCH), d.ItemEvent("response.web_search_call.completed", {"item_id": "x"})]
    recording = recorded([d.WholeItem(SEARCH), *again, d.WholeItem(SEARCH)])
    first, second = recording.final["output"]
    assert (first["id"], second["id"]) == ("ws_upstream", "web_search_call_1")
    assert recording.wire[-3]["item_id"] == "web_search_call_1"


def test_items_and_parts_are_kept_apart_where_the_upstream_tells_them_apart() -> None:
    """Two messages with their phases, and two parts of one."""
    said = [d.Begin("message", "commentary"), d.Text("a"), d.Begin("part"), d.Text("b")]
    output = recorded([*said, d.Begin("message", "final_answer"), d.Text("c"), d.Begin("message"), d.Text("d")]).final[
        "output"
    ]
    assert [item.get("phase") for item in output] == ["commentary", "final_answer", None]
    assert [[part["text"] for part in item["content"]] for item in output] == [["a", "b"], ["c"], ["d"]]


def test_reasoning_ends_with_the_state_that_the_backend_wants_back() -> None:
    """What comes after it is another item, which has a state of its own."""
    said = [d.Reasoning("a"), d.ReasoningState("1"), d.Reasoning("b"), d.ReasoningState("2"), d.ReasoningState("3")]
    recording = Recording(seal=lambda text, state: f"{text}/{state}")
    output = recording.write(said).end().final["output"]
    assert [item["encrypted_content"] for item in output] == ["a/1", "b/2", "/3"]
