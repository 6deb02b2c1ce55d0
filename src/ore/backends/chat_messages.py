"""Items as chat messages: what chat templates and the Chat Completions API have in common.

Who said what, which calls belong to one message, and where an output has its place. How a message is written down is
for whoever writes it. It knows no model and no provider, and drops no item that a model can be shown.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.core.native_tools import NATIVE_CALLS, NATIVE_OUTPUTS

MAX_INLINED_FILE: Final = 1024 * 1024
"""Bytes of a text file that are put into the prompt; a larger one is only named."""

_CALLS: Final = frozenset({"function_call", "custom_tool_call", "mcp_call", *NATIVE_CALLS})
_OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})


class ChatMessage(Struct):
    """One message. `content` is text, or parts in the wire's shape."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[JsonObject] = ""
    thoughts: list[JsonObject] = []
    """Reasoning items that an assistant's message is the outcome of."""
    calls: list[JsonObject] = []
    call_id: str = ""
    """Of a tool's message: whose output it is."""
    call: JsonObject | None = None
    """The call with that id, where the history has it."""

    @property
    def reasoning(self) -> str:
        """The readable text of `thoughts`."""
        return "".join(map(_readable, self.thoughts))


def chat_messages(items: Iterable[JsonObject]) -> list[ChatMessage]:
    """The items as messages; those that cannot be shown to a model are passed over."""
    gathering = _Gathering()
    for item in items:
        gathering.take(item)
    return gathering.close()


def split_lead(messages: Sequence[ChatMessage]) -> tuple[list[str], list[ChatMessage]]:
    """The texts of the system messages at the front, and the messages after them."""
    at = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    return [text_of(message.content) for message in messages[:at]], list(messages[at:])


def format_hint(text_format: JsonObject) -> str:
    """What a model is told of the wanted format."""
    if text_format.get("type") == "json_object":
        return "Answer with a JSON object."
    if text_format.get("type") == "json_schema":
        schema = msgspec.json.encode(text_format.get("schema")).decode()
        return f"Answer with JSON that matches this schema: {schema}"
    return ""


class _Gathering:
    """Collects items; consecutive calls, and the assistant text right before them, share one message."""

    def __init__(self) -> None:
        self._messages: list[ChatMessage] = []
        self._thoughts: list[JsonObject] = []
        self._callers: dict[str, tuple[ChatMessage, JsonObject]] = {}

    def close(self) -> list[ChatMessage]:
        if any(map(_readable, self._thoughts)):
            self._assistant()
        return self._messages

    def take(self, item: JsonObject) -> None:
        kind = item.get("type", "message")
        if item.get("execution") == "server":
            return  # a search that brought tools, which are shown
        if kind == "message":
            self._message(item)
        elif kind == "reasoning":
            self._thoughts.append(item)
        elif kind in _CALLS:
            self._call(item)
            if kind == "mcp_call":
                self._output(item.get("id"), item.get("output") or item.get("error") or "")
        elif kind in _OUTPUTS:
            self._output(item.get("call_id"), item.get("output"))
        elif kind in NATIVE_OUTPUTS:
            self._output(item.get("call_id") or item.get("id"), NATIVE_OUTPUTS[kind].result(item))

    def _message(self, item: JsonObject) -> None:
        role, content = item.get("role"), item.get("content") or []
        last = self._open()
        if role != "assistant":
            self._thoughts = []  # reasoning belongs to the assistant's next output; where there is none, it is dropped
            self._messages.append(ChatMessage("system" if role in {"system", "developer"} else "user", content))
        elif last is not None and last.calls:
            last.content = [*parts_of(last.content), *parts_of(content)]  # only outputs may follow calls
            self._think(last)
        else:
            self._assistant().content = content

    def _assistant(self) -> ChatMessage:
        message = ChatMessage("assistant")
        self._think(message)
        self._messages.append(message)
        return message

    def _open(self) -> ChatMessage | None:
        """The assistant's message that its next output goes on with; what it has thought since begins another."""
        last = self._messages[-1] if self._messages else None
        goes_on = last is not None and last.role == "assistant" and not any(map(_readable, self._thoughts))
        return last if goes_on else None

    def _think(self, message: ChatMessage) -> None:
        message.thoughts += self._thoughts
        self._thoughts = []

    def _call(self, item: JsonObject) -> None:
        message = self._open() or self._assistant()
        self._think(message)
        message.calls.append(item)
        for key in filter(None, (item.get("call_id"), item.get("id"))):
            self._callers[str(key)] = message, item

    def _output(self, call_id: object, output: object) -> None:
        self._thoughts = []
        key = str(call_id or "")
        caller, call = self._callers.get(key, (None, None))
        content: Any = output if isinstance(output, str | list) else text_of(output)
        self._messages.insert(self._place(caller), ChatMessage("tool", content, call_id=key, call=call))

    def _place(self, caller: ChatMessage | None) -> int:
        """Outputs follow the message of their calls at once, whatever came between."""
        messages, end = self._messages, len(self._messages)
        if caller is None:
            return end
        at = next(at for at in range(end, 0, -1) if messages[at - 1] is caller)
        while at < end and messages[at].role == "tool":
            at += 1
        return at


def _readable(thought: JsonObject) -> str:
    return text_of(thought.get("content") or thought.get("summary"))


def call_id_of(item: JsonObject) -> str:
    """Under which id a call is answered."""
    return str(item.get("call_id") or item.get("id") or "")


def arguments_of(item: JsonObject) -> Any:
    """A call's arguments: an object where they are one, else what the model wrote."""
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


def parts_of(content: str | list[JsonObject]) -> list[JsonObject]:
    """Content as parts."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def text_of(content: object) -> str:
    """The parts of a message as one text; what is no text is named."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable) or isinstance(content, dict):
        return "" if content is None else msgspec.json.encode(content).decode()
    return "\n".join(filter(None, (text_of_part(part) for part in content if isinstance(part, dict))))


def text_of_part(part: JsonObject) -> str:
    """One part as text, for a model that reads nothing else."""
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


def inlined(part: JsonObject) -> str | None:
    """The text of a text file that is not too long; None for any other."""
    media, encoded = data_of(part)
    if not media.startswith("text/") or len(encoded) > MAX_INLINED_FILE * 4 // 3:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def data_of(part: JsonObject) -> tuple[str, str]:
    """Media type and base64 of a file's data; both are empty where there is none."""
    data = part.get("file_data")
    if not isinstance(data, str):
        return "", ""
    media, encoded = data[5:].split(",", 1) if data.startswith("data:") and "," in data else ("", data)
    return media, encoded


def _file(part: JsonObject) -> str:
    name = str(part.get("filename") or "a file")
    if not isinstance(part.get("file_data"), str):
        return f"[file attached: {name}{_source(part.get('file_url'))}; this model cannot read files]"
    text = inlined(part)
    if text is not None:
        return f"[file attached: {name}]\n{text}"
    return f"[file attached: {name}, {_size(len(data_of(part)[1]) * 3 // 4)}; this model cannot read files]"


def _source(address: object) -> str:
    """Where an attachment comes from; the data itself never gets into the prompt."""
    if not isinstance(address, str) or not address:
        return ""
    if not address.startswith("data:"):
        return f" by URL: {address[:2000]}"
    media, _, data = address[5:].partition(",")
    return f": {media.split(';')[0] or 'data'}, {_size(len(data) * 3 // 4)}"


def _size(count: int) -> str:
    return f"{max(1, round(count / 1024))} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.1f} MiB"
