"""`POST /v1/responses/compact` over HTTP, with a scripted model: its object, its way back, and what it refuses."""

from typing import Any

import pytest

from clients.wire import Answer, call
from ore.core.compaction import ASKED, INTRODUCED
from ore.core.deltas import Finish, Reasoning, Refusal, Text, Usage
from ore.errors import InvalidRequest, ModelFailed
from servers import ScriptedServer

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
TALK: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "What is it?"},
    CALL,
    {"type": "function_call_output", "call_id": "c", "output": "42"},
    {"role": "assistant", "content": "It is 42."},
]


@pytest.fixture
def server(scripted: ScriptedServer) -> ScriptedServer:
    scripted.scripts["summarises"] = [Text("We found 42."), Finish("stop", Usage(input_tokens=9, output_tokens=4))]
    return scripted


def compact(server: ScriptedServer, **body: Any) -> Answer:
    return call(server.url, "POST", "/v1/responses/compact", {"model": "summarises", "input": TALK, **body})


def create(server: ScriptedServer, **body: Any) -> Answer:
    return call(server.url, "POST", "/v1/responses", {"model": "summarises", **body})


def seen(server: ScriptedServer) -> list[tuple[str, str]]:
    """Role and text of what the model was given last; other items by their type."""
    items = server.backend.requests[-1].items
    return [(item.get("role", item["type"]), item["content"][0]["text"] if "content" in item else "") for item in items]


def test_a_conversation_becomes_its_words_and_one_sealed_item(server: ScriptedServer) -> None:
    """What the others said is there in output form; the last item is the compaction; the cost is told."""
    answer = compact(server, prompt_cache_key="k", service_tier="auto", store=True)
    assert answer.status == 200
    made = answer.json()
    assert (made["object"], made["usage"]["total_tokens"]) == ("response.compaction", 13)
    assert [item["type"] for item in made["output"]] == ["message", "message", "compaction"]
    assert [item["role"] for item in made["output"][:2]] == ["developer", "user"]
    assert all(item["id"] and item["status"] == "completed" for item in made["output"][:2])
    assert b"We found" not in answer.body
    assert seen(server)[-1] == ("user", ASKED)


def test_the_window_goes_back_in_as_it_is(server: ScriptedServer) -> None:
    """The model is given what was said, the summary, and what is new; stored or not, and further turns too."""
    window = compact(server).json()["output"]
    expected = [("developer", "Be brief."), ("user", "What is it?"), ("assistant", INTRODUCED + "We found 42.")]
    first = create(server, input=[*window, {"role": "user", "content": "Sure?"}])
    assert (first.status, seen(server)) == (200, [*expected, ("user", "Sure?")])
    create(server, input=[*window, {"role": "user", "content": "Sure?"}], store=False)
    assert seen(server) == [*expected, ("user", "Sure?")]
    create(server, input="Really?", previous_response_id=first.json()["id"])
    assert seen(server) == [*expected, ("user", "Sure?"), ("assistant", "We found 42."), ("user", "Really?")]
    create(server, input=[window[-1], {"role": "user", "content": "Alone?"}])
    assert seen(server) == [*expected, ("user", "Alone?")]


def test_a_chain_is_compacted(server: ScriptedServer) -> None:
    """`previous_response_id` brings its conversation; a window is compacted again; neither it nor its run is stored."""
    first = create(server, input="One.").json()
    made = compact(server, input=None, previous_response_id=first["id"]).json()
    again = compact(server, input=[*made["output"], {"role": "user", "content": "Two."}]).json()
    assert [item["content"][0]["text"] for item in again["output"][:-1]] == ["One.", "Two."]
    assert call(server.url, "GET", f"/v1/responses/{made['id']}").status == 404
    assert create(server, input="x", previous_response_id=made["id"]).error()["code"] == "previous_response_not_found"


def test_a_trigger_says_it_twice(server: ScriptedServer) -> None:
    """Who compacts and asks for a compaction gets one."""
    made = compact(server, input=[{"role": "user", "content": "One."}, {"type": "compaction_trigger"}])
    assert made.status == 200
    assert [item["type"] for item in made.json()["output"]] == ["message", "compaction"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"model": ""}, "missing_required_parameter", "model"),
        ({"model": 7}, "invalid_type", "model"),
        ({"input": None}, "missing_required_parameter", "input"),
        ({"input": 7}, "invalid_type", "input"),
        ({"input": [CALL]}, "invalid_value", "input"),
        ({"prompt_cache_key": "x" * 65}, "string_above_max_length", "prompt_cache_key"),
        ({"previous_response_id": "resp_0"}, "previous_response_not_found", "previous_response_id"),
        ({"input": [{"type": "compaction"}]}, "missing_required_parameter", "input[0].encrypted_content"),
        (
            {"input": [{"type": "compaction", "encrypted_content": "ore1.AAAA"}]},
            "invalid_encrypted_content",
            "input[0].encrypted_content",
        ),
    ],
)
def test_bad_input_names_its_place(server: ScriptedServer, body: dict[str, Any], code: str, param: str) -> None:
    """A 400 that says which parameter is wrong."""
    answer = compact(server, **body)
    assert answer.status == 400
    assert (answer.error()["code"], answer.error()["param"]) == (code, param)


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (InvalidRequest("Too long.", code="context_length_exceeded", param="input"), 400),
        (ModelFailed("The model broke. Send the request again."), 502),
        (RuntimeError("/secret"), 500),
    ],
)
@pytest.mark.parametrize("begun", [[], [Text("We")]])
def test_a_failure_is_an_error(server: ScriptedServer, step: Exception, status: int, begun: list[Any]) -> None:
    """No half summary: whenever the model fails, it is an HTTP error, and nothing of ours leaks."""
    server.scripts["summarises"] = [*begun, step]
    answer = compact(server)
    assert answer.status == status
    assert b"/secret" not in answer.body


def test_a_summary_that_was_cut_is_kept(server: ScriptedServer) -> None:
    """At the limit of its tokens a summary is still better than none; none at all would lose the conversation."""
    cut = Finish("max_output_tokens", Usage(input_tokens=9, output_tokens=2))
    server.scripts["summarises"] = [Text("We found"), cut]
    assert compact(server).json()["output"][-1]["type"] == "compaction"
    for steps in ([Reasoning("hm"), cut], [Refusal("No."), Finish("stop", Usage())], [Finish("stop", Usage())]):
        server.scripts["summarises"] = steps
        assert compact(server).status == 502
