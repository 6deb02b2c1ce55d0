"""ORE in front of servers that speak Responses, another ORE and one like OpenAI's, asked by the `openai` client."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import structs
from openai import AsyncOpenAI, OpenAI

from ore.backends.base import Capabilities, Model, ModelRequest
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.responses import Responses
from ore.backends.scripted import ScriptedBackend, Step, says
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.deltas import Finish, Reasoning, ReasoningState, Text, ToolArguments, ToolCall, Usage
from ore.errors import InvalidRequest, ModelFailed, TooManyRequests
from providers.responses_server import (
    ResponsesServer,
    Telling,
    function_call,
    reasoning_item,
    sealed,
    text_message,
)
from providers.stub_server import Play, stub_server
from servers import ScriptedServer

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": None,
    "parameters": {"type": "object"},
    "strict": None,
}
ANSWER: Any = {
    "type": "json_schema",
    "name": "answer",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}


class Thinking(ScriptedBackend):
    """Scripted models that reason."""

    async def models(self) -> list[Model]:
        return [structs.replace(model, capabilities=Capabilities(reasoning=True)) for model in await super().models()]

    def model(self, name: str) -> Model | None:
        model = super().model(name)
        return model and structs.replace(model, capabilities=Capabilities(reasoning=True))


class Front(ScriptedServer):
    """An ORE whose only backend is a provider."""

    def __init__(self, folder: Path, url: str, kind: str = "responses") -> None:
        super().__init__(folder)
        dialect = Responses()
        options = UpstreamOptions(base_url=f"{url}/v1", headers=dialect.key_headers("sk-test"))
        provider_options = ProviderOptions(kind=kind, discovery_ttl=0)
        self.backend: Any = Provider(dialect, Upstream("up", options), provider_options)

    async def _serve(self) -> None:
        await self.backend.start()
        try:
            await super()._serve()
        finally:
            await self.backend.stop()


@pytest.fixture(scope="module")
def back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    server = ScriptedServer(tmp_path_factory.mktemp("back"))
    server.backend = Thinking(server.scripts)
    with server:
        yield server


@pytest.fixture(scope="module")
def client(back: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of an ORE in front of another."""
    with (
        Front(tmp_path_factory.mktemp("front"), back.url) as front,
        OpenAI(base_url=f"{front.url}/v1", api_key="local", max_retries=0, timeout=30) as client,
    ):
        yield client


def test_text_comes_through_two_servers(back: ScriptedServer, client: OpenAI) -> None:
    """Piece by piece, with the cost that the engine counted, in an envelope of the first server's."""
    back.scripts["m"] = says("Hello, world.", pieces=5)
    with client.responses.stream(model="m", input="Hi", temperature=0.5, extra_body={"seed": 3}) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "Hello, world."
    assert len(deltas) == 5
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (1, 5)
    asked = back.backend.requests[-1]
    assert (asked.sampling.temperature, asked.sampling.seed) == (0.5, 3)
    assert client.responses.retrieve(final.id).output_text == "Hello, world."
    with pytest.raises(openai.NotFoundError):
        OpenAI(base_url=f"{back.url}/v1", api_key="local", max_retries=0).responses.retrieve(final.id)


def thinks_and_calls(request: ModelRequest) -> Sequence[Step]:
    """Reasons and calls twice, then answers with all that it was given back of its reasoning."""
    states = [item["state"] for item in request.items if item["type"] == "reasoning"]
    turn = sum(item["type"] == "function_call_output" for item in request.items)
    thought: list[Step] = [Reasoning(f"Thought {turn}."), ReasoningState(f"secret {turn}")]
    if turn == 2:
        return [*thought, Text(" ".join(states)), Finish("stop", Usage(output_tokens=1))]
    call = [ToolCall(f"call_{turn}", "weather"), ToolArguments('{"city":'), ToolArguments('"Oslo"}')]
    return [*thought, *call, Finish("tool_calls", Usage(output_tokens=1))]


@pytest.mark.parametrize("stored", [True, False])
def test_reasoning_and_calls_go_round(back: ScriptedServer, client: OpenAI, stored: bool) -> None:
    """Three turns, by reference or carried by the client: the engine gets its own state back, through two seals."""
    back.scripts["thinker"] = thinks_and_calls
    client.models.list()  # what it can do is known from then on
    context: list[Any] = [{"role": "user", "content": "Weather?"}]
    previous: dict[str, Any] = {}
    for turn in range(3):
        answer = client.responses.create(
            model="thinker",
            input=context,
            tools=[WEATHER],
            include=["reasoning.encrypted_content"],
            store=stored,
            **previous,
        )
        assert [item.type for item in answer.output] == ["reasoning", "message" if turn == 2 else "function_call"]
        assert answer.output[0].content[0].text == f"Thought {turn}."  # type: ignore[union-attr,index]
        output = {"type": "function_call_output", "call_id": f"call_{turn}", "output": "Rain"}
        if stored:
            context, previous = [output], {"previous_response_id": answer.id}
        else:
            context += [*answer.output, output]
    assert answer.output_text == "secret 0 secret 1"
    assert back.backend.requests[-1].items[-1]["output"] == "Rain"


