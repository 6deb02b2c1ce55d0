"""The Responses dialect over HTTP: whatever an upstream tells, and however it tells it, comes out once and in order."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.writing import CITED, LOGPROB, Recording, counted
from ore.backends.base import JsonObject, ModelRequest
from ore.backends.dialect import UpstreamError, unpacked
from ore.backends.event_stream import EventReader
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.responses import Responses
from ore.backends.responses.decoder import ResponsesDecoder
from ore.backends.responses.tracks import Known
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.callable_tools import callable_tools
from ore.core.deltas import Delta, Finish, ItemBegun, ReasoningState, Text, ToolArguments, ToolCall, Usage
from ore.errors import HTTPFault, InvalidRequest, ModelFailed, NotFound, TooManyRequests, Unavailable
from providers.hosted_items import BY_PROGRAM, FAMILIES, SEARCH, tell_all
from providers.responses_server import (
    ResponsesServer,
    Telling,
    function_call,
    reasoning_item,
    refused,
    sealed,
    text_message,
)
from providers.stub_server import Play, as_json, events, stub_server

pytestmark = pytest.mark.anyio

USER: JsonObject = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
USAGE = Usage(input_tokens=20, output_tokens=7, cached_tokens=8, reasoning_tokens=3)


def provider(url: str, kind: str = "openai") -> Provider:
    dialect = Responses(counted())
    options = UpstreamOptions(base_url=f"{url}/v1", headers=dialect.key_headers("sk-test"))
    return Provider(dialect, Upstream("up", options), ProviderOptions(kind=kind))


async def heard(play: Play, **fields: Any) -> list[Delta]:
    """The deltas of an answer, over HTTP."""
    request = ModelRequest(**{"model": "gpt-5", "items": (USER,), **fields})
    async with stub_server(ResponsesServer(play).answer) as stub:
        upstream = provider(stub.url)
        await upstream.start()
        try:
            async with upstream.stream(request) as deltas:
                return [delta async for delta in deltas]
        finally:
            await upstream.stop()


def output_of(deltas: Sequence[Delta]) -> list[JsonObject]:
    """What ORE's own response has of it."""
    said = [delta for delta in deltas if not isinstance(delta, Finish)]
    recording = Recording(seal=lambda _text, _state: "sealed").write(said).end()
    output: list[JsonObject] = recording.final["output"]
    return output


def bare(item: JsonObject) -> JsonObject:
    """An item without what ORE gives anew."""
    told = item["type"] in ("message", "function_call", "custom_tool_call", "reasoning")
    dropped = {"encrypted_content", *(("id",) if told else ()), *(("status",) if item["type"] == "reasoning" else ())}
    return {key: value for key, value in item.items() if key not in dropped}


def summary(deltas: Sequence[Delta]) -> list[Any]:
    """An output in short: texts, calls, and the types of the others."""
    return [_short(item) for item in output_of(deltas)]


def _short(item: JsonObject) -> Any:
    if item["type"] in ("message", "reasoning"):
        parts = [*item.get("summary", []), *item.get("content", [])]
        return (item["type"], *(part.get("text", part.get("refusal")) for part in parts))
    if item["type"] in ("function_call", "custom_tool_call"):
        return (item["name"], item["call_id"], item.get("arguments", item.get("input")))
    return item["type"]


def decoder_of(tools: Sequence[JsonObject]) -> ResponsesDecoder:
    return ResponsesDecoder(Known("up", {tool.shown: tool for tool in callable_tools(tools)}, counted()))


def decoded(told: Sequence[Any], tools: Sequence[JsonObject] = ()) -> list[Delta]:
    """The deltas of events, without HTTP."""
    deltas: list[Delta] = []
    decoder = decoder_of(tools)
    for event in told:
        deltas += decoder.feed(msgspec.json.encode(event))
        if deltas and isinstance(deltas[-1], Finish):
            return deltas
    return [*deltas, *decoder.end()]


# What passes


