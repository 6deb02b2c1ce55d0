"""Builds the grammar that holds a model to its tools and its text format, in llguidance's dialect of Lark.

Pure, and for every engine that takes such a grammar. Free text, tool calls, JSON and a think block are put together
from a table row per family of call formats, so that a new family is a row. It refuses (400) whatever cannot be
enforced, because an engine given a grammar it cannot compile may well answer without any.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct, structs

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.local.call_forms import is_raw
from ore.backends.local.json_schemas import Verdict, check_schema, compile_problem, loosen_schema
from ore.backends.local.lark_grammars import lark_problem
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan
from ore.errors import InvalidRequest

MAX_CALLS: Final = 32
"""Calls in one sampling, at most: a model that has lost its way must not call for ever."""
MAX_GRAMMAR_BYTES: Final = 1024 * 1024


class ToolCallFormat(Struct, frozen=True, kw_only=True):
    """How a family of models writes a call: open, before_name, the name, before_arguments, the JSON, after, close.

    The name stands inside a JSON string. `between` separates two calls. Where the input is raw text, `before_raw` comes
    after the name instead, and `after_raw` before `close`.
    """

    family: str
    open: str
    before_name: str
    before_arguments: str
    after: str
    before_raw: str
    after_raw: str
    close: str
    between: str


HERMES: Final = ToolCallFormat(
    family="hermes",
    open="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    after="}\n",
    before_raw='"}\n',
    after_raw="\n",
    close="</tool_call>",
    between="\n",
)
FORMATS: Final = (HERMES,)


class Markup(Struct, frozen=True, kw_only=True):
    """What a model's vocabulary and template make of the markers.

    `special` are the markers that are control tokens (invisible to a grammar of bytes). `thinks`: the model may open
    with a think block; `thinking`: the prompt has already opened it.
    """

    call: ToolCallFormat = HERMES
    special: frozenset[str] = frozenset()
    think_open: str = "<think>"
    think_close: str = "</think>"
    thinks: bool = False
    thinking: bool = False


def build_grammar(request: ModelRequest, plan: ToolPlan, markup: Markup) -> str:
    """The grammar for one request; empty when nothing needs to be held. Raises `InvalidRequest`.

    Compiles every schema: a hostile one can take for ever, so servers go through `grammar_process`.
    """
    spelled_out = _compose(request, plan, structs.replace(markup, special=frozenset()))
    if spelled_out and (problem := compile_problem(spelled_out)):
        raise InvalidRequest(
            f"The tools and the text format cannot be enforced together: {problem}. Simplify the schemas.",
            code="invalid_function_parameters" if plan.allowed else "invalid_json_schema",
            param="tools" if plan.allowed else "text.format.schema",
        )
    return _compose(request, plan, markup) if markup.special else spelled_out


def _compose(request: ModelRequest, plan: ToolPlan, markup: Markup) -> str:
    answer = _answer_schema(request.text_format)
    if not plan.allowed and answer is None:
        return _without_calls(markup) if request.tools else ""
    writer = _Writer(markup)
    body = writer.body(plan, answer)
    grammar = "\n".join(["%llguidance {}", f"start: {body}", *writer.rules]) + "\n"
    if len(grammar) > MAX_GRAMMAR_BYTES:
        raise InvalidRequest("The schemas of all tools together are too large.", param="tools")
    return grammar


def _answer_schema(text_format: JsonObject) -> str | None:
    """The `%json` body that the whole answer must match, or None for free text."""
    if text_format.get("type") == "json_object":
        return _must({"type": "object"})
    if text_format.get("type") != "json_schema":
        return None
    schema = text_format.get("schema")
    schema = schema if isinstance(schema, dict | bool) else {}
    verdict = _judge(schema, strict=bool(text_format.get("strict")))
    if verdict.problem:
        raise InvalidRequest(
            f"Invalid schema for response_format {text_format.get('name')!r}: {verdict.problem}. "
            "Remove or replace that part of the schema.",
            code="invalid_json_schema",
            param="text.format.schema",
        )
    return verdict.grammar


def _judge(schema: JsonObject | bool, *, strict: bool) -> Verdict:
    verdict = check_schema(schema)
    return verdict if strict or not verdict.problem else loosen_schema(schema)


def _must(schema: JsonObject) -> str:
    return check_schema(schema).grammar


def arguments_schema(tool: CallableTool) -> str:
    """The `%json` body for a call's arguments: always an object. Not strict: what cannot be enforced is let go."""
    schema = tool.parameters if tool.parameters.get("type") else {"type": "object", **tool.parameters}
    verdict = _judge(schema, strict=tool.strict)
    if schema.get("type") != "object":
        verdict = Verdict("its root must have the type 'object'", "")
    if not verdict.problem:
        return verdict.grammar
    if not tool.strict:
        return _must({"type": "object"})
    if tool.kind == "custom_tool_call":
        message = f"Invalid grammar of the custom tool {tool.name!r}: {verdict.problem}. Mend its regular expression."
        raise InvalidRequest(message, param=f"{tool.at}.format.definition")
    raise InvalidRequest(
        f"Invalid schema for function {tool.name!r}: {verdict.problem}. "
        'Remove or replace that part, or set "strict" to false.',
        code="invalid_function_parameters",
        param=f"{tool.at}.parameters",
    )


