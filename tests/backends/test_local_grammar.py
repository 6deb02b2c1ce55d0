"""The grammar: what it lets through, judged by llguidance itself, and which schemas are refused."""

import json
import time
from typing import Any

import llguidance
import pytest

from ore.backends.base import ModelRequest
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.grammar import build_grammar
from ore.backends.local.json_schemas import check_schema, loosen_schema
from ore.backends.local.markup import Markup
from ore.errors import InvalidRequest

ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
}
PING: dict[str, Any] = {"type": "function", "name": "ping"}
CALL_ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
CALL_PING = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
PLAIN = Markup()
THINKS = Markup(thinks=True)
THINKING = Markup(thinks=True, thinking=True)
TOKENIZER = llguidance.LLTokenizer("byte")


def grammar(markup: Markup = PLAIN, **fields: Any) -> str:
    request = ModelRequest(model="m", items=(), **fields)
    return build_grammar(request, plan_tools(request), markup)


def accepts(lark: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(TOKENIZER, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0)
    raw = list(text.encode())
    return bool(matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        (
            {},
            ["", "hello <tool", CALL_ADD, "so:\n" + CALL_PING, CALL_ADD + "\n" + CALL_PING],
            ["<tool_call>", CALL_ADD + CALL_ADD, CALL_ADD + "\nmore", CALL_ADD.replace("1", '"x"'), "x<tool_call>y"],
        ),
        ({"parallel_tool_calls": False}, [CALL_ADD, "x"], [CALL_ADD + "\n" + CALL_PING]),
        ({"tool_choice": "required"}, [CALL_ADD, CALL_ADD + "\n" + CALL_PING], ["", "hello", "so:\n" + CALL_ADD]),
        ({"tool_choice": {"type": "function", "name": "ping"}}, [CALL_PING], [CALL_ADD, "", "hello"]),
        (
            {"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "ping"}]}},
            ["text", CALL_PING],
            [CALL_ADD],
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "add"}],
                }
            },
            [CALL_ADD],
            [CALL_PING, "text"],
        ),
        ({"tool_choice": "none"}, ["", "text", "<tool_call"], [CALL_ADD, "a <tool_call> b"]),
        ({"text_format": {"type": "json_object"}}, ['{"a": [1, 2]}', CALL_ADD], ["text", '{"a":    1}', "[]"]),
        (
            {"text_format": {"type": "json_object"}, "tool_choice": "required"},
            [CALL_ADD],
            ["{}"],
        ),
    ],
)
def test_tools(fields: dict[str, Any], good: list[str], bad: list[str]) -> None:
    lark = grammar(tools=(ADD, PING), **fields)
    assert [text for text in good if not accepts(lark, text)] == []
    assert [text for text in bad if accepts(lark, text)] == []


@pytest.mark.parametrize(
    ("markup", "fields", "good", "bad"),
    [
        (THINKS, {"tool_choice": "required"}, [CALL_ADD, f"<think>a <tool_call></think>\n\n{CALL_ADD}"], ["<think>a"]),
        (
            THINKS,
            {},
            ["", "hi", "<thin", f"<think>why <tool_call></think>\n{CALL_ADD}", "<think>a</think>b", f"so\n{CALL_ADD}"],
            ["<think>no end", f"<think>{CALL_ADD}", "<think>a</think>b<tool_call>"],
        ),
        (THINKING, {}, ["a</think>b", f"why <tool_call></think>\n{CALL_ADD}"], ["", "no end"]),
        (THINKING, {"text_format": {"type": "json_object"}}, ["so</think>\n\n{}"], ["{}", "so</think>text"]),
    ],
)
def test_thinking_is_free(markup: Markup, fields: dict[str, Any], good: list[str], bad: list[str]) -> None:
    lark = grammar(markup, tools=(ADD,), **fields)
    assert [text for text in good if not accepts(lark, text)] == []
    assert [text for text in bad if accepts(lark, text)] == []


def test_plain_text_needs_no_grammar() -> None:
    assert grammar() == ""


