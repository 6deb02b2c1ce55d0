"""Renders a request as the prompt that a local model was trained on: items to chat messages, messages to text.

The template is the model's own jinja, from its file: a stranger's program, so it runs in jinja's immutable sandbox.
Nothing here tokenizes. It refuses (400) what the template refuses, and it never lets the content of a message close
its own turn: markers of the template inside content are broken up.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import jinja2
import jinja2.ext
import jinja2.sandbox
import msgspec
from jinja2 import nodes

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.chat_messages import (
    ChatMessage,
    arguments_of,
    call_id_of,
    chat_messages,
    format_hint,
    split_lead,
    text_of,
)
from ore.backends.local.call_forms import is_raw
from ore.backends.local.families import call_form, calls_by_nine
from ore.backends.local.markup import CallForm
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan
from ore.errors import InvalidRequest

Message = dict[str, Any]

_TURN_MARKER: Final = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>\s]{1,40}\uff5c>|<(?:start|end)_of_turn>|<\|?turn\|?>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|ARGS|THINK)\]"
)

_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium"}
"""The names of templates that know three."""

_NO_TOOLS: Final = ToolPlan()

MAX_SHOWN_GRAMMAR: Final = 4000
"""Characters of a custom tool's grammar that the model is shown; a longer one only holds it."""


def to_messages(request: ModelRequest, plan: ToolPlan = _NO_TOOLS) -> list[Message]:
    """Chat messages in the shape that templates know; leading system messages are one."""
    lead, messages = split_lead(chat_messages(request.items))
    texts = filter(None, (request.instructions, *lead, format_hint(request.text_format)))
    system = "\n\n".join(texts)
    shown = [_for_template(message, plan) for message in messages]
    return [{"role": "system", "content": system}, *shown] if system else shown


def _for_template(message: ChatMessage, plan: ToolPlan) -> Message:
    """Arguments are objects where they can be: templates print objects as JSON, and strings as strings."""
    shown: Message = {"role": message.role, "content": text_of(message.content)}
    if message.role == "tool":
        name = plan.shown_name(message.call) if message.call is not None else ""
        return {**shown, "tool_call_id": message.call_id, "name": name}
    if message.reasoning:
        shown["reasoning_content"] = message.reasoning
        if message.calls and not shown["content"]:
            shown["thinking"] = message.reasoning  # the name in Harmony's template, which refuses both at once
    for item in message.calls:
        function = {"name": plan.shown_name(item), "arguments": arguments_of(item)}
        call = {"type": "function", "id": call_id_of(item), "function": function}
        shown.setdefault("tool_calls", []).append(call)
    return shown


class ChatTemplate:
    """One model's template, compiled. `now` serves templates that tell the model the date."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        adds_bos: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self.source = source or PLAIN_CHATML
        self._form = call_form(self.source)
        self._by_nine = calls_by_nine(self.source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._adds_bos = adds_bos
        markers = {token for token in (bos_token, eos_token) if len(token) > 2}
        markers.update(match[0] for match in _TURN_MARKER.finditer(self.source))
        self._markers = re.compile("|".join(map(re.escape, sorted(markers)))) if markers else None
        self._knows_calls = "tool_calls" in self.source
        self.knows_tools = re.search(r"\btools\b", self.source) is not None
        self._template = _environment(now).from_string(self.source)

    def render(self, request: ModelRequest, plan: ToolPlan) -> str:
        """The prompt, with the header of the assistant's turn at its end. Raises `InvalidRequest`."""
        messages = self._disarm(to_messages(request, plan))
        raw = _put_raw_aside(messages, plan, self._form)
        if self._by_nine:
            _shorten_ids(messages)
        tools = self._disarm([_definition(tool, self._form) for tool in plan.shown])
        if tools and not self.knows_tools:
            messages = _with_tools(messages, tools, self._form)
            messages = messages if self._knows_calls else [_spelled_out(message, self._form) for message in messages]
        try:
            prompt = self._render(messages, tools if tools and self.knows_tools else None, _effort(request))
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"This model's chat template does not take these items: {error.message or error}. "
                "Change the order or the roles of the messages.",
                param="input",
            ) from error
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(
                "This model's chat template cannot render these items. Simplify the input.", param="input"
            ) from error
        bos = self._tokens["bos_token"]
        return _with_raw(prompt.removeprefix(bos) if self._adds_bos and bos else prompt, raw, self._form)

    def _render(self, messages: list[Message], tools: list[JsonObject] | None, extra: JsonObject) -> str:
        """Most templates print arguments as JSON themselves; some join texts, and want JSON that is one."""
        values = {"tools": tools, "add_generation_prompt": True, **self._tokens, **extra}
        try:
            return self._template.render(messages=messages, **values)
        except TypeError:
            return self._template.render(messages=[_with_text_arguments(message) for message in messages], **values)

    def count_markers(self, prompt: str) -> int:
        """Turn markers in a prompt, each a token at least. Engines take long over texts with very many of them."""
        return sum(1 for _ in self._markers.finditer(prompt)) if self._markers is not None else 0

    def _disarm(self, value: Any) -> Any:
        """The same value, with an invisible space inside every turn marker."""
        if self._markers is None:
            return value
        if isinstance(value, str):
            return self._markers.sub(lambda match: match[0][0] + "\u200b" + match[0][1:], value)
        if isinstance(value, list):
            return [self._disarm(inner) for inner in value]
        if isinstance(value, dict):
            return {self._disarm(key): self._disarm(inner) for key, inner in value.items()}
        return value