def test_structured_output_is_held_by_the_upstream(back: ScriptedServer, client: OpenAI) -> None:
    """The format goes along; what the upstream finds wrong with its model's answer is a failure here too."""
    back.scripts["form"] = says('{"a": 1}')
    assert client.responses.create(model="form", input="Hi", text={"format": ANSWER}).output_text == '{"a": 1}'
    assert back.backend.requests[-1].text_format == {**ANSWER, "description": None}
    back.scripts["form"] = says('{"b": 1}')
    failed = client.responses.create(model="form", input="Hi", text={"format": ANSWER})
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "upstream_failed"


def test_refusals_keep_their_status(back: ScriptedServer, client: OpenAI) -> None:
    """What the upstream refuses is refused, and what is too much for it may be sent again."""
    back.scripts["full"] = [InvalidRequest("It is too long.", code="context_length_exceeded", param="input")]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="full", input="Hi")
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    back.scripts["full"] = [TooManyRequests("Later.", retry_after=7)]
    with pytest.raises(openai.RateLimitError) as later:
        client.responses.create(model="full", input="Hi")
    assert later.value.response.headers["retry-after"] == "7"


def test_a_break_keeps_what_was_said(back: ScriptedServer, client: OpenAI) -> None:
    """An engine that breaks down behind two servers: the text so far, and a failure."""
    back.scripts["weak"] = [Text("So far"), ModelFailed("It broke.")]
    failed = client.responses.create(model="weak", input="Hi")
    assert (failed.status, failed.output_text) == ("failed", "So far")


def test_native_tools_reach_the_engine_behind(back: ScriptedServer, client: OpenAI) -> None:
    """Another ORE takes every type that it lists, so nothing is flattened on the way."""
    sql: Any = {"type": "custom", "name": "sql"}
    back.scripts["db"] = [
        ToolCall("call_1", "sql", "custom_tool_call"),
        ToolArguments("SELECT 1"),
        Finish("tool_calls"),
    ]
    client.models.list()
    answer = client.responses.create(model="db", input="Hi", tools=[sql], tool_choice="required")
    assert (answer.output[0].type, answer.output[0].input) == ("custom_tool_call", "SELECT 1")  # type: ignore[union-attr]
    assert [tool["type"] for tool in back.backend.requests[-1].tools] == ["custom"]


def test_tokens_are_counted_by_the_upstream(back: ScriptedServer, client: OpenAI) -> None:
    """One for each item: so the scripted engine counts."""
    back.scripts["m"] = says("Hi")
    client.models.list()
    assert client.responses.input_tokens.count(model="m", input="Hi").input_tokens == 1


def telling_turns(body: dict[str, Any]) -> Play:
    """OpenAI's part: reasons and calls on the first turn, then answers."""
    turn = sum(item.get("type") == "function_call_output" for item in body["input"])
    thought = reasoning_item(f"rs_{turn}", f"Thought {turn}.")
    told = Telling().reasoning(thought)
    if turn == 2:
        return told.message(text_message("Done.")).completed().play()
    return told.call(function_call("weather", "{}", f"call_{turn}", f"fc_{turn}")).completed().play()


@pytest.mark.anyio
@pytest.mark.parametrize("stored", [True, False])
async def test_sealed_reasoning_goes_back_to_openai_unchanged(tmp_path: Path, stored: bool) -> None:
    """The server checks its own seal, the order of items and every type; ours is around it on the way."""
    server = ResponsesServer(telling_turns, [{"id": "gpt-5", "object": "model", "created": 1, "owned_by": "openai"}])
    async with stub_server(server.answer) as stub:
        with Front(tmp_path, stub.url, kind="openai") as front:
            async with AsyncOpenAI(base_url=f"{front.url}/v1", api_key="local", max_retries=0, timeout=30) as client:
                context: list[Any] = [{"role": "user", "content": "Weather?"}]
                previous: dict[str, Any] = {}
                for turn in range(3):
                    answer = await client.responses.create(
                        model="gpt-5", input=context, tools=[WEATHER], store=stored, **previous
                    )
                    output = {"type": "function_call_output", "call_id": f"call_{turn}", "output": "Rain"}
                    if stored:
                        context, previous = [output], {"previous_response_id": answer.id}
                    else:
                        context += [*answer.output, output]
    assert answer.output_text == "Done."
    back = [item for item in server.bodies[-1]["input"] if item["type"] == "reasoning"]
    assert [item["encrypted_content"] for item in back] == [sealed("rs_0"), sealed("rs_1")]
