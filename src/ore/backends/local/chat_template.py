"""Renders a request as the prompt that a local model was trained on: items to chat messages, messages to text.

The template is the model's own jinja, from its file: a stranger's program, so it runs in jinja's immutable sandbox.
Nothing here tokenizes. It refuses (400) what the template refuses, and it never lets the content of a message close
its own turn: markers of the template inside content are broken up.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import jinja2
import jinja2.ext
import jinja2.sandbox
import msgspec
from jinja2 import nodes

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.local.call_forms import is_raw
from ore.backends.local.grammar import FORMATS
from ore.core.callable_tools import CallableTool
from ore.core.native_tools import NATIVE_CALLS, NATIVE_OUTPUTS
from ore.core.tool_choice import ToolPlan
from ore.errors import InvalidRequest

Message = dict[str, Any]

MAX_INLINED_FILE: Final = 1024 * 1024
"""Bytes of a text file that are put into the prompt; a larger one is only named."""

_CALLS: Final = frozenset({"function_call", "custom_tool_call", "mcp_call", *NATIVE_CALLS})
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
_TURN_MARKER: Final = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<\uff5c[^\uff5c<>\s]{1,40}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]"
)

_NO_TOOLS: Final = ToolPlan()

MAX_SHOWN_GRAMMAR: Final = 4000
"""Characters of a custom tool's grammar that the model is shown; a longer one only holds it."""


def to_messages(request: ModelRequest, plan: ToolPlan = _NO_TOOLS) -> list[Message]:
    """Chat messages in the shape that templates know; leading system messages are one."""
    writer = _Messages(plan)
    for item in request.items:
        writer.take(item)
    return _lead(request, writer.close())


def _lead(request: ModelRequest, messages: list[Message]) -> list[Message]:
    """One system message at the front, out of the instructions, what leads the input, and the format."""
    texts = [request.instructions] if request.instructions else []
    while messages and messages[0]["role"] == "system":
        texts.append(messages.pop(0)["content"])
    if hint := _format_hint(request.text_format):
        texts.append(hint)
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages] if texts else messages


def _format_hint(text_format: JsonObject) -> str:
    if text_format.get("type") == "json_object":
        return "Answer with a JSON object."
    if text_format.get("type") == "json_schema":
        schema = msgspec.json.encode(text_format.get("schema")).decode()
        return f"Answer with JSON that matches this schema: {schema}"
    return ""


class _Messages:
    """Collects items; consecutive calls, and the assistant text right before them, share one message."""

    def __init__(self, plan: ToolPlan) -> None:
        self._plan = plan
        self._messages: list[Message] = []
        self._names: dict[str, str] = {}
        self._reasoning = ""

    def close(self) -> list[Message]:
        if self._reasoning:
            self._assistant()
        return self._messages

    def take(self, item: JsonObject) -> None:
        """Items that cannot be shown to a model are passed over."""
        kind = item.get("type", "message")
        if item.get("execution") == "server":
            return  # a search that brought tools, which are shown
        if kind == "message":
            self._message(item)
        elif kind == "reasoning":
            self._reasoning += _text_of(item.get("content") or item.get("summary"))
        elif kind in _CALLS:
            self._call(item)
            if kind == "mcp_call":
                self._output(item.get("id"), item.get("output") or item.get("error") or "")
        elif kind in _OUTPUTS:
            self._output(item.get("call_id"), item.get("output"))
        elif kind in NATIVE_OUTPUTS:
            self._output(item.get("call_id") or item.get("id"), NATIVE_OUTPUTS[kind].result(item))

    def _message(self, item: JsonObject) -> None:
        role = item.get("role")
        if role == "assistant":
            message = self._assistant()
            message["content"] = _text_of(item.get("content"))
            return
        self._settle()
        role = "system" if role in {"system", "developer"} else "user"
        self._messages.append({"role": role, "content": _text_of(item.get("content"))})

    def _assistant(self) -> Message:
        message: Message = {"role": "assistant", "content": ""}
        if self._reasoning:
            message["reasoning_content"], self._reasoning = self._reasoning, ""
        self._messages.append(message)
        return message

    def _call(self, item: JsonObject) -> None:
        last = self._messages[-1] if self._messages else None
        joins = last is not None and last["role"] == "assistant" and not self._reasoning
        message = last if joins and last is not None else self._assistant()
        name = self._plan.shown_name(item)
        call_id = str(item.get("call_id") or item.get("id") or "")
        self._names[call_id] = self._names[str(item.get("id"))] = name
        function = {"name": name, "arguments": _arguments(item)}
        message.setdefault("tool_calls", []).append({"type": "function", "id": call_id, "function": function})

    def _output(self, call_id: object, output: object) -> None:
        self._settle()
        key = str(call_id or "")
        content = output if isinstance(output, str) else _text_of(output)
        name = self._names.get(key, "")
        self._messages.append({"role": "tool", "content": content, "tool_call_id": key, "name": name})

    def _settle(self) -> None:
        """Reasoning belongs to the assistant's next output; where there is none, it is dropped."""
        self._reasoning = ""


def _arguments(item: JsonObject) -> Any:
    """As an object where it is one: templates print objects as JSON, and strings as strings."""
    kind = item.get("type")
    if kind == "custom_tool_call":
        return {"input": item.get("input", "")}
    if kind in NATIVE_CALLS:
        return NATIVE_CALLS[kind].arguments(item)
    raw = item.get("arguments") or "{}"
    if not isinstance(raw, str):
        return raw
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw
    return value if isinstance(value, dict) else raw


