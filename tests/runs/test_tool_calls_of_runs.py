"""What a run does with calls of every shape: choices are held to afterwards, and the context brings its tools."""

from typing import Any

import pytest

from core.writing import counted
from ore.core import deltas as d
from ore.core.compaction import summarising
from ore.errors import InvalidRequest
from ore.protocol.responses import check_create
from runs.run_kit import FINISH, check_run, world

pytestmark = pytest.mark.anyio

F: dict[str, Any] = {"type": "function", "name": "f"}
C: dict[str, Any] = {"type": "custom", "name": "c"}
STRICT: dict[str, Any] = F | {
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
N: dict[str, Any] = {"type": "namespace", "name": "n", "tools": [STRICT, C]}
TOOLS = [F, C, N, {"type": "shell"}, {"type": "apply_patch"}]
LS = d.ToolArguments('{"commands": ["ls"]}')


def allowed(*entries: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": "auto", "tools": list(entries)}


HELD: dict[str, tuple[Any, d.ToolCall, d.ToolArguments, str]] = {
    "a custom call": (allowed(C), d.ToolCall("1", "c", "custom_tool_call"), d.ToolArguments("x"), "completed"),
    "another custom call": (allowed(F), d.ToolCall("1", "c", "custom_tool_call"), d.ToolArguments("x"), "failed"),
    "a function of that name": (allowed(C), d.ToolCall("1", "c"), d.ToolArguments("{}"), "failed"),
    "a native call": (allowed({"type": "shell"}), d.ToolCall("1", "shell", "shell_call"), LS, "completed"),
    "another native call": (allowed({"type": "apply_patch"}), d.ToolCall("1", "shell", "shell_call"), LS, "failed"),
    "a native call though none may be": ("none", d.ToolCall("1", "shell", "shell_call"), LS, "failed"),
    "a call of the namespace": (
        F | {"namespace": "n"},
        d.ToolCall("1", "f", namespace="n"),
        d.ToolArguments('{"a": 1}'),
        "completed",
    ),
    "a call outside of it": (F | {"namespace": "n"}, d.ToolCall("1", "f"), d.ToolArguments("{}"), "failed"),
    "strict arguments in a namespace": ("auto", d.ToolCall("1", "f", namespace="n"), d.ToolArguments("{}"), "failed"),
    "loose arguments outside of it": ("auto", d.ToolCall("1", "f"), d.ToolArguments("{}"), "completed"),
    "native arguments that do not fit": (
        "auto",
        d.ToolCall("1", "shell", "shell_call"),
        d.ToolArguments("{}"),
        "failed",
    ),
}


@pytest.mark.parametrize(("choice", "call", "arguments", "status"), HELD.values(), ids=HELD)
async def test_calls_of_every_shape_are_checked(
    choice: Any, call: d.ToolCall, arguments: d.ToolArguments, status: str
) -> None:
    async with world(call, arguments, FINISH) as here:
        played = await here.play(tools=TOOLS, tool_choice=choice)
        check_run(played, here)
        assert played.final["status"] == status


async def test_a_native_call_that_was_cut_off_ends_an_incomplete_response() -> None:
    cut = d.Finish("max_output_tokens")
    async with world(d.ToolCall("1", "shell", "shell_call"), d.ToolArguments('{"commands": ["rm'), cut) as here:
        played = await here.play(tools=TOOLS)
        check_run(played, here)
        (item,) = played.final["output"]
        assert (played.final["status"], item["status"], item["action"]["commands"]) == ("incomplete", "incomplete", [])
        later = await here.play(FINISH, previous_response_id=played.run.id)
        check_run(later, here)
        assert "shell_call" not in [item["type"] for item in here.backend.requests[-1].items]


@pytest.mark.parametrize(("parallel", "calls"), [(True, ["1", "2"]), (False, ["1"])])
async def test_one_call_at_a_time_is_held_to(parallel: bool, calls: list[str]) -> None:
    """A second call is dropped, as if the model had waited for the first one's output."""
    said = (d.ToolCall("1", "f"), d.ToolArguments("{}"), d.ToolCall("2", "shell", "shell_call"), LS)
    async with world(*said, FINISH) as here:
        played = await here.play(tools=TOOLS, parallel_tool_calls=parallel)
        check_run(played, here)
        assert played.final["status"] == "completed"
        assert [item["call_id"] for item in played.final["output"]] == calls


BROUGHT: dict[str, Any] = {"type": "additional_tools", "role": "developer", "tools": [STRICT]}


async def test_tools_of_the_context_are_the_models_and_are_not_echoed() -> None:
    """From the item on, in later turns too; strict arguments are held to here as well."""
    async with world(FINISH) as here:
        first = await here.play(input=[{"role": "user", "content": "Hi"}, BROUGHT], tools=[C])
        check_run(first, here)
        later = await here.play(
            d.ToolCall("1", "f"), d.ToolArguments("{}"), FINISH, previous_response_id=first.run.id, tool_choice=F
        )
        check_run(later, here)
        assert [[tool["name"] for tool in request.tools] for request in here.backend.requests] == [["c", "f"], ["f"]]
        assert (later.final["status"], later.final["tools"], later.final["tool_choice"]) == ("failed", [], F)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"tool_choice": F | {"name": "g"}, "input": [BROUGHT]}, "'g'"),
        ({"tool_choice": "required", "input": [{"type": "additional_tools", "tools": []}]}, "empty"),
        ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "'auto'"),
        ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}, F]}, "'f'"),
    ],
)
async def test_what_cannot_be_chosen_is_refused_before_the_model_is_asked(fields: Any, word: str) -> None:
    async with world(FINISH) as here:
        played = await here.play(**fields)
        with pytest.raises(InvalidRequest, match=word) as caught:
            _ = played.run.response
        assert caught.value.param == "tool_choice"
        assert here.backend.requests == []


def test_a_summary_is_written_and_not_called_for() -> None:
    create = check_create({"input": [BROUGHT]}, counted())
    assert summarising(create, counted()).tool_choice == "none"
