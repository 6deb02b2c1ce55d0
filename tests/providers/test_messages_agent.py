"""An agent on the Messages API through ORE's whole engine, and whether the test server is like the real one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anthropic import AsyncAnthropic, BadRequestError
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from ore.backends.base import JsonObject
from ore.backends.messages import Messages
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.sealing import KEY_BYTES, Sealer
from ore.ids import new_id
from ore.protocol.responses import check_create
from ore.routing.router import Router
from ore.runs.supervisor import Supervisor
from providers import messages_server as api
from providers.messages_server import KEY, MessagesServer, messages_server
from providers.stub_server import Asked
from runs.run_kit import NOW, OWNER, MemoryStore, Played

pytestmark = pytest.mark.anyio

MODELS = ("claude-opus-5-5", "claude-opus-4-8", "claude-opus-4-6", "claude-sonnet-4-5", "claude-haiku-5-5")
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
PATCH = {"type": "custom", "name": "patch"}
CITIES = ("Köln", "Rome", "Oslo", "Lima", "Cairo")


def answers() -> list[list[api.Block]]:
    """Five turns, each of two calls and an answer, all with thinking; one is redacted, one is between the calls."""
    played = []
    for at, city in enumerate(CITIES):
        first = api.redacted(f"secret {at}") if at == 2 else api.thinking("I need ", f"the weather of {city}.")
        calls = [
            api.tool_use(f"toolu_{at}a", "weather", '{"city": ', json.dumps(city), "}"),
            *([api.thinking(f"And a patch for {city}.")] if at == 3 else []),
            api.tool_use(f"toolu_{at}b", "patch", '{"input": "+', city, '\\n"}'),
        ]
        played.append(api.message(first, api.text("Let me see."), *calls, stop="tool_use"))
        played.append(api.message(api.thinking(f"{city} is done."), api.text(f"Sunny in {city}.")))
    return played


class Engine:
    """A supervisor in front of one provider."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def respond(self, **fields: Any) -> JsonObject:
        """The response to a request, once it has ended well."""
        run = self._supervisor.start(OWNER, check_create(fields, new_id))
        played = Played(run)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(played.follow)
        await run.ended()
        assert played.final["status"] == "completed", played.final["error"]
        return played.final


@asynccontextmanager
async def engine(server: MessagesServer, model: str) -> AsyncIterator[Engine]:
    dialect = Messages()
    upstream = Upstream("claude", UpstreamOptions(base_url=server.url, headers=dialect.key_headers(KEY)))
    provider = Provider(dialect, upstream, ProviderOptions(kind="anthropic", models=(model,)))
    sealer = Sealer(bytes(range(KEY_BYTES)))
    await provider.start()
    try:
        async with Supervisor(
            Router({"claude": provider}), MemoryStore(), sealer, new_id=new_id, now=lambda: NOW, run_seconds=60.0
        ) as supervisor:
            yield Engine(supervisor)
    finally:
        await provider.stop()


def outputs(response: JsonObject) -> list[JsonObject]:
    """What a client answers."""
    calls = [item for item in response["output"] if "call_id" in item]
    return [{"type": f"{c['type']}_output", "call_id": c["call_id"], "output": f"done {c['name']}"} for c in calls]


def thinking(body: JsonObject) -> list[str]:
    blocks = [block for message in body["messages"] for block in message["content"]]
    return [
        block.get("thinking") or block["data"] for block in blocks if block["type"] in ("thinking", "redacted_thinking")
    ]


def check_all(server: MessagesServer) -> None:
    """The server has checked every signature; here: nothing is missing, and nothing of before has changed."""
    assert server.refused == []
    assert len(server.bodies) == 2 * len(CITIES)
    assert len(thinking(server.bodies[-1])) == 2 * len(CITIES)
    for before, after in zip(server.bodies, server.bodies[1:], strict=False):
        known = [_bare(message) for message in before["messages"]]
        assert [_bare(message) for message in after["messages"]][: len(known)] == known
        assert (after["system"], after["tools"]) == (before["system"], before["tools"])
        assert json.dumps(after).count("cache_control") == 4


def _bare(message: JsonObject) -> JsonObject:
    blocks = [{key: value for key, value in block.items() if key != "cache_control"} for block in message["content"]]
    return {**message, "content": blocks}


@pytest.mark.parametrize("model", MODELS)
async def test_an_agent_that_stores_its_responses(model: str) -> None:
    """Over five turns with tools the provider gets back all of its thinking, to the letter."""
    async with messages_server(*answers()) as server, engine(server, model) as here:
        common: Any = {
            "model": model,
            "tools": [WEATHER, PATCH],
            "instructions": "Help.",
            "reasoning": {"effort": "high"},
        }
        last: JsonObject = {"id": None}
        for city in CITIES:
            called = await here.respond(input=f"Weather of {city}?", previous_response_id=last["id"], **common)
            kinds = [item["type"] for item in called["output"] if item["type"] != "reasoning"]
            assert kinds == ["message", "function_call", "custom_tool_call"]
            assert called["output"][-1]["input"] == f"+{city}\n"
            last = await here.respond(input=outputs(called), previous_response_id=called["id"], **common)
            assert last["output"][-1]["content"][0]["text"] == f"Sunny in {city}."
        check_all(server)


