"""A coding agent's requests, one after the other: namespaces, a tool that nobody runs, stateless and chained turns.

The shapes are those that Codex sends; where its recorded requests lie beside the project, they are replayed as well.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.wire import Exchange, closed, final, suite_events
from ore.backends.base import ModelRequest
from ore.backends.scripted import Step
from ore.core.deltas import Finish, Text, ToolArguments, ToolCall
from servers import ScriptedServer

RECORDINGS = Path(__file__).parents[3] / "shared" / "clients"
MODEL = "stub-model"
DONE = Finish("stop")


def developer(text: str, id: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "id": id, "role": "developer", "content": content}


def user(text: str, id: str) -> dict[str, Any]:
    return developer(text, id) | {"role": "user"}


def function(name: str, **properties: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "description": name, "strict": False, "parameters": parameters}


SETTINGS: dict[str, Any] = {
    "model": MODEL,
    "stream": True,
    "tools": [
        function("run", cmd="string"),
        {
            "type": "namespace",
            "name": "helpers",
            "description": "Helpers.",
            "tools": [function("spawn", task="string"), function("run", id="string")],
        },
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "key",
    "client_metadata": {"session_id": "s"},
}
OPENING = [developer("You are an agent.", "msg_a"), developer("Rules.", "msg_b"), user("Say hello", "msg_c")]


@pytest.fixture
def calls(scripted: ScriptedServer) -> Iterator[list[ToolCall]]:
    """What the model is to call, a call per turn; then it says something. Its calls have to be answered."""
    waiting: list[ToolCall] = []

    def script(_: ModelRequest) -> list[Step]:
        return [waiting.pop(0), ToolArguments('{"cmd": "ls"}'), DONE] if waiting else [Text("Hello."), DONE]

    scripted.scripts[MODEL] = script
    yield waiting
    del scripted.scripts[MODEL]


def send(server: ScriptedServer, body: dict[str, Any]) -> dict[str, Any]:
    """The final response of one streamed request, which skipped the web search and said so."""
    with Exchange(server.url, body) as exchange:
        status, headers = exchange.head()
        assert status == 200
        assert headers["x-ore-warning"] == "tools of these types were skipped: web_search"
        response = final(closed(list(suite_events(exchange.chunks()))))
    assert response["status"] == "completed"
    assert [tool["type"] for tool in response["tools"]] == [tool["type"] for tool in body["tools"]]
    return response


def test_a_stateless_agent_calls_a_tool_of_a_namespace(scripted: ScriptedServer, calls: list[ToolCall]) -> None:
    calls.append(ToolCall("call_1", "run", namespace="helpers"))
    first = send(scripted, {**SETTINGS, "input": OPENING})
    (call,) = first["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "run", "helpers")
    output = {"type": "function_call_output", "id": "fco_a", "call_id": call["call_id"], "output": "a.txt"}
    second = send(scripted, {**SETTINGS, "input": [*OPENING, call, output]})
    assert second["output"][0]["content"][0]["text"] == "Hello."
    seen = scripted.backend.requests[-1].items
    assert [item["type"] for item in seen[-2:]] == ["function_call", "function_call_output"]
    assert seen[-2]["namespace"] == "helpers"


def test_a_chained_agent_sends_only_what_is_new(scripted: ScriptedServer, calls: list[ToolCall]) -> None:
    settings = {**SETTINGS, "store": True}
    first = send(scripted, {**settings, "input": OPENING[:1], "generate": False})
    calls.append(ToolCall("call_1", "run"))
    second = send(scripted, {**settings, "input": OPENING[1:], "previous_response_id": first["id"]})
    output = {"type": "function_call_output", "id": "fco_a", "call_id": "call_1", "output": "a.txt"}
    third = send(scripted, {**settings, "input": [output], "previous_response_id": second["id"]})
    assert third["output"][0]["content"][0]["text"] == "Hello."
    assert len(scripted.backend.requests[-1].items) == len(OPENING) + len(first["output"]) + 2


@pytest.mark.parametrize("name", ["codex-http.json", "codex-ws.json"])
def test_the_recorded_requests_are_taken_in_order(name: str, scripted: ScriptedServer, calls: list[ToolCall]) -> None:
    """Over WebSocket the connection remembers; over HTTP the store does, under ids of our own."""
    recording = RECORDINGS / name
    if not recording.exists():
        pytest.skip(f"the recording {name} is not here")
    kinds = ("http", "ws_message")
    bodies = [sent["body"] for sent in json.loads(recording.read_text())["requests"] if sent["kind"] in kinds]
    assert len(bodies) >= 2
    previous = None
    for body, later in zip(bodies, [*bodies[1:], {"input": []}], strict=True):
        answered = {item["call_id"] for item in later["input"] if item["type"] == "function_call_output"}
        calls += [ToolCall(call_id, "exec_command") for call_id in sorted(answered)]
        if body.pop("type", None) or "previous_response_id" in body:
            body["store"] = True
        if body.get("previous_response_id"):
            body["previous_response_id"] = previous
        previous = send(scripted, body)["id"]
    assert calls == []
