"""Tools and choices in every shape, as a request brings them: what is kept, what is refused, and where."""

from typing import Any

import pytest

from core.writing import counted
from ore.errors import InvalidRequest
from ore.protocol.responses import Create, check_create

F: dict[str, Any] = {"type": "function", "name": "f"}
WHOLE = F | {"description": None, "parameters": None, "strict": None}
C: dict[str, Any] = {"type": "custom", "name": "c"}
N: dict[str, Any] = {"type": "namespace", "name": "n", "description": "About n.", "tools": [F, C]}
USER: dict[str, Any] = {"role": "user", "content": "Hi"}


def create(**body: Any) -> Create:
    return check_create({"input": "Hi", **body}, counted())


def refusal(**body: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        create(**body)
    return caught.value.code, caught.value.param


def test_a_namespace_is_echoed_with_its_tools_completed() -> None:
    assert create(tools=[N]).tools == [N | {"tools": [WHOLE, C]}]


def test_names_are_unique_in_each_namespace() -> None:
    assert len(create(tools=[F, C, N, N | {"name": "m"}]).tools) == 4
    assert refusal(tools=[N, N]) == ("invalid_value", "tools[1].tools[0].name")
    assert refusal(tools=[N | {"tools": [F, F]}]) == ("invalid_value", "tools[0].tools[1].name")
    assert refusal(tools=[F, C | {"name": "f"}]) == ("invalid_value", "tools[1].name")


@pytest.mark.parametrize(
    ("tool", "code", "param"),
    [
        (N | {"name": "a b"}, "invalid_value", "tools[0].name"),
        ({"type": "namespace", "tools": []}, "missing_required_parameter", "tools[0].name"),
        ({"type": "namespace", "name": "n"}, "missing_required_parameter", "tools[0].tools"),
        (N | {"tools": {}}, "invalid_type", "tools[0].tools"),
        (N | {"tools": [7]}, "invalid_type", "tools[0].tools[0]"),
        (N | {"tools": [F, {"type": "function"}]}, "missing_required_parameter", "tools[0].tools[1].name"),
        (N | {"tools": [N]}, "invalid_value", "tools[0].tools[0].type"),
        (
            N | {"tools": [C | {"format": {"type": "grammar", "syntax": "gbnf"}}]},
            "invalid_value",
            "tools[0].tools[0].format.syntax",
        ),
    ],
    ids=str,
)
def test_bad_namespaces_are_refused_by_their_place(tool: Any, code: str, param: str) -> None:
    assert refusal(tools=[tool]) == (code, param)


def test_tools_in_namespaces_count() -> None:
    many = [F | {"name": f"f{i}"} for i in range(1000)]
    assert create(tools=[N | {"tools": many}]).tools
    assert refusal(tools=[N | {"tools": many}, N | {"name": "m", "tools": many}]) == ("array_above_max_length", "tools")


@pytest.mark.parametrize(
    "choice",
    [
        F,
        F | {"namespace": "n"},
        C,
        {"type": "shell"},
        {"type": "web_search"},
        {"type": "allowed_tools", "mode": "required", "tools": [F, C | {"namespace": "n"}, {"type": "shell"}]},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "n"}]},
    ],
    ids=str,
)
def test_choices_of_every_form_are_kept(choice: Any) -> None:
    assert create(tools=[N, {"type": "shell"}, {"type": "web_search"}], tool_choice=choice).tool_choice == choice


def test_allowed_tools_has_its_mode_in_the_echo() -> None:
    made = create(tools=[F], tool_choice={"type": "allowed_tools", "tools": [F]})
    assert made.tool_choice == {"type": "allowed_tools", "tools": [F], "mode": "auto"}


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (F | {"name": "g"}, "tool_choice"),
        (F | {"namespace": "m"}, "tool_choice"),
        (C | {"name": "f"}, "tool_choice"),
        ({"type": "shell"}, "tool_choice"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "namespace"}, "tool_choice.name"),
        ({"type": "allowed_tools", "tools": [F, {"type": "namespace", "name": "m"}]}, "tool_choice.tools[1]"),
    ],
    ids=str,
)
def test_a_choice_names_what_there_is(choice: Any, param: str) -> None:
    assert refusal(tools=[N], tool_choice=choice)[1] == param


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"input": [USER, {"type": "additional_tools", "role": "developer", "tools": [F]}]},
    ],
    ids=["chain", "item"],
)
def test_a_choice_may_name_what_the_context_brings(more: Any) -> None:
    """Which tools there are is known only when the context is; what has no sense at all is refused at once."""
    assert create(tool_choice=F, **more).tool_choice == F
    assert create(tool_choice="required", **more).tool_choice == "required"
    assert refusal(tool_choice={"type": "function"}, **more)[1] == "tool_choice.name"


@pytest.mark.parametrize("kind", ["additional_tools", "tool_search_output"])
def test_items_bring_tools_like_those_of_a_request(kind: str) -> None:
    (item,) = create(input=[{"type": kind, "tools": [F, N]}]).input
    assert item["tools"] == [WHOLE, N | {"tools": [WHOLE, C]}]
    assert create(input=[{"type": kind}]).input[0]["tools"] == []
    assert refusal(input=[USER, {"type": kind, "tools": [F, F]}]) == ("invalid_value", "input[1].tools[1].name")
    assert refusal(input=[{"type": kind, "tools": 7}]) == ("invalid_type", "input[0].tools")


def test_calls_keep_their_namespace() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "namespace": "n", "arguments": "{}"}
    assert create(input=[call]).input[0]["namespace"] == "n"
    assert refusal(input=[call | {"namespace": 7}]) == ("invalid_type", "input[0].namespace")
