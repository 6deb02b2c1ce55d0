"""Builds the grammar that holds a model to its tools and its text format, in llguidance's dialect of Lark.

Pure, and for every engine that takes such a grammar. Free text, tool calls, JSON and a think block are put together
from a table row per family of call formats, so that a new family is a row. It refuses (400) whatever cannot be
enforced, because an engine given a grammar it cannot compile may well answer without any.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import structs

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.local.call_forms import is_raw
from ore.backends.local.json_schemas import Verdict, check_schema, compile_problem, loosen_schema
from ore.backends.local.lark_grammars import lark_problem
from ore.backends.local.markup import HERMES, WHOLE_HEADS, CallForm, Markup, Parameters, whole_pattern
from ore.backends.local.written_arguments import NOTES, Parameter, plain_parameters
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan
from ore.errors import InvalidRequest

MAX_CALLS: Final = 32
"""Calls in one sampling, at most: a model that has lost its way must not call for ever."""
MAX_GRAMMAR_BYTES: Final = 1024 * 1024


def build_grammar(request: ModelRequest, plan: ToolPlan, markup: Markup) -> str:
    """The grammar for one request; empty when nothing needs to be held. Raises `InvalidRequest`.

    Compiles every schema: a hostile one can take for ever, so servers go through `grammar_process`.
    """
    spelled_out = _compose(request, plan, structs.replace(markup, special={}))
    if spelled_out and (problem := compile_problem(spelled_out)):
        raise InvalidRequest(
            f"The tools and the text format cannot be enforced together: {problem}. Simplify the schemas.",
            code="invalid_function_parameters" if plan.allowed else "invalid_json_schema",
            param="tools" if plan.allowed else "text.format.schema",
        )
    return _compose(request, plan, markup) if markup.special else spelled_out


def _compose(request: ModelRequest, plan: ToolPlan, markup: Markup) -> str:
    answer = _answer_schema(request.text_format)
    if not plan.allowed and answer is None and not (request.tools and markup.call.open and not markup.call.whole):
        return ""
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
        self.shared: dict[bytes, str] = {}

    def body(self, plan: ToolPlan, answer: str | None) -> str:
        """What may follow `start:`."""
        ways = [] if answer is None or plan.required else [self._answer(self._rule("answer", f"%json {answer}"))]
        free = answer is None and not plan.required
        if plan.allowed:
            ways.append(self._calls(plan, free=free))
        if free:
            ways.append(self._answer(self._rule("text", "TEXT")))
            self.rules.append(f"TEXT: {self._free_text(called=bool(plan.allowed))}")
        return self._think() + "(" + " | ".join(ways) + ")"

    # Text.

    def _answer(self, body: str) -> str:
        channels = self.markup.channels
        if not channels:
            return body
        close = self._written(channels.answer_close)
        if channels.answer_close not in self.markup.special:
            close = f"({close})?"  # else it is there: an engine may end a grammar by a token that ends no output
        return self._join(self._written(channels.answer_open), body, close)

    def _free_text(self, *, called: bool) -> str:
        """Text in which nothing reads as a call. Where calls may follow it, they take it up at their marker."""
        markup, row = self.markup, self.markup.call
        barred: list[str] = []
        if markup.channels:
            barred += [f"(?s:.*){_in_regex(each)}" for each in markup.channels.starts if each not in markup.special]
        elif row.whole:
            barred += [whole_pattern(WHOLE_HEADS)] if called else []
        elif not called and row.open not in markup.special:
            barred.append(f"(?s:.*){_in_regex(row.open)}")
        return "/(?s:.*)/" + "".join(f" & ~/{each}(?s:.*)/" for each in barred) + self._unthought()

    def _unthought(self) -> str:
        """Free text does not begin with a think block: what stands in one is no call, whatever it says."""
        markup = self.markup
        if not markup.thinks or markup.thinking or markup.think_open in markup.special or markup.channels:
            return ""
        return f" & ~/[ \\t\\r\\n]*{_in_regex(markup.think_open)}(?s:.*)/"

    def _think(self) -> str:
        """The think block, if there may be one. Channels may open several."""
        markup = self.markup
        if not markup.thinks:
            return ""
        ahead = self._written(markup.channels.again) if markup.channels else "/\\n{0,2}/"
        self.rules.append(f"thought: {self._up_to(markup.think_close, 'thoughts')} {ahead}")
        if markup.thinking:
            return "thought "
        return f"({self._written(markup.think_open)} thought){'*' if markup.channels else '?'} "

    def _up_to(self, marker: str, name: str, barred: Iterable[str] = ()) -> str:
        """Free text up to a marker, which is part of it."""
        but = "".join(f" & ~/(?s:.*){_in_regex(each)}(?s:.*)/" for each in barred if each not in self.markup.special)
        if marker in self.markup.special:
            self.rules.append(f"{name}: {name.upper()} {self._written(marker)}\n{name.upper()}: /(?s:.*)/{but}")
        else:
            end = _in_regex(marker)
            self.rules.append(f"{name}[lazy]: {name.upper()}\n{name.upper()}: /(?s:.*){end}/{but}")
        return name

    # Calls.

    def _calls(self, plan: ToolPlan, *, free: bool) -> str:
        """One call or more. The last may be left open where it is raw text, which swallows all but control tokens."""
        row = self.markup.call
        each = [(i, self._call(i, tool)) for i, tool in enumerate(plan.allowed)]
        closes = bool(self.markup.special.keys() & self.markup.pieces(row.after_raw + row.close))
        raw = [f"raw_{i}" for i, tool in enumerate(plan.allowed) if is_raw(tool) and not closes]
        closed = [name for i, name in each if not (row.raw_ends and is_raw(plan.allowed[i]))]
        more = MAX_CALLS - 1 if plan.parallel and row.several else 0
        ways = []
        if closed:
            self._rule("call", " | ".join(closed))
            ways.append(self._sections(more))
        if raw:
            self._rule("unclosed", " | ".join(raw))
            ways.append(self._last_one_open(more if closed else 0))
        return self._rule("calls", self._join(self._opening(free=free), f"({' | '.join(ways)})"))

    def _sections(self, more: int) -> str:
        """From after the first open marker to the last close marker."""
        row = self.markup.call
        again = self._again()
        inner = f"({again} call){{0,{more}}}" if more and row.join is not None else ""
        section = self._join(self._written(row.lead), "call", inner, self._close())
        if not more or row.join is not None:
            return section
        return self._join(section, f"({self._join(again, section)}){{0,{more}}}")

    def _last_one_open(self, more: int) -> str:
        """As `_sections`, but the last call is raw text to the end of the output."""
        row = self.markup.call
        lead = self._written(row.lead)
        if not more:
            return self._join(lead, "unclosed")
        closed = self._join("call", "" if row.join is not None else self._close(), self._again())
        return self._join(lead, f"({closed}){{0,{more}}}", "unclosed")

    def _again(self) -> str:
        row = self.markup.call
        return self._written(row.join) if row.join is not None else self._written((row.between or "") + row.open)

    def _close(self) -> str:
        return self._written(self.markup.call.close)

    def _call(self, i: int, tool: CallableTool) -> str:
        """One call, without what opens and closes its section."""
        row = self.markup.call
        if is_raw(tool):
            self._rule(f"input_{i}", f"%lark {raw_grammar(tool)}")
            self._rule(f"raw_{i}", self._join(self._named(row, tool, row.before_raw), f"input_{i}"))
            return self._rule(f"call_{i}", self._join(f"raw_{i}", self._written(row.after_raw)))
        arguments = f"%json {arguments_schema(tool)}"
        if row.parameters is not None and (parameters := plain_parameters(tool)) is not None:
            arguments = self._parameters(i, parameters, row.parameters)
        elif row.parameters is not None:
            row = HERMES
        self._rule(f"arguments_{i}", arguments)
        head = self._named(row, tool, row.before_arguments)
        return self._rule(f"call_{i}", self._join(head, f"arguments_{i}", self._written(row.after)))

    def _named(self, row: CallForm, tool: CallableTool, before: str) -> str:
        """A call as far as its arguments, or its raw text."""
        name = row.before_name + tool.shown
        if not row.id:
            return self._written(name + before)
        return self._join(self._written(name + row.before_id), f"/{row.id}/", self._written(before))

    def _parameters(self, i: int, parameters: Iterable[Parameter], row: Parameters) -> str:
        """All arguments, each in its place; those that are not required may be left out."""
        names = [self._parameter(f"argument_{i}_{n}", each, row) for n, each in enumerate(parameters)]
        return " ".join(names) or '""'

    def _parameter(self, name: str, parameter: Parameter, row: Parameters) -> str:
        before, close = row.before_key + parameter.key + row.before_value + row.pad, self._written(row.pad + row.close)
        if parameter.words:
            text = f"({' | '.join(map(_literal, parameter.words))}) {close}"
        elif parameter.raw:
            text = self.shared.get(b"") or self.shared.setdefault(b"", self._up_to(row.close, "raw_text"))
        else:
            text = self._join(self._json(parameter.schema), close)
        self._rule(name, self._join(self._written(before), text, self._written(row.after)))
        return name if parameter.required else f"{name}?"

    def _json(self, schema: JsonObject) -> str:
        """A rule for JSON, the same one for the same schema: many arguments are alike, and each rule costs time."""
        key = msgspec.json.encode({name: value for name, value in schema.items() if name not in NOTES})
        if key not in self.shared:
            held = _judge(schema, strict=False).grammar or _must({})
            self.shared[key] = self._rule(f"json_{len(self.shared)}", f"%json {held}")
        return self.shared[key]

    def _opening(self, *, free: bool) -> str:
        """What comes before the first call; after free text, the first time that the open marker is complete."""
        row, channels = self.markup.call, self.markup.channels
        if row.whole:
            return f"({self._written(row.open)})?"
        if not free:
            return self._written(row.open)
        if channels:
            comment = self._up_to(channels.comment_close, "comment", channels.starts)
            before = self._join(self._written(channels.comment_open), comment, self._written(channels.again))
            return f"({before})? {self._written(row.open)}"
        if row.open in self.markup.special:
            self.rules.append(f"before: BEFORE\nBEFORE: /(?s:.*)/{self._unthought()}")
            return f"before {self._written(row.open)}"
        self.rules.append(f"opening[lazy]: OPENING\nOPENING: /(?s:.*){_in_regex(row.open)}/{self._unthought()}")
        return "opening"

    # Pieces.

    def _written(self, text: str) -> str:
        """A text as the model writes it: control tokens by their numbers, all else letter by letter."""
        special = self.markup.special
        return " ".join(
            f"<[{special[each]}]>" if each in special else _literal(each) for each in self.markup.pieces(text)
        )

    def _join(self, *parts: str) -> str:
        return " ".join(part.strip() for part in parts if part.strip())

    def _rule(self, name: str, body: str) -> str:
        self.rules.append(f"{name}: {body}")
        return name


def _literal(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _in_regex(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", lambda match: f"\\x{{{ord(match[0]):x}}}", text)