def test_control_tokens_are_named_as_such() -> None:
    lark = grammar(Markup(special={"<tool_call>": 7, "</tool_call>": 8}), tools=(ADD,))
    assert "<[7]> (call <[8]>" in lark


def test_custom_tools_take_a_regex() -> None:
    sql = {"type": "custom", "name": "sql", "format": {"type": "grammar", "syntax": "regex", "definition": "a+|b"}}
    lark = grammar(tools=(sql,), tool_choice={"type": "custom", "name": "sql"})
    call = '<tool_call>\n{"name": "sql", "arguments": {"input": "%s"}}\n</tool_call>'
    assert accepts(lark, call % "aaa")
    assert not accepts(lark, call % "ab")
    with pytest.raises(InvalidRequest) as caught:
        grammar(tools=(ADD, {**sql, "format": {**sql["format"], "definition": "(?=a)"}}))  # type: ignore[dict-item]
    assert (caught.value.code, caught.value.param) == ("invalid_value", "tools[1].format.definition")


def lark_tool(definition: str, name: str = "patch") -> dict[str, Any]:
    return {
        "type": "custom",
        "name": name,
        "format": {"type": "grammar", "syntax": "lark", "definition": definition},
    }


EDITS = """
// Files are put, moved and dropped between two lines that say so.
start: "BEGIN" NL step+ "END" NL?
step: put | move | drop
put: "put " path NL ("|" rest NL)+
move: "move " path " to " path NL
drop: "drop " path NL -> gone
path: /[^ \\n]+/
rest: /.*/
NL: "\\n"
"""
RAW_CALL = '<tool_call>\n{"name": "patch"}\n%s\n</tool_call>'


@pytest.mark.parametrize(
    ("definition", "good", "bad"),
    [
        (
            EDITS,
            ["BEGIN\nput a.txt\n|one\n|}</tool_call>\nmove a to b\nEND", "BEGIN\ndrop a\nEND\n"],
            ["", "BEGIN\nEND", "BEGIN\ndrop a b\nEND", "BEGIN\nput a\nEND"],
        ),
        ("start: /.+/", ["one line}"], ["two\nlines"]),
        ('start: "a"+\n%ignore " "', ["a a"], ["b"]),
        ('start: n ("," n)*\nn: INT\n%import common.INT', ["1,22"], ["1,"]),
        ('start: %json {"type": "integer"}', ["12"], ["a"]),
        ('start: "}" // not the end: }', ["}"], ["", "}}"]),
    ],
    ids=["edits", "line", "ignore", "import", "json", "brace"],
)
def test_custom_tools_take_a_lark_grammar(definition: str, good: list[str], bad: list[str]) -> None:
    tool = lark_tool(definition)
    lark = grammar(tools=(ADD, tool), tool_choice={"type": "custom", "name": "patch"})
    assert [text for text in good if not accepts(lark, RAW_CALL % text)] == []
    assert [text for text in bad if accepts(lark, RAW_CALL % text)] == []
    both = grammar(tools=(ADD, tool))
    assert accepts(both, f"So: {CALL_ADD}\n{RAW_CALL % good[0]}")
    assert accepts(both, f"{RAW_CALL % good[0]}\n{CALL_ADD}")
    alone = grammar(tools=(ADD, tool), parallel_tool_calls=False)
    assert not accepts(alone, f"{RAW_CALL % good[0]}\n{CALL_ADD}")


def test_raw_text_that_swallows_the_close_marker_ends_with_the_answer() -> None:
    lark = grammar(tools=(lark_tool("start: /(?s:.+)/"),), tool_choice="required")
    assert accepts(lark, (RAW_CALL % "any\nthing").removesuffix("\n</tool_call>"))
    assert not accepts(lark, '<tool_call>\n{"name": "patch"}\n')


