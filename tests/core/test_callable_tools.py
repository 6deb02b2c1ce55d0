"""Tools as functions: every name is unique, what cannot be shown is skipped, and the newest of two counts."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.core.callable_tools import TOOL_TYPES, callable_tools, effective_tools, skipped, tools_in
from ore.core.native_tools import NATIVE_TOOLS

F: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}}
C: dict[str, Any] = {"type": "custom", "name": "c"}


def space(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def shown(*tools: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [(tool.shown, tool.namespace, tool.name) for tool in callable_tools(tools)]


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        ([F, C], [("f", None, "f"), ("c", None, "c")]),
        ([space("n", F, C)], [("f", "n", "f"), ("c", "n", "c")]),
        ([F, space("n", F)], [("f", None, "f"), ("n__f", "n", "f")]),
        ([space("m", F), space("n", F)], [("m__f", "m", "f"), ("n__f", "n", "f")]),
        ([space("n", F), F | {"name": "n__f"}, F], [("n__f_2", "n", "f"), ("n__f", None, "n__f"), ("f", None, "f")]),
        ([{"type": "shell"}, F | {"name": "shell"}], [("shell_2", None, "shell"), ("shell", None, "shell")]),
        ([{"type": "shell", "environment": {"type": "local"}}], [("shell", None, "shell")]),
        ([{"type": "shell", "environment": {"type": "container_auto"}}], []),
        ([{"type": "tool_search", "execution": "client"}], [("tool_search", None, "tool_search")]),
        ([{"type": "tool_search"}, F | {"defer_loading": True}], [("f", None, "f")]),
        ([{"type": "web_search"}, {"type": "computer"}, {"type": "of_tomorrow"}], []),
        ([space("n", {"type": "of_tomorrow"}, F)], [("f", "n", "f")]),
    ],
    ids=str,
)
def test_names(tools: list[dict[str, Any]], names: list[tuple[str, str | None, str]]) -> None:
    assert shown(*tools) == names


def test_places_name_the_tool_in_the_request() -> None:
    found = callable_tools([{"type": "web_search"}, C, space("n", C, F)])
    assert [tool.at for tool in found] == ["tools[1]", "tools[2].tools[0]", "tools[2].tools[1]"]


def test_a_search_that_the_client_runs_takes_the_arguments_that_the_client_says() -> None:
    mine = {"type": "object", "properties": {"words": {"type": "string"}}}
    own, plain = callable_tools(
        [
            {"type": "tool_search", "execution": "client", "description": "Mine.", "parameters": mine},
            {"type": "tool_search", "execution": "client"},
        ]
    )
    assert (own.description, own.parameters, own.strict) == ("Mine.", mine, False)
    assert (plain.description, plain.strict) == (NATIVE_TOOLS["tool_search"].description, True)


def test_custom_tools_take_one_text() -> None:
    regex = {"type": "grammar", "syntax": "regex", "definition": "a|b"}
    plain, held = callable_tools([C, C | {"name": "d", "format": regex}])
    assert plain.parameters["properties"] == {"input": {"type": "string"}}
    assert held.parameters["properties"] == {"input": {"type": "string", "pattern": "^(a|b)$"}}


NAMES = st.text("ab_-", min_size=1, max_size=3) | st.sampled_from(["a" * 128, "shell", "shell_2", "a__b"])
NAMED = st.builds(lambda kind, name: {"type": kind, "name": name}, st.sampled_from(["function", "custom"]), NAMES)
UNIQUE = st.lists(NAMED, max_size=4, unique_by=lambda tool: tool["name"])
SPACES = st.lists(st.tuples(NAMES, UNIQUE), max_size=3, unique_by=lambda pair: pair[0])
NATIVES = st.lists(st.sampled_from(sorted(NATIVE_TOOLS)), unique=True).map(lambda kinds: [{"type": k} for k in kinds])


# Whatever the names are, each tool has one of its own that models and grammars take, and top-level ones keep theirs.
@given(UNIQUE, SPACES, NATIVES)
def test_names_are_always_unique(top: list[Any], spaces: list[Any], natives: list[Any]) -> None:
    found = callable_tools([*natives, *(space(name, *inner) for name, inner in spaces), *top])
    names = [tool.shown for tool in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name) for name in names)
    assert [tool.shown for tool in found if tool.namespace is None and tool.type in ("function", "custom")] == [
        tool["name"] for tool in top
    ]


def test_what_has_no_effect_is_skipped_by_type() -> None:
    container = {"type": "shell", "environment": {"type": "container_reference", "container_id": "c"}}
    assert skipped([F, C, space("n", F), *({"type": kind} for kind in NATIVE_TOOLS)]) == []
    assert skipped([{"type": "web_search"}, {"type": "computer"}, {"type": "web_search"}, F]) == [
        "computer",
        "web_search",
    ]
    assert skipped([container]) == ["shell"]
    assert skipped([F, C], ["function"]) == ["custom"]
    assert skipped([space("n", F, {"type": "of_tomorrow"})]) == ["of_tomorrow"]
    assert skipped([space("n", F)], ["function"]) == ["namespace"]
    assert {"function", "custom", "namespace", "shell"} < set(TOOL_TYPES)


def test_items_bring_tools_and_the_newest_of_one_name_counts() -> None:
    new = F | {"description": "new"}
    newer = C | {"description": "newer"}
    items = [
        {"type": "message", "role": "user", "content": [], "tools": [F]},
        {"type": "tool_search_output", "tools": [new, space("n", F)]},
        {"type": "additional_tools", "role": "developer", "tools": [newer, {"type": "shell"}]},
        {"type": "additional_tools", "tools": None},
    ]
    assert tools_in(items) == [new, space("n", F), newer, {"type": "shell"}]
    request = [F, C, {"type": "web_search"}, space("n", F, C), {"type": "web_search"}, {"type": "shell"}]
    assert effective_tools(request, items) == [
        {"type": "web_search"},
        space("n", C),
        {"type": "web_search"},
        new,
        space("n", F),
        newer,
        {"type": "shell"},
    ]
    assert effective_tools(request, []) == request


def test_a_function_may_take_the_place_of_a_custom_tool() -> None:
    """Two tools of one name, whatever their kind, would be one to the model."""
    assert effective_tools([C], [{"type": "additional_tools", "tools": [F | {"name": "c"}]}]) == [F | {"name": "c"}]
