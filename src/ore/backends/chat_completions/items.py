"""Items as the messages of a Chat Completions request, in one model's manner.

What a model cannot read is named in the text, or shown in another way. How it is to be sampled is `requests`; who said
what, and which calls belong together, is `chat_messages`, which it shares with the engines on this machine.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.chat_messages import (
    ChatMessage,
    arguments_of,
    call_id_of,
    chat_messages,
    data_of,
    format_hint,
    inlined,
    parts_of,
    split_lead,
    text_of,
    text_of_part,
)
from ore.backends.dialect import unpacked
from ore.backends.profiles import Profile
from ore.core.tool_choice import ToolPlan

UNREADABLE: Final = "unreadable_arguments"
"""The field in which arguments go back that were no JSON object: several servers refuse any other form."""

_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_DETAILS: Final = ("low", "high")


def sent_messages(request: ModelRequest, profile: Profile, planned: ToolPlan, origin: str) -> list[JsonObject]:
    """The context as messages: instructions and what else the system says first."""
    return _Writing(request, planned, profile, origin).messages()


class _Writing:
    """Writes a request's items as messages, in one model's manner."""

    def __init__(self, request: ModelRequest, planned: ToolPlan, profile: Profile, origin: str) -> None:
        self._request = request
        self._plan = planned
        self._profile = profile
        self._origin = origin

    def messages(self) -> list[JsonObject]:
        lead, messages = split_lead(chat_messages(self._request.items))
        hint = format_hint(self._request.text_format) if self._profile.json_schema == "prompt" else ""
        system = "\n\n".join(filter(None, (self._request.instructions, *lead, hint)))
        written = [self._system(system)] if system else []
        return [*written, *self._written(messages)]

    def _written(self, messages: Iterable[ChatMessage]) -> Iterator[JsonObject]:
        """Images that tools gave out follow their outputs as a user's message: hardly a server takes them there."""
        images: list[JsonObject] = []
        for message in messages:
            if images and message.role != "tool":
                yield {"role": "user", "content": images}
                images = []
            if message.role == "tool":
                yield self._output(message)
                images = [*images, *self._images_of(message)]
            elif message.role == "assistant":
                yield from self._assistant(message)
            elif message.role == "system":
                yield self._system(text_of(message.content))
            else:
                yield {"role": "user", "content": self._content(message.content)}
        if images:
            yield {"role": "user", "content": images}

    def _system(self, text: str) -> JsonObject:
        return {"role": self._profile.instructions_role, "content": text}

    def _assistant(self, message: ChatMessage) -> Iterator[JsonObject]:
        """A message that says nothing is left out: some refuse it, and to the others it says nothing."""
        text = text_of(message.content)
        if not text and not message.calls:
            return
        states = [state for thought in message.thoughts if isinstance(state := unpacked(thought, self._origin), dict)]
        written: JsonObject = {"role": "assistant", "content": text, **self._thoughts(message, states)}
        if message.calls:
            extras = {state.get("call_id"): state.get("extra_content") for state in states}
            written["tool_calls"] = [self._call(item, extras.get(call_id_of(item))) for item in message.calls]
        yield written

    def _thoughts(self, message: ChatMessage, states: Iterable[JsonObject]) -> JsonObject:
        """Reasoning as the model wants it back. With calls the field is there even when its text is not known."""
        details = [detail for state in states for detail in state.get("reasoning_details") or ()]
        if details:
            return {"reasoning_details": details}
        back, reasoning = self._profile.reasoning_back, message.reasoning
        wanted = back == "always" or (back == "calls" and bool(message.calls))
        if not wanted or not (reasoning or message.calls):
            return {}
        return {self._profile.reasoning_field: reasoning}

    def _call(self, item: JsonObject, extra: Any) -> JsonObject:
        function = {"name": self._plan.shown_name(item), "arguments": _arguments(item)}
        call = {"type": "function", "id": self._call_id(call_id_of(item)), "function": function}
        return call if extra is None else {**call, "extra_content": extra}

    def _call_id(self, call_id: str) -> str:
        if not self._profile.short_call_ids or _SHORT_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]

    def _output(self, message: ChatMessage) -> JsonObject:
        parts = parts_of(message.content)
        text = text_of([part for part in parts if not self._shows(part)])
        if any(map(self._shows, parts)):
            text = "\n".join(filter(None, (text, "[its images are in the next message]")))
        return {"role": "tool", "tool_call_id": self._call_id(message.call_id), "content": text}

    def _images_of(self, message: ChatMessage) -> list[JsonObject]:
        return [_image(part) for part in parts_of(message.content) if self._shows(part)]

    def _shows(self, part: JsonObject) -> bool:
        return self._profile.images and part.get("type") == "input_image" and isinstance(part.get("image_url"), str)

    def _content(self, content: str | list[JsonObject]) -> str | list[JsonObject]:
        """Text as a string where there is nothing else: not every server takes parts."""
        parts = [self._part(part) for part in parts_of(content)]
        if all(part["type"] == "text" for part in parts):
            return "\n".join(filter(None, (part["text"] for part in parts)))
        return [part for part in parts if part.get("text") != ""]

    def _part(self, part: JsonObject) -> JsonObject:
        if self._shows(part):
            return _image(part)
        if part.get("type") == "input_file" and self._profile.files and inlined(part) is None:
            return _file(part)
        return {"type": "text", "text": text_of_part(part)}


def _arguments(item: JsonObject) -> str:
    """As they were written, for the sake of prefix caches, where they are a JSON object."""
    arguments, written = arguments_of(item), item.get("arguments")
    if not isinstance(arguments, dict):
        return msgspec.json.encode({UNREADABLE: arguments}).decode()
    return written if isinstance(written, str) and written else msgspec.json.encode(arguments).decode()


def _image(part: JsonObject) -> JsonObject:
    detail = {"detail": part["detail"]} if part.get("detail") in _DETAILS else {}
    return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}


def _file(part: JsonObject) -> JsonObject:
    media, encoded = data_of(part)
    if not encoded:
        return {"type": "text", "text": text_of_part(part)}  # by URL or by id: nobody fetches it here
    address = f"data:{media or 'application/pdf;base64'},{encoded}"
    return {"type": "file", "file": {"filename": str(part.get("filename") or "file.pdf"), "file_data": address}}
