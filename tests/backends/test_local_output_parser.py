"""The output parser: every way of cutting the same text gives the same deltas, and markup never leaks."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from ore.backends.local.markup import Markup
from ore.backends.local.output_parser import OutputParser
from ore.core.callable_tools import callable_tools
from ore.core.deltas import Delta, Reasoning, Text, ToolArguments, ToolCall

PLAIN = Markup()
THINKS = Markup(thinks=True)
THINKING = Markup(thinks=True, thinking=True)
SQL = {"type": "custom", "name": "sql"}
PATCH = {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}}
RAW = '<tool_call>\n{"name": "patch"}\n%s\n</tool_call>'
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": [1, "}\\""]}}\n</tool_call>'


def parse(
    pieces: Iterable[str], markup: Markup = PLAIN, *, tools: Sequence[dict[str, Any]] = (), calls: bool = True
) -> list[Delta]:
    numbers = itertools.count(1)
    parser = OutputParser(markup, lambda: f"call_{next(numbers)}", calls=calls, tools=callable_tools(tools))
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    return merged(deltas)


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    whole: list[Delta] = []
    for delta in deltas:
        last = whole[-1] if whole else None
        if isinstance(delta, Text | Reasoning | ToolArguments) and type(last) is type(delta):
            whole[-1] = structs.replace(last, text=last.text + delta.text)
        else:
            whole.append(delta)
    return whole


@pytest.mark.parametrize(
    ("text", "deltas"),
    [
        ("Hello.", [Text("Hello.")]),
        ("", []),
        ("a < b <tool_calls>", [Text("a < b <tool_calls>")]),
        ("ends with <tool_", [Text("ends with <tool_")]),
        (CALL, [ToolCall("call_1", "add"), ToolArguments('{"a": [1, "}\\""]}')]),
        ("So:\n" + CALL, [Text("So:"), ToolCall("call_1", "add"), ToolArguments('{"a": [1, "}\\""]}')]),
        (
            CALL + "\n\n" + CALL + "\n",
            [
                ToolCall("call_1", "add"),
                ToolArguments('{"a": [1, "}\\""]}'),
                ToolCall("call_2", "add"),
                ToolArguments('{"a": [1, "}\\""]}'),
            ],
        ),
        ('<tool_call>{"name":"f","arguments":{}}</tool_call>', [ToolCall("call_1", "f"), ToolArguments("{}")]),
        ('<tool_call>{"name": "f"}</tool_call>', [ToolCall("call_1", "f"), ToolArguments("{}")]),
        (
            '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>',
            [ToolCall("call_1", "f"), ToolArguments('{"a":1}')],
        ),
        (
            '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
            [ToolCall("call_1", "f"), ToolArguments('{"a": 1}')],
        ),
        ('<tool_call>{"name": "f", "arguments": 12}</tool_call>', [ToolCall("call_1", "f"), ToolArguments("12")]),
        ("<tool_call>nonsense</tool_call>!", [Text("<tool_call>nonsense</tool_call>!")]),
        ("<tool_call>\nnever closed", [Text("<tool_call>\nnever closed")]),
        ('<tool_call>{"name": "f", "arguments": {"a": ', [ToolCall("call_1", "f"), ToolArguments('{"a": ')]),
    ],
)
def test_reads(text: str, deltas: list[Delta]) -> None:
    assert parse([text]) == deltas
    assert parse(text) == deltas


@pytest.mark.parametrize(
    ("markup", "text", "deltas"),
    [
        (THINKS, "<think>\nhm\n</think>\n\nYes", [Reasoning("hm"), Text("Yes")]),
        (THINKS, "<think>\n\n</think>\n\nYes", [Text("Yes")]),
        (THINKS, "Yes", [Text("Yes")]),
        (THINKS, "<thing>", [Text("<thing>")]),
        (THINKS, "  <think>a</think>", [Reasoning("a")]),
        (THINKING, "a\n\nb\n</think>\nYes", [Reasoning("a\n\nb"), Text("Yes")]),
        (THINKING, "cut off\n", [Reasoning("cut off")]),
        (
            THINKING,
            "why <tool_call>?</think>\n" + CALL,
            [Reasoning("why <tool_call>?"), ToolCall("call_1", "add"), ToolArguments('{"a": [1, "}\\""]}')],
        ),
    ],
)
def test_splits_reasoning(markup: Markup, text: str, deltas: list[Delta]) -> None:
    assert parse([text], markup) == deltas
    assert parse(text, markup) == deltas


def test_custom_tools_get_their_input_decoded() -> None:
    raw = '<tool_call>{"name": "sql", "arguments": {"input": "a \\"b\\"\\n"}}</tool_call>'
    expected = [ToolCall("call_1", "sql", "custom_tool_call"), ToolArguments('a "b"\n')]
    assert parse(raw, tools=[SQL]) == expected
    assert parse([raw], tools=[SQL]) == expected


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        (RAW % "+a\n-b", ["+a\n-b"]),
        (RAW % "", [""]),
        (RAW % 'ends with a line\n"}', ['ends with a line\n"}']),
        (RAW % "one" + "\n" + RAW % "two", ["one", "two"]),
        (RAW % "a\n</tool_call> of its own\n</tool_cal", ["a\n</tool_call> of its own\n</tool_cal"]),
        ((RAW % "never closed").removesuffix("\n</tool_call>"), ["never closed"]),
        ((RAW % "a").removesuffix("_call>"), ["a\n</tool"]),
    ],
)
def test_raw_inputs_come_as_they_are_written(text: str, inputs: list[str]) -> None:
    expected: list[Delta] = []
    for number, written in enumerate(inputs, 1):
        expected.append(ToolCall(f"call_{number}", "patch", "custom_tool_call"))
        expected += [ToolArguments(written)] if written else []
    assert parse([text], tools=[PATCH]) == expected
    assert parse(text, tools=[PATCH]) == expected


def test_a_raw_input_that_was_cut_does_not_show_half_a_marker() -> None:
    numbers = itertools.count(1)
    parser = OutputParser(PLAIN, lambda: f"call_{next(numbers)}", tools=callable_tools([PATCH]))
    deltas = parser.feed((RAW % "a").removesuffix("call>")) + parser.finish(cut=True)
    assert merged(deltas) == [ToolCall("call_1", "patch", "custom_tool_call"), ToolArguments("a")]


def test_calls_go_by_the_names_that_the_client_knows() -> None:
    tools = [
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
        {"type": "function", "name": "f"},
        {"type": "shell"},
    ]
    text = "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>' for name in ("n__f", "f", "shell")
    )
    calls = [delta for delta in parse(text, tools=tools) if isinstance(delta, ToolCall)]
    assert calls == [
        ToolCall("call_1", "f", namespace="n"),
        ToolCall("call_2", "f"),
        ToolCall("call_3", "shell", "shell_call"),
    ]


def test_without_tools_markup_is_text() -> None:
    assert parse(CALL, calls=False) == [Text(CALL)]


def test_a_call_cut_in_its_head_leaves_nothing() -> None:
    parser = OutputParser(PLAIN, lambda: "c")
    assert parser.feed('<tool_call>\n{"na') == []
    assert parser.finish(cut=True) == []


def test_logprobs_stay_with_their_text() -> None:
    parser = OutputParser(PLAIN, lambda: "c")
    tokens = ["He", "llo", "<tool", "_x", '<tool_call>{"name": "f", "arguments": {}}</tool_call>', "end"]
    deltas = [delta for token in tokens for delta in parser.feed(token, ({"token": token},))] + parser.finish()
    shown = [(delta.text, [entry["token"] for entry in delta.logprobs]) for delta in deltas if isinstance(delta, Text)]
    assert shown == [("He", ["He"]), ("llo", ["llo"]), ("<tool_x", ["<tool", "_x"]), ("end", ["end"])]


def calls() -> st.SearchStrategy[str]:
    arguments = st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers() | st.none(), max_size=3)
    made = arguments.map(lambda value: f'<tool_call>\n{{"name": "f", "arguments": {json.dumps(value)}}}\n</tool_call>')
    raw = st.text("a<\n", max_size=5).map(lambda text: RAW % text)
    pieces = ["<tool_call>", "</tool_call>", '{"name": "', '{"name": "patch"}\n', "<think>", "</think>", "\n", " ", "<"]
    return made | raw | st.sampled_from(pieces)


# However the same text is cut into chunks, the deltas are the same once neighbours are joined.
@given(
    st.lists(calls() | st.text(max_size=10), max_size=6).map("".join),
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from([PLAIN, THINKS, THINKING]),
)
@example('<tool_call>{"name": "f", "arguments": "a\\\\"}</tool_call>', [40], PLAIN)
def test_any_chunking_gives_the_same(text: str, cuts: list[int], markup: Markup) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    whole = parse([text], markup, tools=[PATCH])
    assert parse(pieces, markup, tools=[PATCH]) == whole == parse(text, markup, tools=[PATCH])


# What a custom tool is given as raw text comes out as it went in, close markers and all.
@given(st.lists(st.text("a}\n<", max_size=4) | st.just("\n</tool_call>"), max_size=5).map("".join), st.booleans())
@example("\n</tool_call>", False)
def test_raw_text_is_untouched(text: str, twice: bool) -> None:
    output = "\n".join([RAW % text] * (2 if twice else 1))
    inputs = "".join(delta.text for delta in parse(output, tools=[PATCH]) if isinstance(delta, ToolArguments))
    assert inputs == text * (2 if twice else 1)


# Text without markers comes out as it went in.
@given(st.lists(st.text(alphabet="ab<>tool_cl{}\n", max_size=6), max_size=6))
def test_plain_text_is_untouched(pieces: list[str]) -> None:
    text = "".join(pieces)
    if "<tool_call>" not in text:
        assert "".join(delta.text for delta in parse(pieces) if isinstance(delta, Text)) == text