def rich() -> Telling:
    """Everything that an honest upstream can tell."""
    said = text_message("Hello.", "msg_1", phase="commentary")
    said["content"][0]["annotations"] = [CITED, {**CITED, "title": "B"}]
    said["content"][0]["logprobs"] = [LOGPROB]
    said["content"].append({"type": "output_text", "text": "More.", "annotations": [CITED], "logprobs": []})
    said["content"].append({"type": "refusal", "refusal": "But no."})
    raw = reasoning_item("rs_2") | {"content": [{"type": "reasoning_text", "text": text} for text in ("So", "then")]}
    custom = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"}
    telling = Telling().reasoning(reasoning_item("rs_1", "First.", "Second.")).message(said)
    telling.reasoning(raw).reasoning(reasoning_item("rs_3"))
    telling.call(function_call("f", '{"a":1}', "call_1", "fc_1", namespace="crm"))
    telling.call({**custom, "status": "completed"})
    telling.message(text_message("First", "msg_2")).message(text_message("Second", "msg_3"))
    telling.begin({**BY_PROGRAM, "arguments": "", "status": "in_progress"})
    telling.about("response.function_call_arguments.delta", delta="{}")
    telling.about("response.function_call_arguments.done", arguments="{}", name="f").end_item(BY_PROGRAM)
    return tell_all(telling).completed()


async def test_everything_comes_out_as_it_went_in() -> None:
    """Item by item equal, but for the ids of what is told piece by piece, and for our seal."""
    telling = rich()
    deltas = await heard(telling.play())
    shown, told = output_of(deltas), telling.output
    assert [item["type"] for item in shown] == [item["type"] for item in told]
    for ours, theirs in zip(shown, told, strict=True):
        if theirs is BY_PROGRAM:
            assert ours == theirs
        else:
            assert bare(ours) == bare(theirs)
    assert deltas[-1] == Finish("tool_calls", USAGE, "priority")


async def test_items_of_the_upstream_keep_id_and_events() -> None:
    """Their events are shown under their own names, in order, with every field but the numbers."""
    telling = tell_all(Telling()).completed()
    recording = Recording().write(d for d in await heard(telling.play()) if not isinstance(d, Finish))

    def of_items(told: Sequence[JsonObject]) -> list[JsonObject]:
        mine = [event for event in told if "response" not in event]
        return [{key: value for key, value in event.items() if key != "sequence_number"} for event in mine]

    assert of_items(recording.wire) == of_items(telling.events)


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_family_passes_alone(family: str) -> None:
    """Begun, followed, whole."""
    item, begun, told = FAMILIES[family]
    deltas = await heard(Telling().hosted(item, *told, begun=begun).completed().play())
    assert isinstance(deltas[0], ItemBegun)
    assert output_of(deltas) == [item]
    waits = family in ("shell", "patch", "computer", "local shell")
    assert deltas[-1] == Finish("tool_calls" if waits else "stop", USAGE, "priority")


async def test_reasoning_keeps_what_its_upstream_reads() -> None:
    """The state is bound to the provider, and holds the item as it came out."""
    item = reasoning_item("rs_1", "First.")
    (state,) = [
        d.state for d in await heard(Telling().reasoning(item).completed().play()) if isinstance(d, ReasoningState)
    ]
    kept = unpacked({"state": state}, "up")
    assert kept == {"id": "rs_1", "summary": item["summary"], "encrypted_content": sealed("rs_1")}
    assert unpacked({"state": state}, "another") is None


async def test_tokens_get_their_bytes() -> None:
    """OpenAI's deltas leave them out; the contract demands them."""
    told = {"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1.0}]}
    event = {"type": "response.output_text.delta", "delta": "é", "logprobs": [told], "sequence_number": 1}
    (text,) = [delta for delta in decoded([event]) if isinstance(delta, Text)]
    assert text.logprobs == (
        {**told, "bytes": [195, 169], "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": [101]}]},
    )


def test_calls_come_back_under_the_clients_names() -> None:
    """Functions that stand for a namespace's tool, for free text, and for a native tool."""
    function = {"type": "function", "name": "f"}
    tools = [function, {"type": "namespace", "name": "crm", "tools": [function]}, {"type": "custom", "name": "sql"}]
    told = Telling()
    for at, (name, arguments) in enumerate(
        [("crm__f", "{}"), ("sql", '{"input":"SELECT"}'), ("shell", "{}"), ("x", "")]
    ):
        told.call(function_call(name, arguments, f"call_{at}", f"fc_{at}"))
    assert decoded(told.completed().events, [*tools, {"type": "shell"}])[:-1] == [
        ToolCall("call_0", "f", "function_call", "crm"),
        ToolArguments("{"),
        ToolArguments("}"),
        ToolCall("call_1", "sql", "custom_tool_call"),
        ToolArguments("SELECT"),
        ToolCall("call_2", "shell", "shell_call"),
        ToolArguments("{"),
        ToolArguments("}"),
        ToolCall("call_3", "x"),
    ]


