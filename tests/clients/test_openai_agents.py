"""Unchanged `openai-agents` code: tools, streams, sessions and its WebSocket, against a model that follows a script.

The package asks for a `websockets` below ours, though it runs with ours, and so is not in the lock file; where it is
not installed, this is a visible skip. To have it: `pip install openai-agents`, then requirements/dev.lock once more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI

from ore.backends.base import ModelRequest
from ore.backends.scripted import Step, says
from ore.core.deltas import Finish, ToolArguments, ToolCall
from servers import ScriptedServer

agents = pytest.importorskip("agents", reason="openai-agents is not installed")

MODEL = "gpt-scripted"
"""Its compaction session takes no model whose name is not of OpenAI's kind."""


def script(request: ModelRequest) -> list[Step]:
    """Look the weather up when asked for it, then tell it; else say how many items there were."""
    last = request.items[-1]
    if last["type"] == "function_call_output":
        return says(f"It is {last['output']}.", pieces=3)
    if request.tools and "eather" in last["content"][0]["text"]:
        call = ToolCall(f"call_{len(request.items)}", "get_weather")
        return [call, ToolArguments('{"city":'), ToolArguments(' "Oslo"}'), Finish("tool_calls")]
    return says(f"{len(request.items)} items.", pieces=2)


@agents.function_tool  # type: ignore[untyped-decorator]
def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return f"sunny in {city}"


@pytest.fixture
def url(scripted: ScriptedServer) -> Iterator[str]:
    """Where the server is. Traces, which would go to OpenAI with the user's key, are off."""
    agents.set_tracing_disabled(True)
    scripted.scripts[MODEL] = script
    yield f"{scripted.url}/v1"
    del scripted.scripts[MODEL]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[Any, AsyncOpenAI]]:
    """An agent with one tool, and the client that it talks through."""
    async with AsyncOpenAI(base_url=url, api_key="local", max_retries=0) as client:
        model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
        yield agents.Agent(name="A", instructions="Be nice.", tools=[get_weather], model=model), client


def using(url: str, use: Callable[[Any, AsyncOpenAI], Awaitable[None]]) -> None:
    async def run() -> None:
        async with connected(url) as (agent, client):
            await use(agent, client)

    asyncio.run(run())


def types(items: Any) -> list[str]:
    return [item.get("type", "message") for item in items]


def test_a_tool_is_called(url: str) -> None:
    """The agent runs the function and goes on with its output to the answer."""

    async def use(agent: Any, _: AsyncOpenAI) -> None:
        result = await agents.Runner.run(agent, "Weather?")
        assert result.final_output == "It is sunny in Oslo."
        assert types(result.to_input_list()) == ["message", "function_call", "function_call_output", "message"]

    using(url, use)


def test_a_stream_with_a_tool(url: str) -> None:
    """Streamed, both responses reach the agent event by event, and it ends as it does without a stream."""

    async def use(agent: Any, _: AsyncOpenAI) -> None:
        result = agents.Runner.run_streamed(agent, "Weather?")
        raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
        assert [event.type for event in raw].count("response.completed") == 2
        assert (
            "".join(event.delta for event in raw if event.type == "response.output_text.delta") == result.final_output
        )
        assert result.final_output == "It is sunny in Oslo."

    using(url, use)


def test_turns_by_the_id_of_the_last_response(url: str) -> None:
    """With `previous_response_id` the agent sends only what is new, and the model is given everything."""

    async def use(agent: Any, _: AsyncOpenAI) -> None:
        first = await agents.Runner.run(agent, "Weather?")
        second = await agents.Runner.run(agent, "How much?", previous_response_id=first.last_response_id)
        assert second.final_output == "5 items."

    using(url, use)


def test_a_conversation_holds_two_runs(url: str) -> None:
    """`OpenAIConversationsSession` keeps its items on the server, which gives them back in the next run."""

    async def use(agent: Any, client: AsyncOpenAI) -> None:
        session = agents.OpenAIConversationsSession(openai_client=client)
        await agents.Runner.run(agent, "Weather?", session=session)
        result = await agents.Runner.run(agent, "How much?", session=session)
        assert result.final_output == "5 items."
        items = await session.get_items()
        assert types(items) == [
            *("message", "function_call", "function_call_output", "message"),
            *("message", "message"),
        ]
        assert types([await session.pop_item()]) == ["message"]
        assert len(await session.get_items()) == len(items) - 1
        await session.clear_session()

    using(url, use)


def test_a_conversation_that_the_server_keeps(url: str) -> None:
    """With `conversation_id` the responses themselves add what was said, calls and outputs too."""

    async def use(agent: Any, client: AsyncOpenAI) -> None:
        conversation = await client.conversations.create()
        await agents.Runner.run(agent, "Weather?", conversation_id=conversation.id)
        result = await agents.Runner.run(agent, "How much?", conversation_id=conversation.id)
        assert result.final_output == "5 items."

    using(url, use)


@pytest.mark.parametrize("mode", ["input", "previous_response_id"])
def test_a_session_is_compacted(url: str, mode: Any) -> None:
    """The session replaces its history by what `responses.compact` gave, and the next run goes on from there."""

    async def use(agent: Any, client: AsyncOpenAI) -> None:
        inner = agents.SQLiteSession("s")
        session = agents.OpenAIResponsesCompactionSession(
            "s",
            inner,
            client=client,
            model=MODEL,
            compaction_mode=mode,
            should_trigger_compaction=lambda _: False,
        )
        result = await agents.Runner.run(agent, "Weather?", session=session)
        await session.run_compaction({"force": True, "response_id": result.last_response_id})
        assert types(await session.get_items()) == ["message", "compaction"]
        result = await agents.Runner.run(agent, "How much?", session=session)
        assert result.final_output == "3 items."
        inner.close()

    using(url, use)


def test_the_websocket_session(url: str, scripted: ScriptedServer) -> None:
    """Runs over one connection, streamed and not, with tools and by the id of the response before."""

    async def run() -> None:
        async with agents.responses_websocket_session(api_key="local", base_url=url) as session:
            agent = agents.Agent(name="A", instructions="Be nice.", tools=[get_weather], model=MODEL)
            first = await session.run(agent, "Weather?")
            assert first.final_output == "It is sunny in Oslo."
            second = session.run_streamed(agent, "How much?", previous_response_id=first.last_response_id)
            names = [event.name async for event in second.stream_events() if event.type == "run_item_stream_event"]
            assert names == ["message_output_created"]
            assert second.final_output == "5 items."

    asyncio.run(run())


def test_a_refusal_is_told(url: str) -> None:
    """A bad request reaches the agent as the SDK's own error, with its code."""

    async def use(agent: Any, client: AsyncOpenAI) -> None:
        with pytest.raises(Exception, match="not found") as caught:
            await agents.Runner.run(agent, "Hi", previous_response_id="resp_none")
        assert caught.value.code == "previous_response_not_found"

    using(url, use)