@pytest.mark.parametrize("model", MODELS)
async def test_an_agent_that_carries_everything_itself(model: str) -> None:
    """The same without any state here: the thinking is sealed into what the client carries."""
    async with messages_server(*answers()) as server, engine(server, model) as here:
        common: Any = {
            "model": model,
            "tools": [WEATHER, PATCH],
            "instructions": "Help.",
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": "high", "summary": "auto"},
        }
        carried: list[JsonObject] = []
        for city in CITIES:
            carried.append({"role": "user", "content": f"Weather of {city}?"})
            called = await here.respond(input=carried, **common)
            carried += [*called["output"], *outputs(called)]
            carried += (await here.respond(input=carried, **common))["output"]
        assert api.signature("Rome is done.") not in json.dumps(carried)
        summaries = [item["summary"] for item in carried if item.get("type") == "reasoning"]
        assert summaries[0] == [{"type": "summary_text", "text": "I need the weather of Köln."}]
        check_all(server)


async def test_structured_output_through_the_engine() -> None:
    """By the provider or by a tool: the client gets text that streams, and it is checked."""
    wanted = {"type": "json_schema", "name": "city", "strict": True, "schema": WEATHER["parameters"]}
    by_tool = api.message(api.tool_use("toolu_1", "give_answer", '{"city":', '"Rome"}'), stop="tool_use")
    for model, answer in (
        ("claude-3-haiku-20240307", by_tool),
        ("claude-opus-4-8", api.message(api.text('{"city":', '"Rome"}'))),
    ):
        async with messages_server(answer) as server, engine(server, model) as here:
            response = await here.respond(model=model, input="Where?", text={"format": wanted})
            (message,) = response["output"]
            assert message["content"][0]["text"] == '{"city":"Rome"}'
            assert server.refused == []


async def test_what_the_server_plays_is_what_the_sdk_reads() -> None:
    """Every event is of the SDK's types, and its client reads the stream to the end."""
    web = {"type": "web_search_result_location", "url": "u", "title": "X", "cited_text": "c", "encrypted_index": "e"}
    found = {"type": "web_search_result", "url": "u", "title": "X", "encrypted_content": "e"}
    searched = api.message(
        api.server_tool_use("srvtoolu_1", "web_search", '{"query":"q"}'),
        api.block({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]}),
        api.text("A", citations=[web]),
        usage={"output_tokens_details": {"thinking_tokens": 1}},
    )
    refused = api.message(stop="refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "No."})
    reader: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for answer in (*answers(), searched, refused):
        for event in answer:
            if event["type"] != "ping":
                reader.validate_python(event, strict=True)
    async with (
        messages_server(*answers()) as server,
        AsyncAnthropic(base_url=server.url.removesuffix("/v1"), api_key=KEY, max_retries=0) as client,
    ):
        content: Any = [{"type": "text", "text": "Hi"}]
        async with client.messages.stream(
            model="claude-opus-4-8", max_tokens=9, messages=[{"role": "user", "content": content}]
        ) as stream:
            final = await stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "text", "tool_use", "tool_use"]
        with pytest.raises(BadRequestError, match="non-whitespace"):
            await client.messages.create(
                model="claude-opus-4-8",
                max_tokens=9,
                messages=[{"role": "user", "content": [{"type": "text", "text": " "}]}],
                stream=True,
            )


def _thought(signature: str) -> list[Any]:
    return [
        {"role": "user", "content": [{"type": "text", "text": "A"}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": signature}, _TEXT]},
        {"role": "user", "content": [_TEXT]},
    ]


_TEXT: Any = {"type": "text", "text": "B"}
_CALL: Any = {"type": "tool_use", "id": "c", "name": "weather", "input": {}}
_TOOL: Any = {"name": "weather", "input_schema": {"type": "object"}}
_FORCED: Any = {"tools": [_TOOL], "tool_choice": {"type": "any"}}
_BUDGET: Any = {"model": "claude-sonnet-4-5", "thinking": {"type": "enabled", "budget_tokens": 2000}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": None},
        {"invented": 1},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": [_TEXT]}]},
        {"messages": [{"role": "user", "content": [{**_TEXT, "invented": 1}]}]},
        {"messages": [{"role": "user", "content": [_TEXT]}] * 2},
        {"messages": [{"role": "user", "content": [_TEXT]}, {"role": "assistant", "content": [_TEXT]}]},
        {
            "messages": [{"role": "user", "content": [_TEXT]}, {"role": "assistant", "content": [_CALL]}],
            "tools": [_TOOL],
        },
        {"messages": _thought("forged"), "thinking": {"type": "adaptive"}},
        {"messages": [*_thought(api.signature("x"))[:2], {"role": "system", "content": [_TEXT]}]},
        {**_BUDGET, "max_tokens": 2000},
        {**_BUDGET, **_FORCED, "max_tokens": 4000},
        {"thinking": {"type": "adaptive"}, **_FORCED},
        {"model": "claude-opus-5-5", **_FORCED},
        {"model": "claude-opus-5-5", "thinking": {"type": "disabled"}},
        {"temperature": 0.5},
        {"model": "claude-sonnet-4-5", "temperature": 1.5},
        {"model": "claude-sonnet-4-5", "temperature": 0.5, "top_p": 0.5},
        {"tools": [{**_TOOL, "name": "a b"}]},
        {"tools": [{**_TOOL, "strict": True}]},
        {"system": [{**_TEXT, "cache_control": {"type": "ephemeral"}}] * 5},
        {"stop_sequences": [" "]},
    ],
)
def test_the_server_refuses_what_the_api_refuses(wrong: JsonObject) -> None:
    """So that what passes it says something."""
    right: JsonObject = {"model": "claude-opus-4-8", "max_tokens": 9, "stream": True}
    right["messages"] = [{"role": "user", "content": [_TEXT]}]
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    api.check(Asked("POST", "/v1/messages", headers, right))
    with pytest.raises(api.Wrong):
        api.check(Asked("POST", "/v1/messages", headers, {**right, **wrong}))
    with pytest.raises(api.Wrong):
        api.check(Asked("POST", "/v1/messages", {}, right))