def _effort(request: ModelRequest) -> JsonObject:
    """What templates call the wish for more or less reasoning: they know one name or the other."""
    effort = (request.reasoning or {}).get("effort")
    if effort is None:
        return {}
    thinks = effort != "none"
    said = {"enable_thinking": thinks, "thinking": thinks}
    return {**said, "reasoning_effort": _EFFORTS.get(str(effort), "high")} if thinks else said


def _definition(tool: CallableTool, form: CallForm) -> JsonObject:
    described = "\n".join(filter(None, (tool.description, _raw_hint(tool, form))))
    return {
        "type": "function",
        "function": {"name": tool.shown, "description": described, "parameters": tool.parameters},
    }


def _raw_hint(tool: CallableTool, form: CallForm) -> str:
    """How a tool is called whose input is raw text: as any call begins, and then the text itself."""
    if not is_raw(tool):
        return ""
    hint = "Its input is plain text: call it as any function, and write the text as it is where arguments would stand."
    if form.before_name.endswith('"'):
        call = (form.before_name + tool.shown + form.before_raw).strip()
        hint = f"To call it, write {call} and the input on the lines after it, as plain text without arguments."
    definition = tool.format["definition"]
    return f"{hint} Its Lark grammar:\n{definition}" if len(definition) <= MAX_SHOWN_GRAMMAR else hint


def _put_raw_aside(messages: list[Message], plan: ToolPlan, form: CallForm) -> dict[str, str]:
    """Replace the input of calls that are written as raw text by placeholders, which no template can alter."""
    names = {tool.shown for tool in plan.known if is_raw(tool)}
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    raw: dict[str, str] = {}
    for function in calls:
        if function["name"] in names and isinstance(function["arguments"], dict):
            placeholder = secrets.token_hex(16)
            raw[placeholder] = function["arguments"]["input"]
            function["arguments"] = placeholder if form.parameters is None else {"input": placeholder}
    return raw


def _with_raw(prompt: str, raw: dict[str, str], form: CallForm) -> str:
    """The prompt with raw inputs where the model itself would write them, as far as the template writes calls so."""
    for placeholder, text in raw.items():
        for shown in (f'"{placeholder}"', placeholder):
            for after in dict.fromkeys((form.after + form.close, form.after)) if form.raw_ends else (form.after,):
                written = form.before_raw + text + form.after_raw
                prompt = prompt.replace(form.before_arguments + shown + after, written)
        prompt = prompt.replace(placeholder, text)
    return prompt


def _shorten_ids(messages: list[Message]) -> None:
    """Calls and their results under ids of nine letters and digits, the same ones every time."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["id"] = _nine(call["id"])
        if "tool_call_id" in message:
            message["tool_call_id"] = _nine(message["tool_call_id"])


def _nine(call_id: str) -> str:
    return call_id if re.fullmatch("[a-zA-Z0-9]{9}", call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _with_text_arguments(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [call["function"] for call in calls]
    texts = [each if isinstance(each, str) else _to_json(each) for each in (f["arguments"] for f in functions)]
    return {
        **message,
        "tool_calls": [
            {**call, "function": {**call["function"], "arguments": text}}
            for call, text in zip(calls, texts, strict=True)
        ],
    }


def _with_tools(messages: list[Message], tools: list[JsonObject], form: CallForm) -> list[Message]:
    """For templates that know no tools: describe them, and how to call them, in the system message."""
    listed = "\n".join(_to_json(tool) for tool in tools)
    text = (
        "You can call these functions. Their signatures are within <tools></tools>:\n"
        f"<tools>\n{listed}\n</tools>\n"
        "To call one, answer with its name and a JSON object of its arguments, like this:\n"
        + form.written("the_function", '{"argument": "value"}')
    )
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _spelled_out(message: Message, form: CallForm) -> Message:
    """Calls and their results as text, for templates without a place for them."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    functions = [call["function"] for call in message.get("tool_calls") or []]
    if not functions:
        return message
    calls = [form.written(each["name"], _to_json(each["arguments"])) for each in functions]
    return {"role": message["role"], "content": "\n".join(filter(None, [message["content"], *calls]))}


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """`tojson` as model templates expect it: spaces after `,` and `:`, no escapes for HTML or other alphabets."""
    if indent is not None:
        return msgspec.json.format(msgspec.json.encode(value), indent=indent).decode()
    return _spaced(msgspec.json.encode(value).decode())


_OUTSIDE: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[,:]')


def _spaced(compact: str) -> str:
    return _OUTSIDE.sub(lambda match: match[0] + " " if match[0] in ",:" else match[0], compact)


def _environment(now: Callable[[], datetime]) -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: now().strftime(form)
    return environment


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


class Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`: marks the assistant's tokens for training; here it just prints."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


PLAIN_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For files that bring no template."""
