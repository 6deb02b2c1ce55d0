"""A server of Chat Completions on loopback, which refuses what the published schema and its documentation refuse.

Not a test. The schema is the `openai` SDK's; what the SDK's types cannot say (which message may follow which, names
that occur once) is checked here, and fields that no server of this dialect knows are an error.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter
from stub_server import Asked, Play, StubServer, as_json, events, stub_server

SCHEMA: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
FIELDS = set(CompletionCreateParamsStreaming.__annotations__)
BESIDE = {"chat_template_kwargs", "thinking"}
"""Fields that vLLM, SGLang and llama-server, or DeepSeek and Kimi, know and OpenAI does not."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def check_body(body: Any) -> None:
    """Raise when OpenAI would refuse the body."""
    unknown = set(body) - FIELDS - BESIDE
    assert not unknown, f"nobody knows {unknown}"
    consume(SCHEMA.validate_python(body))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    check_messages(body["messages"])
    check_tools(body)


def consume(value: Any) -> None:
    """Walk through: pydantic checks an `Iterable` only as it is read."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            consume(inner)


def check_messages(messages: Sequence[Any]) -> None:
    """Every call is answered by the messages that follow it at once, and nothing else is answered."""
    open_calls: list[str] = []
    assert messages, "there is no message"
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls, "an output without its call"
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"no output for {open_calls}"
        if message["role"] == "assistant":
            assert message.get("content") or message.get("tool_calls"), "an assistant's message says nothing"
            open_calls = [call["id"] for call in message.get("tool_calls", ())]
            assert all(open_calls), "a call without an id"
            assert len(set(open_calls)) == len(open_calls), "two calls with one id"
        else:
            assert message["content"] != [], "a message without content"
    assert not open_calls, f"no output for {open_calls}"


def check_tools(body: Any) -> None:
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    assert len(set(names)) == len(names), "two tools with one name"
    assert all(NAME.fullmatch(name) for name in names)
    assert "tools" not in body or names, "an empty array of tools"
    assert "tool_choice" not in body or names, "a choice among no tools"
    assert "parallel_tool_calls" not in body or names, "parallel calls of no tools"
    choice = body.get("tool_choice")
    assert not isinstance(choice, dict) or choice["function"]["name"] in names, "a choice of what is not there"


def answering(*plays: Play) -> Callable[[Asked], Play]:
    """Plays each in turn, the last one for ever. A body that would be refused is answered as OpenAI does."""
    left = list(plays)

    def answer(asked: Asked) -> Play:
        if asked.path.endswith("/models"):
            return left[0]
        assert asked.path.endswith("/chat/completions")
        try:
            check_body(asked.body)
        except Exception as problem:  # whatever is wrong with it: a test must see it
            return as_json({"error": {"message": f"refused: {problem}", "type": "invalid_request_error"}}, 400)
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def chat_server(*plays: Play) -> AbstractAsyncContextManager[StubServer]:
    return stub_server(answering(*plays))


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk as OpenAI sends it; `fields` lie over it."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    } | fields


def usage(**counts: Any) -> dict[str, Any]:
    """The last chunk, which has no choices."""
    counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5} | counts
    return chunk(choices=[], usage=counts)


def stream(*chunks: Any, done: bool = True) -> Play:
    return Play(events(*chunks, done=done))