def test_free_text_streams_as_it_is_written() -> None:
    """Out of the argument that stands for it, cut where it may be; an argument of another form comes at the end."""
    tools = [{"type": "custom", "name": "sql"}]
    begun = {"type": "function_call", "id": "c", "call_id": "1", "name": "sql", "arguments": ""}
    pieces = ['{"in', 'put":"SEL', "ECT\\", 'n1"}']
    decoder = decoder_of(tools)
    heard = [list(decoder.feed(msgspec.json.encode(event))) for event in (added(begun), *map(args, pieces))]
    assert heard == [
        [ToolCall("1", "sql", "custom_tool_call")],
        [],
        [ToolArguments("SEL")],
        [ToolArguments("ECT")],
        [ToolArguments("\n1")],
    ]
    other = [added(begun), args("SELECT"), added({**begun, "id": "d", "call_id": "2"}, 1), args("{}", 1, "d"), end()]
    assert decoded(other, tools)[:-1] == [
        ToolCall("1", "sql", "custom_tool_call"),
        ToolArguments("SELECT"),
        ToolCall("2", "sql", "custom_tool_call"),
    ]


# What upstreams get wrong


def ev(kind: str, **fields: Any) -> JsonObject:
    return {"type": f"response.{kind}", **fields}


def added(item: JsonObject, index: int | None = 0) -> JsonObject:
    return ev("output_item.added", item=item, output_index=index)


def done(item: JsonObject, index: int | None = 0) -> JsonObject:
    return ev("output_item.done", item=item, output_index=index)


def text(delta: str, index: int = 0, item_id: str = "m") -> JsonObject:
    return ev("output_text.delta", delta=delta, output_index=index, item_id=item_id, content_index=0)


def thought(delta: str, name: str = "reasoning_text") -> JsonObject:
    return ev(f"{name}.delta", delta=delta, output_index=0, item_id="r", content_index=0)


def args(delta: str, index: int = 0, item_id: str = "c") -> JsonObject:
    return ev("function_call_arguments.delta", delta=delta, output_index=index, item_id=item_id)


def end(*output: JsonObject) -> JsonObject:
    return ev("completed", response={"status": "completed", "output": list(output)})


def empty(item_id: str = "m") -> JsonObject:
    return {"type": "message", "id": item_id, "role": "assistant", "content": []}


def call(arguments: str = "", item_id: str = "c", call_id: str = "1") -> JsonObject:
    return {"type": "function_call", "id": item_id, "call_id": call_id, "name": "f", "arguments": arguments}


HI = text_message("Hi", "m")
BARE_HI = text("Hi") | {"output_index": None, "item_id": None, "content_index": None}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}
EMPTY_THOUGHT = {"type": "reasoning", "id": "r", "summary": []}
TWO = [("f", "1", "{}"), ("f", "2", "{}")]

