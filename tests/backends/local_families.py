"""The smallest templates that tell a family, and outputs as each family writes them."""

from typing import Any

from ore.backends.local.families import family_of
from ore.backends.local.markup import Markup
from ore.core.deltas import Begin, Delta, Reasoning, Text, ToolArguments, ToolCall

ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
PING: dict[str, Any] = {
    "type": "function",
    "name": "ping",
    "strict": True,
    "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
}
PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /[a-c\\n]+/"},
}
TOOLS = (ADD, PING, PATCH)

DS = {
    word: f"<\uff5ctool\u2581{word.replace('_', chr(0x2581))}\uff5c>"
    for word in ("calls_begin", "calls_end", "call_begin", "call_end", "sep")
}

TEMPLATES: dict[str, str] = {
    "hermes": "{% for tool in tools %}{% endfor %}<tool_call></tool_call>",
    "qwen-coder": "tools <tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    "glm": "tools <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    "llama": '<|start_header_id|>tools {"name": "f", "parameters": {}}',
    "mistral-list": "[AVAILABLE_TOOLS][TOOL_CALLS] [{}]",
    "mistral": "[AVAILABLE_TOOLS][TOOL_CALLS]f[ARGS]",
    "mistral-ids": "[AVAILABLE_TOOLS][TOOL_CALLS]f[CALL_ID]x[ARGS]",
    "granite": "tools <|tool_call|>[]",
    "phi": "tools <|tool_call|>{}<|/tool_call|>",
    "deepseek": f"tools {DS['calls_begin']}```json",
    "deepseek-v3.1": f"tools {DS['calls_begin']}{DS['sep']}",
    "kimi": "tools <|tool_calls_section_begin|>",
    "gemma": "tools <|tool_call>call:f{}<tool_call|>",
    "function-gemma": "tools <start_function_call>call:f{}<end_function_call>",
    "harmony": "<|start|>assistant<|channel|>final<|message|>",
}


def markup_of(family: str) -> Markup:
    return family_of(TEMPLATES[family])


_ADD_1: list[Delta] = [ToolCall("call_1", "add"), ToolArguments('{"a": 1, "b": "x]}<"}')]
_TWO: list[Delta] = [*_ADD_1, ToolCall("call_2", "ping"), ToolArguments("{}")]
_RAW: list[Delta] = [ToolCall("call_1", "patch", "custom_tool_call"), ToolArguments("a\n\nb")]
_THOUGHT = Reasoning("hm")