def _text_of(content: object) -> str:
    """The parts of a message as one text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable) or isinstance(content, dict):
        return "" if content is None else msgspec.json.encode(content).decode()
    return "\n".join(filter(None, (_part(part) for part in content if isinstance(part, dict))))


def _part(part: JsonObject) -> str:
    kind = str(part.get("type", ""))
    if kind == "refusal":
        return str(part.get("refusal", ""))
    if isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "input_image":
        return f"[image attached{_source(part.get('image_url'))}; this model cannot see images]"
    if kind == "input_file":
        return _file(part)
    return f"[{kind or 'something'} attached; this model cannot read it]"


def _source(address: object) -> str:
    """Where an attachment comes from; the data itself never gets into the prompt."""
    if not isinstance(address, str) or not address:
        return ""
    if not address.startswith("data:"):
        return f" by URL: {address[:2000]}"
    media, _, data = address[5:].partition(",")
    return f": {media.split(';')[0] or 'data'}, {_size(len(data) * 3 // 4)}"


def _file(part: JsonObject) -> str:
    name = str(part.get("filename") or "a file")
    data = part.get("file_data")
    if not isinstance(data, str):
        return f"[file attached: {name}{_source(part.get('file_url'))}; this model cannot read files]"
    media, encoded = data[5:].split(",", 1) if data.startswith("data:") and "," in data else ("", data)
    text = _decoded(encoded) if media.startswith("text/") and len(encoded) <= MAX_INLINED_FILE * 4 // 3 else None
    if text is not None:
        return f"[file attached: {name}]\n{text}"
    return f"[file attached: {name}, {_size(len(encoded) * 3 // 4)}; this model cannot read files]"


def _decoded(data: str) -> str | None:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _size(count: int) -> str:
    return f"{max(1, round(count / 1024))} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.1f} MiB"


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
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._adds_bos = adds_bos
        markers = {token for token in (bos_token, eos_token) if len(token) > 2}
        markers.update(match[0] for match in _TURN_MARKER.finditer(self.source))
        self._markers = re.compile("|".join(map(re.escape, sorted(markers)))) if markers else None
        self.knows_tools = re.search(r"\btools\b", self.source) is not None
        self._template = _environment(now).from_string(self.source)

    def render(self, request: ModelRequest, plan: ToolPlan) -> str:
        """The prompt, with the header of the assistant's turn at its end. Raises `InvalidRequest`."""
        messages = self._disarm(to_messages(request, plan))
        raw = _put_raw_aside(messages, plan)
        tools = self._disarm([_definition(tool) for tool in plan.shown])
        if tools and not self.knows_tools:
            messages = _with_tools(messages, tools)
        extra: JsonObject = {}
        if request.reasoning and request.reasoning.get("effort") == "none":
            extra["enable_thinking"] = False
        try:
            prompt = self._template.render(
                messages=messages,
                tools=tools if tools and self.knows_tools else None,
                add_generation_prompt=True,
                **self._tokens,
                **extra,
            )
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
        return _with_raw(prompt.removeprefix(bos) if self._adds_bos and bos else prompt, raw)

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


def _definition(tool: CallableTool) -> JsonObject:
    described = "\n".join(filter(None, (tool.description, _raw_hint(tool))))
    return {
        "type": "function",
        "function": {"name": tool.shown, "description": described, "parameters": tool.parameters},
    }


def _raw_hint(tool: CallableTool) -> str:
    """How a tool is called whose input is raw text, in the words of the first format: others differ in the markers."""
    if not is_raw(tool):
        return ""
    call = FORMATS[0].before_name.lstrip() + tool.shown + FORMATS[0].before_raw.rstrip()
    hint = f"To call it, write {call} and the input on the lines after it, as plain text without arguments."
    definition = tool.format["definition"]
    return f"{hint} Its Lark grammar:\n{definition}" if len(definition) <= MAX_SHOWN_GRAMMAR else hint


def _put_raw_aside(messages: list[Message], plan: ToolPlan) -> dict[str, str]:
    """Replace the input of calls that are written as raw text by placeholders, which no template can alter."""
    names = {tool.shown for tool in plan.known if is_raw(tool)}
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    raw: dict[str, str] = {}
    for function in calls:
        if function["name"] in names and isinstance(function["arguments"], dict):
            placeholder = secrets.token_hex(16)
            raw[placeholder] = function["arguments"]["input"]
            function["arguments"] = placeholder
    return raw


def _with_raw(prompt: str, raw: dict[str, str]) -> str:
    """The prompt with raw inputs where the model itself would write them, as far as the template writes calls so."""
    for placeholder, text in raw.items():
        for shown in (f'"{placeholder}"', placeholder):
            for row in FORMATS:
                prompt = prompt.replace(row.before_arguments + shown + row.after, row.before_raw + text + row.after_raw)
        prompt = prompt.replace(placeholder, text)
    return prompt


def _with_tools(messages: list[Message], tools: list[JsonObject]) -> list[Message]:
    """For templates that know no tools: describe them, and how to call them, in the system message."""
    listed = "\n".join(_to_json(tool) for tool in tools)
    text = (
        "You can call these functions. Their signatures are within <tools></tools>:\n"
        f"<tools>\n{listed}\n</tools>\n"
        "To call one, answer with a JSON object within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name": "the function", "arguments": {"argument": "value"}}\n</tool_call>'
    )
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *map(_spelled_out, messages[1:])]
    return [{"role": "system", "content": text}, *map(_spelled_out, messages)]


def _spelled_out(message: Message) -> Message:
    """Calls and their results as text, for templates without a place for them."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [f"<tool_call>\n{_to_json(call['function'])}\n</tool_call>" for call in message.get("tool_calls") or []]
    if not calls:
        return message
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
