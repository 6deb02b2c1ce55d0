"""`tool_choice` in each of its forms: which calls it allows, what is shown, and what cannot be chosen."""

from typing import Any

import pytest

from ore.core.callable_tools import TOOL_TYPES
from ore.core.deltas import Delta, Text, ToolArguments, ToolCall, WholeItem
from ore.core.tool_choice import OneCall, ToolPlan, allows, check_possible, in_turn, plan
from ore.errors import InvalidRequest

F: dict[str, Any] = {"type": "function", "name": "f"}
C: dict[str, Any] = {"type": "custom", "name": "c"}
N: dict[str, Any] = {"type": "namespace", "name": "n", "tools": [F, C]}
SHELL: dict[str, Any] = {"type": "shell"}
SEARCH: dict[str, Any] = {"type": "web_search"}

CALLS: dict[str, tuple[Any, ...]] = {
    "f": ("function_call", "f", None),
    "g": ("function_call", "g", None),
    "c": ("custom_tool_call", "c", None),
    "n.f": ("function_call", "f", "n"),
    "n.c": ("custom_tool_call", "c", "n"),
    "shell": ("shell_call", "shell_call", None),
    "patch": ("apply_patch_call", "apply_patch_call", None),
    "computer": ("computer_call", "computer_call", None),
}


def allowed(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "tools": list(entries), "mode": "auto", **more}


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ("auto", set(CALLS)),
        ("required", set(CALLS)),
        ("none", set()),
        (F, {"f", "n.f"}),
        (F | {"namespace": "n"}, {"n.f"}),
        (F | {"namespace": "m"}, set()),
        (C, {"c", "n.c"}),
        (F | {"name": "c"}, set()),
        (SHELL, {"shell"}),
        ({"type": "apply_patch"}, {"patch"}),
        ({"type": "computer_use_preview"}, {"computer"}),
        ({"type": "computer"}, {"computer"}),
        (SEARCH, set()),
        (allowed(F | {"name": "g"}, SHELL), {"g", "shell"}),
        (allowed({"type": "namespace", "name": "n"}), {"n.f", "n.c"}),
        (allowed(C | {"namespace": "n"}), {"n.c"}),
        (allowed(F, C, SHELL, mode="none"), set()),
        (allowed(F | {"name": "g"}, mode="required"), {"g"}),
    ],
    ids=str,
)
def test_which_calls_a_choice_allows(choice: Any, calls: set[str]) -> None:
    assert {name for name, call in CALLS.items() if allows(choice, *call)} == calls


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        *((choice, choice) for choice in ("none", "auto", allowed(F), allowed(F, mode="none"))),
        *((choice, "auto") for choice in ("required", F, SHELL, allowed(F, mode="required"))),
    ],
    ids=str,
)
def test_a_choice_that_forces_a_call_is_spent_by_the_first_turn(choice: Any, later: Any) -> None:
    assert in_turn(choice, 0) == choice
    assert in_turn(choice, 1) == later


def names(made: ToolPlan) -> tuple[list[str], list[str], bool]:
    return [tool.shown for tool in made.shown], [tool.shown for tool in made.allowed], made.required


ALL = [F, C, N, SHELL, SEARCH]
SHOWN = ["f", "c", "n__f", "n__c", "shell"]


@pytest.mark.parametrize(
    ("choice", "callable_", "required"),
    [
        ("auto", SHOWN, False),
        ("required", SHOWN, True),
        (F, ["f", "n__f"], True),
        (F | {"namespace": "n"}, ["n__f"], True),
        (SHELL, ["shell"], True),
        (allowed(C, SHELL), ["c", "n__c", "shell"], False),
        (allowed(SHELL, SEARCH, mode="required"), ["shell"], True),
    ],
    ids=str,
)
def test_all_tools_stay_visible_and_the_chosen_can_be_called(choice: Any, callable_: list[str], required: bool) -> None:
    assert names(plan(ALL, choice)) == (SHOWN, callable_, required)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (ALL, "none"),
        (ALL, allowed(SEARCH)),
        (ALL, allowed(F, mode="none")),
        ([SEARCH], "auto"),
        ([], "auto"),
    ],
    ids=str,
)
def test_where_nothing_can_be_called_nothing_is_shown(tools: list[Any], choice: Any) -> None:
    assert names(plan(tools, choice)) == ([], [], False)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (ALL, SEARCH),
        (ALL, allowed(SEARCH, mode="required")),
        ([SEARCH], "required"),
        ([{"type": "computer"}], {"type": "computer"}),
        ([{"type": "shell", "environment": {"type": "container_auto"}}], SHELL),
        ([], "required"),
    ],
    ids=str,
)
def test_what_nothing_here_can_run_cannot_be_forced(tools: list[Any], choice: Any) -> None:
    for refuse in (lambda: plan(tools, choice), lambda: check_possible(choice, tools, TOOL_TYPES)):
        with pytest.raises(InvalidRequest, match="'auto'") as caught:
            refuse()
        assert caught.value.param == "tool_choice"


def test_a_backend_that_can_run_more_can_be_forced_to() -> None:
    check_possible(SEARCH, [SEARCH], ["web_search"])
    check_possible("required", [SEARCH], ["web_search"])
    check_possible({"type": "namespace", "name": "n"}, [N], TOOL_TYPES)
    with pytest.raises(InvalidRequest):
        check_possible(SHELL, [SHELL], ["function"])


def test_history_goes_by_the_names_that_the_model_sees() -> None:
    made = plan([F, N, SHELL, F | {"name": "shell"}], "none")
    items = [
        {"type": "function_call", "name": "f"},
        {"type": "function_call", "name": "f", "namespace": "n"},
        {"type": "custom_tool_call", "name": "c", "namespace": "n"},
        {"type": "shell_call"},
        {"type": "function_call", "name": "gone", "namespace": "old"},
        {"type": "apply_patch_call"},
    ]
    expected = ["f", "n__f", "c", "shell_2", "old__gone", "apply_patch"]
    assert [made.shown_name(item) for item in items] == expected


@pytest.mark.parametrize("parallel", [True, False])
def test_one_call_only_where_calls_may_not_be_parallel(parallel: bool) -> None:
    """What comes of a second call is held back, its arguments too; text is never."""
    said: list[Delta] = [
        Text("a"),
        ToolCall("1", "f"),
        ToolArguments("{}"),
        ToolCall("2", "f"),
        ToolArguments("{}"),
        Text("b"),
        WholeItem({"type": "shell_call", "call_id": "3"}),
        WholeItem({"type": "web_search_call", "id": "ws"}),
    ]
    calls = OneCall(parallel=parallel)
    heard = [delta for delta in said if calls.lets(delta)]
    assert heard == (said if parallel else [*said[:3], said[5], said[7]])