TRANSCRIPTS: list[tuple[str, str, list[Delta]]] = [
    (
        "qwen-coder",
        "So:\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx]}<\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=ping>\n</function>\n</tool_call>",
        [Text("So:"), *_TWO],
    ),
    (
        "qwen-coder",
        "<tool_call><function=add><parameter=a>1</parameter><parameter=b>x]}<</parameter></function></tool_call>",
        _ADD_1,
    ),
    (
        "qwen-coder",
        "<tool_call>\n<function=patch>\n<parameter=input>\na\n\nb\n</parameter>\n</function>\n</tool_call>",
        _RAW,
    ),
    ("qwen-coder", '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "x]}<"}}\n</tool_call>', _ADD_1),
    (
        "glm",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>x]}<</arg_value>\n"
        "</tool_call>\n<tool_call>ping\n</tool_call>",
        _TWO,
    ),
    ("glm", "<tool_call>patch\n<arg_key>input</arg_key>\n<arg_value>a\n\nb</arg_value>\n</tool_call>", _RAW),
    ("glm", "<tool_call>no such tool</tool_call>", [Text("<tool_call>no such tool</tool_call>")]),
    ("llama", '{"name": "add", "parameters": {"a": 1, "b": "x]}<"}}', _ADD_1),
    ("llama", '<|python_tag|>{"type": "function", "name": "add", "parameters": {"a": 1, "b": "x]}<"}}\n', _ADD_1),
    ("llama", '{"name": "patch"}\na\n\nb', _RAW),
    ("llama", '{"name": "Ada", "parameters": {}}', [Text('{"name": "Ada", "parameters": {}}')]),
    ("llama", '{"name": "add", "age": 3}', [Text('{"name": "add", "age": 3}')]),
    ("llama", ' {"name"', [Text(' {"name"')]),
    ("llama", 'Say {"name": "add", "parameters": {}}', [Text('Say {"name": "add", "parameters": {}}')]),
    ("llama", "<|python_tag|>print(1)", [Text("print(1)")]),
    (
        "mistral-list",
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": "x]}<"}, "id": "abcdefghi"}, '
        '{"name": "ping", "arguments": {}}]',
        _TWO,
    ),
    ("mistral-list", 'Well.[TOOL_CALLS][{"name": "patch"}]\na\n\nb', [Text("Well."), *_RAW]),
    (
        "mistral-list",
        '[TOOL_CALLS][{"arguments": {"a": 1}, "name": "add"}, {"arguments": {}, "name": "ping"}]',
        [ToolCall("call_1", "add"), ToolArguments('{"a":1}'), ToolCall("call_2", "ping"), ToolArguments("{}")],
    ),
    ("mistral-list", "[TOOL_CALLS] none", [Text("[TOOL_CALLS] none")]),
    ("mistral", '[TOOL_CALLS]add[ARGS]{"a": 1, "b": "x]}<"}[TOOL_CALLS]ping[ARGS]{}', _TWO),
    ("mistral", "[TOOL_CALLS]patch[ARGS]a\n\nb", _RAW),
    ("mistral", "[TOOL_CALLS]sub[ARGS]{}", [Text("[TOOL_CALLS]sub[ARGS]{}")]),
    ("mistral-ids", '[TOOL_CALLS]add[CALL_ID]abc123DEF[ARGS]{"a": 1, "b": "x]}<"}', _ADD_1),
    ("granite", '<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": "x]}<"}}]', _ADD_1),
    ("phi", '<|tool_call|>{"name": "add", "arguments": {"a": 1, "b": "x]}<"}}<|/tool_call|>', _ADD_1),
    (
        "deepseek",
        f"{DS['calls_begin']}{DS['call_begin']}function{DS['sep']}add\n```json\n"
        f'{{"a": 1, "b": "x]}}<"}}\n```{DS["call_end"]}\n{DS["call_begin"]}function{DS["sep"]}ping\n```json\n{{}}\n```'
        f"{DS['call_end']}{DS['calls_end']}",
        _TWO,
    ),
    (
        "deepseek",
        f"{DS['calls_begin']}{DS['call_begin']}function{DS['sep']}patch\n```\na\n\nb\n```{DS['call_end']}{DS['calls_end']}",
        _RAW,
    ),
    (
        "deepseek-v3.1",
        f'Now.{DS["calls_begin"]}{DS["call_begin"]}add{DS["sep"]}{{"a": 1, "b": "x]}}<"}}{DS["call_end"]}'
        f"{DS['call_begin']}ping{DS['sep']}{{}}{DS['call_end']}{DS['calls_end']}",
        [Text("Now."), *_TWO],
    ),
    (
        "deepseek-v3.1",
        f"{DS['calls_begin']}{DS['call_begin']}patch{DS['sep']}a\n\nb{DS['call_end']}"
        f"{DS['call_begin']}ping{DS['sep']}{{}}{DS['call_end']}{DS['calls_end']}",
        [*_RAW, ToolCall("call_2", "ping"), ToolArguments("{}")],
    ),
    (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0"
        '<|tool_call_argument_begin|>{"a": 1, "b": "x]}<"}'
        "<|tool_call_end|><|tool_call_begin|>functions.ping:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        _TWO,
    ),
    ("gemma", '<|tool_call>call:add{"a": 1, "b": "x]}<"}<tool_call|><|tool_call>call:ping{}<tool_call|>', _TWO),
    ("function-gemma", '<start_function_call>call:add{"a": 1, "b": "x]}<"}<end_function_call>', _ADD_1),
    (
        "harmony",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        [_THOUGHT, Text("Yes.")],
    ),
    (
        "harmony",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.add "
        '<|constrain|>json<|message|>{"a": 1, "b": "x]}<"}<|call|>',
        [_THOUGHT, *_ADD_1],
    ),
    (
        "harmony",
        "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>commentary to=functions.add"
        '<|message|>{"a": 1, "b": "x]}<"}',
        [Begin("message", phase="commentary"), Text("First."), *_ADD_1],
    ),
    (
        "harmony",
        "<|channel|>commentary<|message|>First.<|end|>\n<|start|>assistant<|channel|>final<|message|>Then.",
        [
            Begin("message", phase="commentary"),
            Text("First."),
            Begin("message", phase="final_answer"),
            Text("Then."),
        ],
    ),
    (
        "harmony",
        "<|channel|>final<|message|>So.<|end|><|start|>assistant to=functions.ping<|channel|>commentary json"
        "<|message|>{}",
        [Text("So."), ToolCall("call_1", "ping"), ToolArguments("{}")],
    ),
    ("harmony", "<|channel|>commentary to=functions.patch<|message|>a\n\nb<|call|>", _RAW),
    (
        "harmony",
        "<|channel|>commentary to=browser.find<|message|>x<|call|>",
        [Begin("message", phase="commentary"), Text("x")],
    ),
    ("harmony", "No header at all.", [Text("No header at all.")]),
]