WRONG: dict[str, tuple[list[JsonObject], list[Any]]] = {
    "nothing but deltas": ([text("H"), text("i"), end()], [("message", "Hi")]),
    "no ids and no indexes": ([BARE_HI, end()], [("message", "Hi")]),
    "an item that never ends": ([added(empty()), text("Hi"), end()], [("message", "Hi")]),
    "text in the done event only": (
        [added(empty()), ev("output_text.done", text="Hi", item_id="m", output_index=0), end()],
        [("message", "Hi")],
    ),
    "text in the part only": (
        [added(empty()), ev("content_part.done", part=HI["content"][0], item_id="m", output_index=0), end()],
        [("message", "Hi")],
    ),
    "text in the item only": ([added(empty()), done(HI), end(HI)], [("message", "Hi")]),
    "text in the response only": ([end(HI)], [("message", "Hi")]),
    "text in the added item only": ([added(HI), end()], [("message", "Hi")]),
    "half of the text streamed": ([added(empty()), text("H"), end(HI)], [("message", "Hi")]),
    "text that is told otherwise in the end": ([added(empty()), text("Ho"), done(HI), end(HI)], [("message", "Ho")]),
    "a response without output": ([added(empty()), text("Hi"), done(HI), end()], [("message", "Hi")]),
    "an event sent twice": (
        [text("a") | {"sequence_number": 1}] * 2 + [text("a") | {"sequence_number": 2}, end()],
        [("message", "aa")],
    ),
    "equal pieces without numbers": ([text("a"), text("a"), end()], [("message", "aa")]),
    "an item begun and done twice": (
        [added(empty()), added(empty()), text("Hi"), done(HI), done(HI), added(empty()), text("Hi"), end(HI)],
        [("message", "Hi")],
    ),
    "an item without id done twice": (
        [done({**HI, "id": None}), done({**HI, "id": None}), end()],
        [("message", "Hi")],
    ),
    "one id for two items": (
        [added(empty()), text("a"), done(text_message("a", "m")), added(empty(), 1), text("b", 1),
         done(text_message("b", "m"), 1), end()],
        [("message", "a"), ("message", "b")],
    ),
    "one index for two items": (
        [added(empty("m")), text("a"), done(text_message("a", "m")), added(empty("n")), text("b", 0, "n"),
         done(text_message("b", "n")), end()],
        [("message", "a"), ("message", "b")],
    ),
    "deltas under another id": ([added(empty()), text("Hi", 0, "other"), done(HI), end(HI)], [("message", "Hi")]),
    "deltas under another index": ([added(empty()), text("Hi", 7), done(HI), end(HI)], [("message", "Hi")]),
    "items made anew in the end, and more of them": (
        [added(empty()), text("Hi"), done(HI), end(text_message("\n\n", "x"), text_message("Hi", "y"))],
        [("message", "Hi")],
    ),
    "other ids in the end, of one that was open": (
        [added(empty()), text("H"), end(text_message("\n\n", "x"), text_message("Hi", "y"))],
        [("message", "Hi")],
    ),
    "a call that only the response has": (
        [added(empty()), text("Hi"), done(HI), end(HI, call("{}"))],
        [("message", "Hi"), ("f", "1", "{}")],
    ),
    "calls between each other": (
        [added(call()), added(call("", "d", "2"), 1), args("{"), args("{", 1, "d"), args("}", 1, "d"), args("}"),
         done(call("{}", "d", "2"), 1), done(call("{}")), end()],
        TWO,
    ),
    "calls done in the wrong order": (
        [added(call()), added(call("", "d", "2"), 1), done(call("{}", "d", "2"), 1), done(call("{}")), end()],
        TWO,
    ),
    "calls that never end": (
        [added(call()), args("{}"), ev("function_call_arguments.done", arguments="{}", output_index=0, item_id="c"),
         added(call("", "d", "2"), 1), args("{}", 1, "d"), end()],
        TWO,
    ),
    "a later item that speaks too early": (
        [added(empty()), text("H"), added(call(), 1), args("{}", 1), text("i"), done(HI), done(call("{}"), 1), end()],
        [("message", "Hi"), ("f", "1", "{}")],
    ),
    "a message that goes on after the next": (
        [added(empty()), text("a"), ev("output_text.done", text="a", item_id="m", output_index=0), added(call(), 1),
         args("{}", 1), done(call("{}"), 1), text("b"), end()],
        [("message", "a"), ("f", "1", "{}"), ("message", "b")],
    ),
    "a call that is named late": (
        [ev("function_call_arguments.delta", delta="{", item_id="c"), args("}"), done(call("{}")), end()],
        [("f", "1", "{}")],
    ),
    "a call that is named by its done event": (
        [added({**call(), "name": None}), args("{}"),
         ev("function_call_arguments.done", arguments="{}", name="f", output_index=0, item_id="c"), end()],
        [("f", "1", "{}")],
    ),
    "arguments that are an object": ([done({**call(), "arguments": {"a": 1}}), end()], [("f", "1", '{"a":1}')]),
    "a call without a call id": ([done({**call("{}"), "call_id": None}), end()], [("f", "c", "{}")]),
    "a call without any id": (
        [done({"type": "function_call", "name": "f", "arguments": "{}"}), end()],
        [("f", "call_1", "{}")],
    ),
    "reasoning under Open Responses' name": ([thought("Hm", "reasoning"), end()], [("reasoning", "Hm")]),
    "reasoning in the item only": ([added(EMPTY_THOUGHT), done(THOUGHT), end()], [("reasoning", "Hm")]),
    "reasoning that ends without its item": (
        [added(EMPTY_THOUGHT), thought("Hm"), ev("reasoning_text.done", text="Hm", output_index=0, item_id="r"),
         added(empty(), 1), text("Hi", 1), end()],
        [("reasoning", "Hm"), ("message", "Hi")],
    ),
    "a message at the index of reasoning": (
        [thought("Hm"), text("Hi"), end()],
        [("reasoning", "Hm"), ("message", "Hi")],
    ),
    "reasoning in a part of the wrong type": (
        [added(EMPTY_THOUGHT), ev("content_part.done", part={"type": "output_text", "text": "Hm"}, item_id="r"), end()],
        [("reasoning", "Hm")],
    ),
    "a hosted item that never ends": (
        [added({**SEARCH, "status": "in_progress"}), ev("web_search_call.searching", output_index=0), text("Hi", 1),
         end()],
        ["web_search_call", ("message", "Hi")],
    ),
    "a hosted item that only ends": (
        [ev("web_search_call.searching", output_index=0), done(SEARCH), end(SEARCH)],
        ["web_search_call"],
    ),
    "signs of life within a hosted item": (
        [added({**SEARCH, "status": "in_progress"}), ev("in_progress", response={}), {"type": "ping"}, done(SEARCH),
         end()],
        ["web_search_call"],
    ),
    "events that nobody knows": (
        [ev("novel.thing", x=1), ev("audio.delta", delta="AA=="), {"type": "ping"}, {}, text("Hi"), end()],
        [("message", "Hi")],
    ),
    "items that are none": (
        [added(None), done({"id": "x"}), done(None), text("Hi"), end(None, 1)],
        [("message", "Hi")],
    ),
    "content that is a string": ([done({**HI, "content": "Hi"}), end()], [("message", "Hi")]),
    "a message with parts of a new type": (
        [done({**HI, "content": [{"type": "output_song"}]}), end()],
        [("message", None)],
    ),
    "a response that is done": ([text("Hi"), ev("done", response={"status": "completed"})], [("message", "Hi")]),
    "a status that is not one": (
        [text("Hi"), ev("completed", response={"status": "in_progress"})],
        [("message", "Hi")],
    ),
    "a response that is null": ([text("Hi"), ev("completed", response=None)], [("message", "Hi")]),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
async def test_what_upstreams_get_wrong_is_mended(fault: str) -> None:
    """Everything comes out once, in order, and ends."""
    told, expected = WRONG[fault]
    deltas = await heard(Play(events(*told)))
    assert summary(deltas) == expected
    assert isinstance(deltas[-1], Finish)


@pytest.mark.parametrize("fault", WRONG)
def test_text_is_not_held_back(fault: str) -> None:
    """What is said at the end of a stream that breaks off is the same, without a `Finish`."""
    told = WRONG[fault][0][:-1]
    deltas = decoded(told)
    assert not any(isinstance(delta, Finish) for delta in deltas)
    output_of(deltas)


def test_events_that_name_no_item_are_not_passed_on() -> None:
    """They are no item's, whichever is open."""
    told = WRONG["signs of life within a hosted item"][0]
    assert [type(delta).__name__ for delta in decoded(told)] == ["ItemBegun", "WholeItem", "Finish"]


async def test_two_items_are_told_as_they_come() -> None:
    """An item that is over lets the next speak at once."""
    decoder = ResponsesDecoder(Known("up", {}, counted()))
    told = [added(empty()), text("Hi"), done(HI), added(empty("n"), 1), text("So", 1, "n")]
    said = [list(decoder.feed(msgspec.json.encode(event))) for event in told]
    assert [len(deltas) for deltas in said] == [0, 2, 0, 0, 2]


async def test_a_stream_without_an_end_is_broken_off() -> None:
    """What was said comes first; `[DONE]` says nothing about how the response ended."""
    told = events(text("Hi"), done=True)
    async with stub_server(ResponsesServer(Play(told)).answer) as stub:
        upstream = provider(stub.url)
        await upstream.start()
        said: list[Delta] = []
        with pytest.raises(ModelFailed) as fault:
            async with upstream.stream(ModelRequest(model="gpt-5", items=(USER,))) as deltas:
                async for delta in deltas:
                    said.append(delta)  # noqa: PERF401 - what came before the fault counts
        await upstream.stop()
    assert fault.value.code == "upstream_incomplete"
    assert summary(said) == [("message", "Hi")]


# How answers end


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("max_output_tokens", "max_output_tokens"),
        ("content_filter", "content_filter"),
        ("steered", "max_output_tokens"),
    ],
)
async def test_an_incomplete_response_says_why(reason: str, finish: Any) -> None:
    """Reasons that are not ours become the nearest."""
    told = Telling().message(text_message("Hi", status="incomplete"))
    told.completed("incomplete", incomplete_details={"reason": reason} if reason != "steered" else None)
    assert (await heard(told.play()))[-1] == Finish(finish, USAGE, "priority")