@pytest.mark.parametrize(
    "definition",
    [
        "",
        "begin: X",
        'start: "a" }\nescaped: "b"',
        'start: "a" }\nescaped: %lark { start: "b"',
        "start: @other",
        "start: <[*]>",
        'start: "\\n\n" <[5]> "b"',
        "start: <|im_end|>",
        'start: b\nb[stop="x"]: /.*/',
        "start: start",
        "start: /(?=a)b/",
        "x" * 200_000,
    ],
    ids=lambda definition: definition[:30],
)
def test_a_lark_grammar_that_cannot_be_held_is_refused_by_its_place(definition: str) -> None:
    inside = {"type": "namespace", "name": "n", "tools": [lark_tool(definition)]}
    with pytest.raises(InvalidRequest) as caught:
        grammar(tools=(PING, lark_tool(definition)))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "tools[1].format.definition")
    with pytest.raises(InvalidRequest) as caught:
        grammar(tools=(PING, inside))
    assert caught.value.param == "tools[1].tools[0].format.definition"


def test_native_tools_are_called_with_the_arguments_of_their_rows() -> None:
    lark = grammar(tools=({"type": "apply_patch"}, {"type": "shell"}), tool_choice={"type": "apply_patch"})
    call = '<tool_call>\n{"name": "%s", "arguments": %s}\n</tool_call>'
    drop = '{"operation": {"type": "delete_file", "path": "a"}}'
    assert accepts(lark, call % ("apply_patch", drop))
    assert not accepts(lark, call % ("apply_patch", drop.replace("delete", "create")))
    assert not accepts(lark, call % ("shell", '{"commands": ["ls"], "timeout_ms": null, "max_output_length": null}'))


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "add"}, {"type": "file_search"}])
def test_a_choice_that_cannot_be_made_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar(tools=({"type": "file_search"},) if choice != "required" else (), tool_choice=choice)
    assert caught.value.param == "tool_choice"


FINE: list[Any] = [
    {},
    True,
    {"type": "object"},
    {"$schema": "https://example.org/mine", "type": "object", "x-made-up": 1, "title": "t", "examples": [{"not": 1}]},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}},
    {"anyOf": [{"$ref": "#"}, {"const": "end"}]},
    {"enum": [1, "a", None, {"not": 2}]},
    {"type": "object", "properties": {"not": {"type": "integer"}, "if": {}}},
    {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "multipleOf": 2},
    {"type": "string", "pattern": "^a+$", "minLength": 2},
    {"type": "string", "format": "date-time"},
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
]


@pytest.mark.parametrize("schema", FINE, ids=json.dumps)
def test_ordinary_schemas_pass(schema: Any) -> None:
    assert check_schema(schema).problem == ""


REFUSED: list[tuple[Any, str]] = [
    ({"not": {"type": "null"}}, "'not'"),
    ({"type": "object", "properties": {"a": {"if": {}, "then": {}}}}, "'if'"),
    ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    ({"type": "array", "contains": {"const": 1}}, "'contains'"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
    ({"type": "object", "propertyNames": {"pattern": "a"}}, "'propertyNames'"),
    ({"items": [{"type": "integer"}]}, "prefixItems"),
    ({"extends": {"type": "string"}}, "'extends'"),
    ({"type": "string", "format": "made-up"}, "made-up"),
    ({"type": "string", "pattern": "^(?=a)b"}, "look-around"),
    ({"type": "integer", "minimum": 5, "maximum": 1}, "minimum"),
    ({"type": "made-up"}, "made-up"),
    (False, "nothing"),
    ({"$ref": "http://example.org/a.json"}, "$ref"),
    ({"$id": "http://example.org/", "properties": {"a": {"$ref": "other"}}}, "$ref"),
    ({"$ref": "#/$defs/missing"}, "missing"),
]


@pytest.mark.parametrize(("schema", "word"), REFUSED, ids=str)
def test_what_cannot_be_held_is_refused_by_name(schema: Any, word: str) -> None:
    assert word in check_schema(schema).problem
    with pytest.raises(InvalidRequest) as caught:
        grammar(text_format={"type": "json_schema", "name": "n", "schema": schema, "strict": True})
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "text.format.schema")