def raw_grammar(tool: CallableTool) -> str:
    """The `%lark` body for a custom tool's raw text. Raises `InvalidRequest`."""
    definition = tool.format["definition"]
    if problem := lark_problem(definition):
        raise InvalidRequest(
            f"Invalid grammar of the custom tool {tool.name!r}: {problem}. Mend its definition.",
            param=f"{tool.at}.format.definition",
        )
    return f"{{\n{definition}\n}}"


class _Writer:
    """Puts the parts together; `rules` collects what the body refers to."""

    def __init__(self, markup: Markup) -> None:
        self.markup = markup
        self.rules: list[str] = []

    def body(self, plan: ToolPlan, answer: str | None) -> str:
        """What may follow `start:`."""
        ways = [] if answer is None or plan.required else [self._rule("answer", f"%json {answer}")]
        free = answer is None and not plan.required
        if plan.allowed:
            ways.append(self._calls(plan, free=free))
        if free:
            ways.append("text")
            self.rules.append(f"text: TEXT\nTEXT: /(?s:.*)/{self._unthought()}")
        return self._think() + "(" + " | ".join(ways) + ")"

    def _calls(self, plan: ToolPlan, *, free: bool) -> str:
        """One call or more. The last one may be left open where it ends in raw text that swallows any close marker."""
        self._rule("call", " | ".join(self._call(i, tool) for i, tool in enumerate(plan.allowed)))
        raw = [f"raw_{i}" for i, tool in enumerate(plan.allowed) if is_raw(tool)]
        close, opening = self._token(self.markup.call.close), self._opening(free=free)
        closed, last = f"call {close}", ""
        if plan.parallel:
            again = f"{_literal(self.markup.call.between)} {self._token(self.markup.call.open)}"
            closed += f" ({again} call {close}){{0,{MAX_CALLS - 1}}}"
            last = f" ({again} unclosed)?"
        if not raw:
            return self._rule("calls", f"{opening} {closed}")
        self._rule("unclosed", " | ".join(raw))
        return self._rule("calls", f"{opening} (unclosed | {closed}{last})")

    def _call(self, i: int, tool: CallableTool) -> str:
        """From after the open marker to before the close marker."""
        row = self.markup.call
        name = row.before_name + msgspec.json.encode(tool.shown).decode()[1:-1]
        if is_raw(tool):
            self._rule(f"raw_{i}", f"{_literal(name + row.before_raw)} input_{i}")
            self._rule(f"input_{i}", f"%lark {raw_grammar(tool)}")
            return self._rule(f"call_{i}", f"raw_{i} {_literal(row.after_raw)}")
        self._rule(f"arguments_{i}", f"%json {arguments_schema(tool)}")
        return self._rule(f"call_{i}", f"{_literal(name + row.before_arguments)} arguments_{i} {_literal(row.after)}")

    def _opening(self, *, free: bool) -> str:
        """The open marker of the first call; after free text, the first time that the marker is complete."""
        marker = self.markup.call.open
        if not free:
            return self._token(marker)
        if marker in self.markup.special:
            self.rules.append(f"before: BEFORE\nBEFORE: /(?s:.*)/{self._unthought()}")
            return f"before {self._token(marker)}"
        self.rules.append(f"opening[lazy]: OPENING\nOPENING: /(?s:.*){_in_regex(marker)}/{self._unthought()}")
        return "opening"

    def _unthought(self) -> str:
        """Free text does not begin with a think block: what stands in one is no call, whatever it says."""
        markup = self.markup
        if not markup.thinks or markup.thinking or markup.think_open in markup.special:
            return ""
        return f" & ~/\\s*{_in_regex(markup.think_open)}(?s:.*)/"

    def _think(self) -> str:
        """The think block, if there may be one."""
        markup = self.markup
        if not markup.thinks:
            return ""
        if markup.think_close in markup.special:
            self.rules.append(f"thought: /(?s:.*)/ {self._token(markup.think_close)} /\\n{{0,2}}/")
        else:
            self.rules.append("thought: thoughts /\\n{0,2}/")
            self.rules.append(f"thoughts[lazy]: /(?s:.*){_in_regex(markup.think_close)}/")
        return "thought " if markup.thinking else f"({self._token(markup.think_open)} thought)? "

    def _token(self, marker: str) -> str:
        return marker if marker in self.markup.special else _literal(marker)

    def _rule(self, name: str, body: str) -> str:
        self.rules.append(f"{name}: {body}")
        return name


def _without_calls(markup: Markup) -> str:
    """Free text in which the open marker cannot be completed: for `tool_choice` none."""
    marker = markup.call.open
    if marker in markup.special:
        return "%llguidance {}\nstart: /(?s:.*)/\n"
    return f"%llguidance {{}}\nstart: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*){_in_regex(marker)}(?s:.*)/\n"


def _literal(text: str) -> str:
    return msgspec.json.encode(text).decode() if text.isascii() else '"' + _escaped(text) + '"'


def _escaped(characters: Iterable[str]) -> str:
    return "".join(f"\\u{{{ord(c):x}}}" for c in characters)


def _in_regex(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", lambda match: f"\\x{{{ord(match[0]):x}}}", text)