@pytest.mark.parametrize("usage", [None, [], {"input_tokens": 3, "output_tokens": None}])
def test_usage_may_be_missing(usage: Any) -> None:
    """What is not told is zero."""
    finish = decoded([ev("completed", response={"status": "completed", "usage": usage})])[-1]
    assert finish == Finish("stop", Usage(input_tokens=3 if isinstance(usage, dict) else 0))


ERRORS = [
    ({"code": "rate_limit_exceeded", "message": "m"}, TooManyRequests, "rate_limit_exceeded"),
    ({"code": "insufficient_quota", "message": "m"}, TooManyRequests, "insufficient_quota"),
    ({"code": "server_is_overloaded", "message": "m"}, Unavailable, "server_is_overloaded"),
    ({"code": "server_error", "message": "m"}, ModelFailed, "upstream_failed"),
    ({"code": "invalid_model_output", "message": "m"}, ModelFailed, "upstream_failed"),
    ({"code": None, "message": "m"}, ModelFailed, "upstream_failed"),
    ({"code": "invalid_prompt", "message": "m"}, InvalidRequest, "invalid_prompt"),
    ({"code": "image_too_large", "message": "m"}, InvalidRequest, "image_too_large"),
    ({"code": "context_length_exceeded", "message": "m"}, InvalidRequest, "context_length_exceeded"),
    ({"code": "model_not_found", "message": "m"}, NotFound, "model_not_found"),
    ({"code": 429, "message": "m"}, TooManyRequests, "rate_limit_exceeded"),
    ({"type": "invalid_request_error", "message": "m"}, InvalidRequest, "upstream_refused"),
    ({"type": "overloaded_error", "message": "m"}, Unavailable, "server_is_overloaded"),
]