def test_a_strict_tool_is_refused_and_another_let_go() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(InvalidRequest) as caught:
        grammar(tools=(PING, {**ADD, "parameters": parameters}))
    assert (caught.value.code, caught.value.param) == ("invalid_function_parameters", "tools[1].parameters")
    assert "uniqueItems" in caught.value.message
    lark = grammar(tools=({**ADD, "parameters": parameters, "strict": False},))
    assert accepts(lark, CALL_ADD.replace('{"a": 1}', '{"a": [1, 1]}'))
    assert not accepts(lark, CALL_ADD)


def test_hopeless_parameters_become_any_object() -> None:
    lark = grammar(tools=({**ADD, "parameters": {"$ref": "http://example.org/"}, "strict": False},))
    assert accepts(lark, CALL_ADD)
    assert not accepts(lark, CALL_ADD.replace('{"a": 1}', "7"))


def test_a_client_cannot_switch_the_enforcement_off() -> None:
    schema = {"x-guidance": {"lenient": True}, "type": "string", "format": "made-up"}
    assert check_schema(schema).problem


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": {}}}, ['{"a": 1}', "{}", "7"], ['{"a": 1, "b": 2}', '{"b": 2}']),
        ({"properties": {"a": {}}, "additionalProperties": True}, ['{"a": 1, "b": 2}'], []),
        ({"properties": {"a": {"properties": {"b": {}}}}}, ['{"a": {"b": 1}}'], ['{"a": {"c": 1}}']),
        ({"properties": {"a": {}}, "required": ["z"]}, ['{"a": 1, "z": 2}'], []),
        ({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}, "required": ["b"]}]}, ['{"a": 1, "b": 2}'], []),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, ['{"a": 1, "b": 2}'], []),
        (
            {"$ref": "#/$defs/x", "properties": {"a": {}}, "$defs": {"x": {"properties": {"b": {}}}}},
            ['{"a": 1}', '{"b": 1}'],
            [],
        ),
    ],
    ids=str,
)
def test_listed_properties_are_all_there_is(schema: Any, good: list[str], bad: list[str]) -> None:
    """Unless the schema says otherwise: small models would invent properties without end."""
    lark = grammar(text_format={"type": "json_schema", "name": "n", "schema": schema})
    assert [text for text in good if not accepts(lark, text)] == []
    assert [text for text in bad if accepts(lark, text)] == []


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


HOSTILE: dict[str, Any] = {
    "large": {"description": "x" * 10_000_000},
    "deep": nested(100),
    "deeper than python": nested(20_000),
    "wide": {"properties": {f"p{i}": {"type": "string", "minLength": i} for i in range(20_000)}},
    "many": {"enum": [f"value {i}" for i in range(10_000)]},
    "long pattern": {"type": "string", "pattern": "(a|b)*" * 5_000},
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_schemas_are_refused_soon(schema: Any) -> None:
    before = time.process_time()
    assert check_schema(schema).problem
    assert loosen_schema(schema).problem
    assert time.process_time() - before < 0.5


DEVIOUS: dict[str, Any] = {
    "powers": {"type": "string", "pattern": "((((a{1,100}){1,100}){1,100}){1,100})"},
    "backtracking": {"type": "string", "pattern": "(x+x+)+y"},
    "states": {"type": "string", "pattern": "(a|b)*a(a|b){30}"},
    "long": {"type": "string", "minLength": 1_000_000},
    "arrays": {"type": "array", "minItems": 100_000, "items": {"type": "array", "minItems": 100_000}},
    "doubling": {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {}},
    },
    "branching": {
        "$ref": "#/$defs/d0",
        "$defs": {
            f"d{i}": {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/d{i + 1}"}}, {"const": i}]}
            for i in range(40)
        }
        | {"d40": {}},
    },
    "wide": {"properties": {f"p{i}": {"type": "string", "maxLength": i} for i in range(1_000)}},
}


@pytest.mark.parametrize("schema", DEVIOUS.values(), ids=DEVIOUS.keys())
def test_devious_schemas_take_bounded_time(schema: Any) -> None:
    before = time.process_time()
    check_schema(schema)
    assert time.process_time() - before < 1.0
