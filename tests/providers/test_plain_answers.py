"""Providers that answer with one JSON object although a stream was asked for: it is read as if it had been streamed."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from stub_server import Play, as_json, stub_server

from core.writing import counted
from ore.backends import upstream as upstream_module
from ore.backends.base import ModelRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.dialect import Dialect
from ore.backends.messages import Messages
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.responses import Responses
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.deltas import (
    Annotation,
    Begin,
    Delta,
    Finish,
    Reasoning,
    ReasoningState,
    ReasoningSummary,
    Text,
    ToolArguments,
    ToolCall,
)
from ore.errors import HTTPFault
from ore.protocol.decoding import JsonObject

pytestmark = pytest.mark.anyio

DIALECTS: dict[str, Callable[[], Dialect]] = {
    "chat_completions": ChatCompletions,
    "anthropic": Messages,
    "responses": lambda: Responses(counted()),
}
TOOLS = ({"type": "function", "name": "clock", "parameters": {}}, {"type": "custom", "name": "patch"})

COMPLETION: JsonObject = {
    "id": "c1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "reasoning_content": "Hm.",
                "content": "Hello.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"a":1}'}},
                    {"id": "2", "type": "function", "function": {"name": "patch", "arguments": '{"input":"+x"}'}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
}
CITATION: JsonObject = {"type": "web_search_result_location", "url": "https://x.test", "title": "X"}
MESSAGE: JsonObject = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "Hello.", "citations": [CITATION]},
        {"type": "tool_use", "id": "1", "name": "clock", "input": {"a": 1}},
        {"type": "tool_use", "id": "2", "name": "patch", "input": {"input": "+x"}},
        {"type": "new_kind", "content": 1},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 9, "output_tokens": 4},
}
RESPONSE: JsonObject = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
        },
        {"type": "function_call", "id": "f", "call_id": "1", "name": "clock", "arguments": '{"a":1}'},
        {"type": "function_call", "id": "g", "call_id": "2", "name": "patch", "arguments": '{"input":"+x"}'},
    ],
    "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
}
WHOLE = {"chat_completions": COMPLETION, "anthropic": MESSAGE, "responses": RESPONSE}
CALLS = [
    ToolCall("1", "clock"),
    ToolArguments('{"a":1}'),
    ToolCall("2", "patch", "custom_tool_call"),
    ToolArguments("+x"),
]
SPAN = {"start_index": 0, "end_index": 6}
SAID: dict[str, list[Delta]] = {
    "chat_completions": [Reasoning("Hm."), Text("Hello."), *CALLS],
    "anthropic": [
        Text("Hello."),
        Annotation({"type": "url_citation", "url": "https://x.test", "title": "X", **SPAN}),
        *CALLS,
    ],
    "responses": [Begin("reasoning"), ReasoningSummary("Hm."), Begin("message"), Text("Hello."), *CALLS],
}


async def answered(kind: str, play: Play) -> list[Delta]:
    async with stub_server(lambda _: play) as stub:
        upstream = Upstream("here", UpstreamOptions(base_url=stub.url))
        provider = Provider(DIALECTS[kind](), upstream, ProviderOptions(kind=kind))
        await provider.start()
        try:
            request = ModelRequest(model="m", items=(), tools=TOOLS)
            async with provider.stream(request) as deltas:
                return [delta async for delta in deltas]
        finally:
            await provider.stop()


async def fault_of(kind: str, body: Any) -> str | None:
    with pytest.raises(HTTPFault) as caught:
        await answered(kind, as_json(body))
    return caught.value.code


@pytest.mark.parametrize("size", [10_000, 7])
@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_whole_answer_says_the_same_as_its_stream(kind: str, size: int) -> None:
    """However its bytes are cut, and with white space around it."""
    body = f"\n {json.dumps(WHOLE[kind])}\n".encode()
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    *said, finish = await answered(kind, Play(cut, content_type="application/json; charset=utf-8"))
    assert [delta for delta in said if not isinstance(delta, ReasoningState)] == SAID[kind]
    assert isinstance(finish, Finish) and finish.reason == "tool_calls"
    assert (finish.usage.input_tokens, finish.usage.output_tokens) == (9, 4)


async def test_reasoning_of_a_whole_answer_can_go_back() -> None:
    """With the signature, to the letter."""
    states = [delta for delta in await answered("anthropic", as_json(MESSAGE)) if isinstance(delta, ReasoningState)]
    assert [msgspec.json.decode(delta.state)["state"] for delta in states] == [MESSAGE["content"][0]]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat_completions", {"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}),
        ("anthropic", {**MESSAGE, "content": [], "stop_reason": "max_tokens"}),
        ("responses", {**RESPONSE, "output": [], "status": "incomplete"}),
    ],
)
async def test_it_ends_for_the_reason_that_it_tells(kind: str, body: JsonObject) -> None:
    assert [d.reason for d in await answered(kind, as_json(body)) if isinstance(d, Finish)] == ["max_output_tokens"]


@pytest.mark.parametrize("body", [{}, {"hello": 1}, {"object": "list", "data": []}, {"type": "ping"}])
@pytest.mark.parametrize("kind", DIALECTS)
async def test_whatever_else_is_no_answer(kind: str, body: JsonObject) -> None:
    """One object is not a stream that was broken off."""
    assert await fault_of(kind, body) == "upstream_garbage"


@pytest.mark.parametrize("status", ["in_progress", "queued", None])
async def test_a_response_that_has_not_ended_is_no_answer(status: str | None) -> None:
    assert await fault_of("responses", {**RESPONSE, "status": status}) == "upstream_garbage"


@pytest.mark.parametrize("kind", DIALECTS)
async def test_an_error_is_the_providers_whatever_its_status(kind: str) -> None:
    """With 200, too."""
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "Wait."}}
    assert await fault_of(kind, error) == "rate_limit_exceeded"


async def test_a_response_that_failed_says_why() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Wait."}
    assert await fault_of("responses", {**RESPONSE, "status": "failed", "error": error}) == "rate_limit_exceeded"


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_body_without_end_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound of every answer that is no stream."""
    monkeypatch.setattr(upstream_module, "MAX_BODY_BYTES", 100)
    assert await fault_of(kind, WHOLE[kind]) == "upstream_garbage"


async def test_a_stream_that_is_called_json_is_a_stream() -> None:
    """Its first byte tells."""
    chunk = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    sent = [b"data: " + json.dumps(chunk).encode() + b"\n\n", b"data: [DONE]\n\n"]
    said = await answered("chat_completions", Play(sent, content_type="application/json"))
    assert said == [Text("Hi"), Finish("stop")]


@pytest.mark.parametrize("kind", DIALECTS)
async def test_a_page_for_people_is_no_answer(kind: str) -> None:
    """A login page with status 200 names the settings that led there, instead of asking for the request again."""
    with pytest.raises(HTTPFault, match="kind and base_url") as caught:
        await answered(kind, Play([b"<!doctype html>\n\n<h1>Log in</h1>"], content_type="text/html"))
    assert caught.value.code == "upstream_garbage"