@pytest.mark.parametrize("shape", ["flat", "nested", "failed", "bare"])
@pytest.mark.parametrize(("error", "fault", "code"), ERRORS)
async def test_errors_in_a_stream_are_faults(error: JsonObject, fault: type[HTTPFault], code: str, shape: str) -> None:
    """In an `error` event of both shapes, in a failed response, and alone; never blamed on the wrong side."""
    event = {
        "flat": {**error, "type": "error"} if "type" not in error else {"type": "error", "error": error},
        "nested": {"type": "error", "error": error},
        "failed": ev("failed", response={"status": "failed", "error": error}),
        "bare": {"error": error},
    }[shape]
    with pytest.raises(fault) as raised:
        await heard(Play(events(text("Hi"), event)))
    assert type(raised.value) is fault
    assert raised.value.code == code


async def test_a_cancelled_response_failed() -> None:
    """Nobody here asked for that."""
    with pytest.raises(ModelFailed, match="cancelled"):
        await heard(Play(events(ev("cancelled", response={"status": "cancelled"}))))


async def test_refusals_come_before_the_first_delta() -> None:
    """An HTTP error is raised on entering, in the provider's words."""
    with pytest.raises(InvalidRequest, match="Bad tool") as fault:
        await heard(refused(400, "Bad tool.", param="tools", code="invalid_value"))
    assert (fault.value.param, fault.value.code) == ("tools", "invalid_value")
    with pytest.raises(InvalidRequest) as fault:
        await heard(as_json({"detail": "This model's maximum context length is 10 tokens."}, 422))
    assert (fault.value.param, fault.value.code) == ("input", "context_length_exceeded")


