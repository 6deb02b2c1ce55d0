"""Chat Completions with a real server: llama.cpp's own API, with the bundled model behind it."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from llama_server import llama_server

from ore.backends.base import ModelRequest, Sampling
from ore.backends.chat_completions import ChatCompletions
from ore.backends.profiles import Profile
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.deltas import Delta, Finish, Text, ToolArguments, ToolCall
from ore.errors import InvalidRequest
from ore.ids import new_id

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with llama_server(context=1024) as running:
        yield running


@pytest.fixture
async def provider(address: str) -> AsyncIterator[Provider]:
    upstream = Upstream("llama", UpstreamOptions(base_url=f"{address}/v1"))
    provider = Provider(ChatCompletions(new_id), upstream, ProviderOptions(kind="chat_completions"))
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


def message(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


async def ask(provider: Provider, *items: Any, **fields: Any) -> list[Delta]:
    request = ModelRequest(model="tiny", items=items, sampling=Sampling(temperature=0.0), **fields)
    async with provider.stream(request) as deltas:
        return [delta async for delta in deltas]


def finish_of(deltas: list[Delta]) -> Finish:
    finish = deltas[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.input_tokens > 0
    assert finish.usage.output_tokens > 0
    return finish


async def test_text(provider: Provider) -> None:
    *said, _ = deltas = await ask(provider, message("user", "Hello"), instructions="Be kind.", max_output_tokens=5)
    assert said
    assert all(isinstance(delta, Text) for delta in said)
    assert finish_of(deltas).reason == "max_output_tokens"
    assert finish_of(deltas).usage.output_tokens == 5


async def test_a_call_and_its_output(provider: Provider) -> None:
    """A forced call comes with an id; sent back with its output, the model goes on from there."""
    question = message("user", "What is the weather in Rome?")
    called, *pieces, _ = deltas = await ask(provider, question, tools=(WEATHER,), tool_choice="required")
    assert isinstance(called, ToolCall)
    assert (called.name, finish_of(deltas).reason) == ("get_weather", "tool_calls")
    arguments = "".join(piece.text for piece in pieces if isinstance(piece, ToolArguments))
    assert set(json.loads(arguments)) == {"city"}
    call = {"type": "function_call", "call_id": called.call_id, "name": called.name, "arguments": arguments}
    output = {"type": "function_call_output", "call_id": called.call_id, "output": "sunny, 20 degrees"}
    answer = await ask(provider, question, call, output, tools=(WEATHER,), max_output_tokens=20)
    assert finish_of(answer).reason in ("stop", "max_output_tokens", "tool_calls")


async def test_a_schema_is_held_to(provider: Provider) -> None:
    form = {"type": "json_schema", "name": "shape", "schema": SCHEMA, "strict": True}
    deltas = await ask(provider, message("user", "Hello"), text_format=form, max_output_tokens=40)
    text = "".join(delta.text for delta in deltas if isinstance(delta, Text))
    assert set(json.loads(text)) == {"a"}


async def test_logprobs(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_profile", lambda _: Profile(logprobs=True, summarised=False))
    deltas = await ask(provider, message("user", "Hello"), top_logprobs=2, max_output_tokens=3)
    entries = [entry for delta in deltas if isinstance(delta, Text) for entry in delta.logprobs]
    assert len(entries) == 3
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)


async def test_a_context_that_is_too_long(provider: Provider) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await ask(provider, message("user", "a b c " * 2000))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


async def test_the_listing_tells_the_context(provider: Provider) -> None:
    (model,) = await provider.models()
    assert model.capabilities.context_window == 1024
    assert model.capabilities.images is False
