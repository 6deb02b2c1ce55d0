"""The table of native tools: each row's function, item and words agree with each other and with the openai package."""

import json
from typing import Any

import jsonschema_rs
import pytest
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseFunctionShellToolCall,
    ResponseToolSearchCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from core.writing import Recording
from ore.core import structured
from ore.core.deltas import Delta, Text, ToolArguments, ToolCall
from ore.core.native_tools import NATIVE_CALLS, NATIVE_OUTPUTS, NATIVE_TOOLS, Misfit, call_fields
from ore.errors import ModelFailed
from ore.protocol.items import CALL_OUTPUTS

JUDGES: dict[str, Any] = {
    "shell_call": ResponseFunctionShellToolCall,
    "local_shell_call": LocalShellCall,
    "apply_patch_call": ResponseApplyPatchToolCall,
    "tool_search_call": ResponseToolSearchCall,
}

ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "shell": [
        {"commands": ["ls", "pwd"], "timeout_ms": 1000, "max_output_length": 50},
        {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
    ],
    "local_shell": [
        {"command": ["ls", "-l"], "working_directory": "/tmp", "timeout_ms": 5},  # noqa: S108
        {"command": ["ls"], "working_directory": None, "timeout_ms": None},
    ],
    "apply_patch": [
        {"operation": {"type": "create_file", "path": "a", "diff": "+x"}},
        {"operation": {"type": "update_file", "path": "a", "diff": "@@\n-x\n+y"}},
        {"operation": {"type": "delete_file", "path": "a"}},
    ],
    "tool_search": [{"query": "weather"}],
}
EVERY = [(kind, arguments) for kind, samples in ARGUMENTS.items() for arguments in samples]


def write(kind: str, arguments: str, *, cut: bool = False) -> Recording:
    call = NATIVE_TOOLS[kind].call
    deltas: list[Delta] = [ToolCall("call_1", kind, call), ToolArguments(arguments[:3]), ToolArguments(arguments[3:])]
    return recorded(*deltas, cut=cut)


def recorded(*deltas: Delta, cut: bool = False) -> Recording:
    made = Recording().write(deltas)
    made.writer.close("incomplete" if cut else "completed")
    return made


def test_every_row_has_samples_and_a_place_everywhere() -> None:
    assert set(ARGUMENTS) == set(NATIVE_TOOLS)
    assert set(JUDGES) == set(NATIVE_CALLS) <= set(CALL_OUTPUTS)
    assert {CALL_OUTPUTS[row.call]: row for row in NATIVE_TOOLS.values()} == NATIVE_OUTPUTS


@pytest.mark.parametrize("kind", NATIVE_TOOLS)
def test_every_schema_can_be_held_to_strictly(kind: str) -> None:
    """The rules of strict schemas: each object closed, each property required."""
    parameters = NATIVE_TOOLS[kind].parameters
    assert structured.schema_problem(parameters) is None
    objects = [parameters, *parameters["properties"].get("operation", {}).get("anyOf", ())]
    for each in objects:
        assert each["required"] == list(each["properties"])
        assert each["additionalProperties"] is False


@pytest.mark.parametrize(("kind", "arguments"), EVERY)
def test_arguments_that_match_make_the_item_and_come_back_out_of_it(kind: str, arguments: dict[str, Any]) -> None:
    row = NATIVE_TOOLS[kind]
    jsonschema_rs.validate(row.parameters, arguments)
    (item,) = write(kind, json.dumps(arguments)).writer.response.output
    assert isinstance(item, dict)
    JUDGES[row.call].model_validate(item, strict=True)
    assert (item["type"], item["call_id"], item["status"]) == (row.call, "call_1", "completed")
    assert row.arguments(item) == arguments


def test_a_native_call_is_added_and_done_whole_without_deltas() -> None:
    _, _, *events = write("shell", '{"commands": ["ls"]}').wire
    assert [event["type"] for event in events] == ["response.output_item.added", "response.output_item.done"]
    added, done = (event["item"] for event in events)
    assert (added["status"], done["status"]) == ("in_progress", "completed")
    assert {**added, "status": "completed"} == done
    assert done["action"] == {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}


def test_what_follows_a_native_call_comes_after_it() -> None:
    drop = json.dumps(ARGUMENTS["apply_patch"][2])
    call = (ToolCall("call_1", "apply_patch", "apply_patch_call"), ToolArguments(drop))
    output = recorded(Text("So:"), *call, Text("Done.")).final["output"]
    assert [item["type"] for item in output] == ["message", "apply_patch_call", "message"]


@pytest.mark.parametrize("kind", NATIVE_TOOLS)
def test_a_call_that_was_cut_off_does_nothing(kind: str) -> None:
    """Even when what it said so far would do something; a patch, which knows no such status, is left out."""
    row = NATIVE_TOOLS[kind]
    output = write(kind, json.dumps(ARGUMENTS[kind][0]), cut=True).writer.response.output
    if row.nothing is None:
        assert output == []
        return
    (item,) = output
    JUDGES[row.call].model_validate(item, strict=True)
    assert isinstance(item, dict)
    assert item["status"] == "incomplete"
    assert {key: item[key] for key in row.nothing} == row.nothing


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("shell", ""),
        ("shell", "{}"),
        ("shell", "[]"),
        ("shell", '{"commands": "ls"}'),
        ("local_shell", '{"command": ["ls", 1]}'),
        ("apply_patch", '{"operation": {"type": "rename_file", "path": "a"}}'),
        ("apply_patch", '{"operation": {"type": "create_file", "path": "a"}}'),
        ("tool_search", "7"),
        ("tool_search", "[" * 100_000),
    ],
)
def test_arguments_that_do_not_fit_are_the_models_fault(kind: str, arguments: str) -> None:
    with pytest.raises(Misfit):
        call_fields(NATIVE_TOOLS[kind].call, arguments)
    with pytest.raises(ModelFailed, match=f"'{kind}'") as caught:
        write(kind, arguments)
    assert caught.value.code == "invalid_model_output"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            {
                "type": "shell_call_output",
                "output": [
                    {"stdout": "a\n", "stderr": "b\n", "outcome": {"type": "exit", "exit_code": 1}},
                    {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}},
                ],
            },
            "a\nb\n[exit code 1]\n[timed out]",
        ),
        ({"type": "shell_call_output", "output": [7]}, "7"),
        ({"type": "shell_call_output", "output": "text"}, "text"),
        ({"type": "local_shell_call_output", "output": '{"stdout": "a"}'}, '{"stdout": "a"}'),
        ({"type": "local_shell_call_output"}, ""),
        ({"type": "apply_patch_call_output", "status": "failed", "output": "no such file"}, "failed: no such file"),
        ({"type": "apply_patch_call_output", "status": "completed"}, "completed"),
        (
            {"type": "tool_search_output", "tools": [{"type": "function", "name": "f"}, {"type": "shell"}]},
            "Found: f, shell",
        ),
        ({"type": "tool_search_output", "tools": []}, "Found nothing."),
    ],
)
def test_outputs_are_told_in_words(item: dict[str, Any], text: str) -> None:
    assert NATIVE_OUTPUTS[item["type"]].result(item) == text


@pytest.mark.parametrize("row", NATIVE_TOOLS.values(), ids=NATIVE_TOOLS)
@pytest.mark.parametrize("action", [None, 7, {}])
def test_strange_items_of_the_history_can_be_shown(row: Any, action: Any) -> None:
    """What a client invents in its history must not break the prompt."""
    assert isinstance(row.arguments({"action": action, "operation": action, "arguments": action}), dict)
    assert isinstance(row.result({"output": action}), str)