async def test_what_is_no_response_is_garbage() -> None:
    """Another dialect's events say nothing here; JSON that is no object is refused."""
    with pytest.raises(ModelFailed) as fault:
        await heard(Play(events({"choices": [{"delta": {"content": "Hi"}}]}, done=True)))
    assert fault.value.code == "upstream_incomplete"
    with pytest.raises(ModelFailed) as fault:
        await heard(Play([b"data: [1]\n\n"]))
    assert fault.value.code == "upstream_garbage"


async def test_listing_and_counting() -> None:
    """What is listed becomes the profile of the model; counting asks the upstream."""
    capabilities = {"context_window": 4096, "tool_types": ["function"], "reasoning": True}
    server = ResponsesServer(Play(), [{"id": "ore-tiny", "object": "model", "capabilities": capabilities}])
    async with stub_server(server.answer) as stub:
        upstream = provider(stub.url, kind="responses")
        await upstream.start()
        (model,) = await upstream.models()
        assert (model.capabilities.context_window, model.capabilities.reasoning) == (4096, True)
        assert model.capabilities.tool_types == ("function",)
        assert await upstream.count_tokens(ModelRequest(model="ore-tiny", items=(USER,))) == 12
        assert await upstream.count_tokens(ModelRequest(model="other", items=(USER,))) > 0
        assert len(server.bodies) == 1
        await upstream.stop()


# Whatever comes


RICH = rich().events
FRAMES = b"".join(rich().play().steps)  # type: ignore[arg-type]
WHOLE = output_of(decoded(RICH))
OUTLINES = ("created", "in_progress", "part.added", "part.done", "text.done", "refusal.done", "arguments.done")


def _outlines(event: JsonObject) -> bool:
    """Whether an event only tells what another tells too."""
    if event["type"] == "response.output_item.done":
        return event["item"]["type"] in ("message", "function_call", "reasoning")
    return event["type"].endswith(OUTLINES) and event.get("item_id", "")[:2] not in ("ws", "fs", "ci", "ig", "mc", "sh")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_told_twice_may_be_missing(data: st.DataObject) -> None:
    """The same comes out when any events are missing whose content another event has."""
    spare = [at for at, event in enumerate(RICH) if _outlines(event)]
    missing = data.draw(st.sets(st.sampled_from(spare)))
    told = [event for at, event in enumerate(RICH) if at not in missing]
    assert [bare(item) for item in output_of(decoded(told))] == [bare(item) for item in WHOLE]


@given(st.lists(st.integers(1, len(FRAMES)), max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_cuts_give_the_same(cuts: list[int]) -> None:
    """Over HTTP, chunks end anywhere."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(FRAMES)}), len(FRAMES)]
    chunks = [FRAMES[a:b] for a, b in pairwise(edges)]
    assert output_of(anyio.run(heard, Play(chunks))) == WHOLE


def test_single_bytes_give_the_same() -> None:
    """The same without HTTP, a byte at a time."""
    reader, decoder = EventReader(), ResponsesDecoder(Known("up", {}, counted()))
    frames = [frame for byte in FRAMES for frame in reader.feed(bytes([byte]))]
    assert output_of([delta for frame in frames for delta in decoder.feed(frame)]) == WHOLE


JUNK = (
    st.none()
    | st.integers(-2, 3)
    | st.text(max_size=2)
    | st.just([])
    | st.just({})
    | st.just([{}])
    | st.just({"type": "x"})
)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_can_be_written(data: st.DataObject) -> None:
    """Events in any order, with any fields broken, raise what a provider's fault is made of, or nothing."""
    picked = data.draw(st.lists(st.sampled_from(RICH[2:]), max_size=30))
    told = []
    for event in picked:
        keys = data.draw(st.lists(st.sampled_from([key for key in event if key != "type"]), max_size=2))
        broken = {**event, **{key: data.draw(JUNK) for key in keys}}
        if isinstance(broken.get("item"), dict) and broken["item"] and data.draw(st.booleans()):
            inner = data.draw(st.sampled_from(list(broken["item"])))
            broken["item"] = {**broken["item"], inner: data.draw(JUNK)}
        told.append(broken)
    try:
        deltas = decoded(told)
    except (UpstreamError, msgspec.MsgspecError):
        return
    output_of(deltas)
