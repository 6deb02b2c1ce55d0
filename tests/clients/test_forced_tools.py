"""Tools of every shape, forced on the bundled model: what comes out fits, whatever a small model makes of it."""

import json
from typing import Any

import jsonschema_rs
import pytest
from openai.types.responses import ResponseApplyPatchToolCall, ResponseFunctionShellToolCall
from openai.types.responses.response_output_item import LocalShellCall

from clients.wire import create, final, get, stream
from ore.core.callable_tools import TOOL_TYPES
from ore.core.native_tools import NATIVE_TOOLS
from servers import OreProcess

pytestmark = pytest.mark.engine

SHELL, LOCAL, PATCH = {"type": "shell"}, {"type": "local_shell"}, {"type": "apply_patch"}
ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
MATHS: dict[str, Any] = {"type": "namespace", "name": "maths", "description": "Sums.", "tools": [ADD]}
EDITS = """
start: "BEGIN" NL step{1,2} "END" NL?
step: "drop " path NL | "put " path NL "|" path NL
path: /[a-z.]{1,8}/
NL: "\\n"
"""
EDIT: dict[str, Any] = {
    "type": "custom",
    "name": "edit",
    "format": {"type": "grammar", "syntax": "lark", "definition": EDITS},
}
QUESTION = "Create the file notes.txt with the word hello."


def ask(tiny: OreProcess, **body: Any) -> dict[str, Any]:
    fields = {"input": QUESTION, "seed": 7, "max_output_tokens": 400, "parallel_tool_calls": False} | body
    answer = create(tiny.url, model="ore-tiny", **fields)
    assert answer.status == 200, answer.body
    return dict(answer.json())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("tool", "judge"),
    [
        (SHELL, ResponseFunctionShellToolCall),
        (LOCAL, LocalShellCall),
        (PATCH, ResponseApplyPatchToolCall),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_native_tool(tiny: OreProcess, tool: dict[str, str], judge: Any, seed: int) -> None:
    """One call that fits; where the model finds no end, one that does nothing, or none."""
    response = ask(tiny, tools=[ADD, SHELL, LOCAL, PATCH], tool_choice=tool, seed=seed)
    row = NATIVE_TOOLS[tool["type"]]
    if response["status"] == "incomplete":
        assert [(item["type"], item["status"]) for item in response["output"]] in ([], [(row.call, "incomplete")])
        return
    (item,) = response["output"]
    judge.model_validate(item, strict=True)
    assert item["status"] == "completed"
    jsonschema_rs.validate(row.parameters, row.arguments(item))


def test_a_native_call_goes_over_the_stream_whole_and_back_into_the_next_turn(tiny: OreProcess) -> None:
    fields: dict[str, Any] = {"model": "ore-tiny", "seed": 3, "max_output_tokens": 400, "tools": [PATCH]}
    patch = {"type": "allowed_tools", "mode": "required", "tools": [PATCH]}
    events = stream(tiny.url, input=QUESTION, tool_choice=patch, parallel_tool_calls=False, **fields)
    first = final(events)
    assert first["status"] == "completed"
    (call,) = first["output"]
    assert call["type"] == "apply_patch_call"
    assert [event.type for event in events[2:-1]] == ["response.output_item.added", "response.output_item.done"]
    output = {"type": "apply_patch_call_output", "call_id": call["call_id"], "status": "completed"}
    second = create(tiny.url, input=[output], previous_response_id=first["id"], tool_choice="none", **fields)
    assert second.json()["output"][0]["type"] == "message"


@pytest.mark.parametrize("seed", range(3))
def test_a_custom_tool_with_a_lark_grammar(tiny: OreProcess, seed: int) -> None:
    """The input is the raw text, without markers around it, and goes back as it came."""
    choice = {"type": "custom", "name": "edit"}
    response = ask(tiny, tools=[EDIT, ADD], tool_choice=choice, seed=seed)
    (call,) = response["output"]
    assert (call["type"], call["name"], call["status"]) == ("custom_tool_call", "edit", "completed")
    lines = call["input"].removesuffix("\n").split("\n")
    assert (lines[0], lines[-1]) == ("BEGIN", "END")
    assert all(line.startswith(("drop ", "put ", "|")) for line in lines[1:-1])
    answer = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "done"}
    again = ask(tiny, input=[answer], previous_response_id=response["id"], tools=[EDIT, ADD], tool_choice=choice)
    assert again["output"][0]["type"] == "custom_tool_call"


def test_a_lark_grammar_that_is_none_is_a_400_with_its_place(tiny: OreProcess) -> None:
    broken = {**EDIT, "format": {**EDIT["format"], "definition": 'start: "a" | ('}}
    answer = create(tiny.url, model="ore-tiny", input="Hi", tools=[ADD, broken])
    assert answer.status == 400
    error = answer.error()
    assert (error["code"], error["param"]) == ("invalid_value", "tools[1].format.definition")


def test_a_tool_of_a_namespace(tiny: OreProcess) -> None:
    response = ask(tiny, tools=[ADD, MATHS], tool_choice={"type": "function", "name": "add", "namespace": "maths"})
    (call,) = response["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("function_call", "add", "maths")
    jsonschema_rs.validate(ADD["parameters"], json.loads(call["arguments"]))
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "4"}
    again = ask(tiny, input=[output], previous_response_id=response["id"], tools=[ADD, MATHS], tool_choice="none")
    assert again["output"][0]["type"] == "message"


def test_tools_that_a_search_found_can_be_called(tiny: OreProcess) -> None:
    search = {"type": "tool_search", "execution": "client"}
    first = ask(tiny, tools=[search], tool_choice={"type": "tool_search"})
    (call,) = first["output"]
    assert (call["type"], call["execution"]) == ("tool_search_call", "client")
    found = {"type": "tool_search_output", "call_id": call["call_id"], "execution": "client", "tools": [MATHS]}
    second = ask(
        tiny,
        input=[found],
        previous_response_id=first["id"],
        tools=[search],
        tool_choice={"type": "function", "name": "add"},
    )
    assert (second["output"][0]["name"], second["output"][0]["namespace"]) == ("add", "maths")
    assert second["tools"] == [search]


@pytest.mark.parametrize("choice", ["required", {"type": "web_search"}])
def test_a_tool_that_nobody_runs_cannot_be_forced(tiny: OreProcess, choice: Any) -> None:
    answer = create(tiny.url, model="ore-tiny", input="Hi", tools=[{"type": "web_search"}], tool_choice=choice)
    assert answer.status == 400
    assert answer.error()["param"] == "tool_choice"


def test_a_tool_that_nobody_runs_is_skipped_with_a_warning(tiny: OreProcess) -> None:
    tools = [{"type": "web_search"}, {"type": "computer"}]
    added = {"type": "additional_tools", "role": "developer", "tools": [{"type": "file_search"}]}
    hello = {"role": "user", "content": "Hi"}
    answer = create(tiny.url, model="ore-tiny", input=[added, hello], tools=tools, max_output_tokens=16)
    assert answer.status == 200
    assert answer.headers["x-ore-warning"] == "tools of these types were skipped: computer, file_search, web_search"
    assert [item["type"] for item in answer.json()["output"]] == ["message"]


def test_the_model_says_which_tool_types_it_takes(tiny: OreProcess) -> None:
    (model,) = [model for model in get(tiny.url, "/v1/models").json()["data"] if model["id"] == "ore-tiny"]
    assert tuple(model["capabilities"]["tool_types"]) == TOOL_TYPES
