"""Items as the conversation of a Messages request: strict turns, each call answered at once, thinking where it was.

Pure, and one way only: `decoder` reads what comes back. It says what a conversation is, never how it is to be
sampled. What cannot be said and cannot be left out is an `InvalidRequest`.
"""

import base64
import binascii
import hashlib
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct, field

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.dialect import unpacked
from ore.backends.profiles import Profile
from ore.core.native_tools import NATIVE_CALLS, NATIVE_OUTPUTS
from ore.core.tool_choice import ToolPlan
from ore.errors import InvalidRequest
from ore.protocol.content import TEXT_FIELDS
from ore.protocol.items import CALL_OUTPUTS

OPENING: Final = "(The conversation begins with the assistant.)"
"""Said by the user where the assistant speaks first, which the API does not take."""

GO_ON: Final = "(Go on.)"
"""Said by the user where nothing is left to answer: newer models refuse to go on with a message of their own."""

NO_RESULT: Final = "(There is no result of this call.)"
UNSEEN_IMAGE: Final = "(Here was an image, which this model cannot see.)"

_TOOL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DATA_URL: Final = re.compile(r"data:([a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+)?((?:;[^;,]*)*),")
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF: Final = "application/pdf"
_OUTPUTS: Final = frozenset(CALL_OUTPUTS.values())
_MAX_TITLE: Final = 500


class Conversation(Struct, frozen=True):
    """`system` and `messages` of a request, without cache breakpoints."""

    system: list[JsonObject]
    messages: list[JsonObject]

    def has_calls(self) -> bool:
        return any(block["type"] == "tool_use" for block in self._blocks("assistant"))

    def is_whole(self) -> bool:
        """Whether the turn that the model is in the middle of begins with its thinking, as thinking on demands."""
        turn = None
        for message in self.messages:
            if message["role"] == "assistant":
                turn = turn or message
            elif any(block["type"] != "tool_result" for block in message["content"]):
                turn = None
        return turn is None or turn["content"][0]["type"] in ("thinking", "redacted_thinking")

    def _blocks(self, role: str) -> Iterator[JsonObject]:
        for message in self.messages:
            if message["role"] == role:
                yield from message["content"]


def conversation(
    request: ModelRequest, profile: Profile, plan: ToolPlan, origin: str, *, thinking: bool
) -> Conversation:
    """The conversation of a request; `thinking`: with the thinking that the provider may have back."""
    told = _Told(profile, plan, origin, thinking)
    if request.instructions and request.instructions.strip():
        told.system.append(_text(request.instructions))
    calls = _Calls(request.items)
    for at, item in enumerate(request.items):
        told.take(at, item, calls)
    return told.end()


class _Calls:
    """Which output answers which call, by place, and under which id the API knows a call."""

    def __init__(self, items: Sequence[JsonObject]) -> None:
        self.ids: dict[int, str] = {}
        self.answers: dict[int, JsonObject] = {}
        self.paired: set[int] = set()
        self._taken: set[str] = set()
        waiting: defaultdict[object, deque[int]] = defaultdict(deque)
        for at, item in enumerate(items):
            if item.get("execution") == "server":
                continue  # a search that was over within its turn
            if item["type"] in CALL_OUTPUTS:
                self.ids[at] = self._new_id(str(item.get("call_id") or item.get("id")))
                waiting[item.get("call_id") or item.get("id")].append(at)
            elif item["type"] in _OUTPUTS and (places := waiting[item.get("call_id") or item.get("id")]):
                self.answers[places.popleft()] = item
                self.paired.add(at)
        self._unnamed(items, waiting)

    def _new_id(self, call_id: str) -> str:
        """A client's id where the API takes it, else one made of it, so that the next request has the same."""
        plain = call_id if _TOOL_ID.fullmatch(call_id) else "call_" + hashlib.sha256(call_id.encode()).hexdigest()[:24]
        number, made = 2, plain
        while made in self._taken:
            made, number = f"{plain[:58]}_{number}", number + 1
        self._taken.add(made)
        return made

    def _unnamed(self, items: Sequence[JsonObject], waiting: Mapping[object, deque[int]]) -> None:
        """The output of a local shell call may name it by its `id`."""
        open_ = {items[at].get("id"): at for places in waiting.values() for at in places}
        for at, item in enumerate(items):
            if item["type"] == "local_shell_call_output" and at not in self.paired and item.get("id") in open_:
                self.answers[open_.pop(item["id"])] = item
                self.paired.add(at)


class _Turn(Struct):
    role: str
    blocks: list[JsonObject] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    notes: list[JsonObject] = field(default_factory=list)
    """What the operator says after this turn of the user."""


class _Told:
    """Takes items one after the other. Thinking is held until something of its turn follows: nothing ends with it."""

    def __init__(self, profile: Profile, plan: ToolPlan, origin: str, thinking: bool) -> None:
        self.system: list[JsonObject] = []
        self._profile = profile
        self._plan = plan
        self._origin = origin
        self._thinking = thinking
        self._turns: list[_Turn] = []
        self._held: list[JsonObject] = []
        self._calls: _Calls | None = None

    def take(self, at: int, item: JsonObject, calls: _Calls) -> None:
        self._calls = calls
        if item["type"] == "message":
            self._take_message(item)
        elif item["type"] == "reasoning":
            self._hold(item)
        elif at in calls.ids:
            self._assistant([self._call(at, item)]).calls.append(at)
        elif at in calls.paired:
            self._user([])
        elif item["type"] in _OUTPUTS and item.get("execution") != "server":
            self._user(_result(item, self._profile))

    def end(self) -> Conversation:
        if not self._turns or self._turns[-1].role == "assistant":
            turn = self._user([])
            if not turn.blocks:
                turn.blocks.append(_text(GO_ON))
        messages: list[JsonObject] = []
        if self._turns[0].role == "assistant":
            messages.append({"role": "user", "content": [_text(OPENING)]})
        for turn in self._turns:
            if not turn.blocks:  # nothing but the operator's words
                turn.blocks, turn.notes = [_text(_marked(note["text"])) for note in turn.notes], []
            messages.append({"role": turn.role, "content": turn.blocks or [_text(GO_ON)]})
            if turn.notes:
                messages.append({"role": "system", "content": turn.notes})
        return Conversation(self.system, messages)

    def _take_message(self, item: JsonObject) -> None:
        if item["role"] == "user":
            self._user(_content(item["content"], self._profile))
        elif item["role"] == "assistant":
            if blocks := _texts(item["content"]):
                self._assistant(blocks)
        else:
            self._note(_texts(item["content"]))

    def _note(self, blocks: list[JsonObject]) -> None:
        """The operator's words: part of the system prompt at the start, else where the model takes them."""
        if not self._turns and not self._held:
            self.system += blocks
        elif self._profile.system_messages:
            self._user([]).notes += blocks
        else:
            self._user([_text(_marked(block["text"])) for block in blocks])

    def _hold(self, item: JsonObject) -> None:
        block = unpacked(item, self._origin) if self._thinking else None
        if isinstance(block, dict):
            self._held.append(block)

    def _assistant(self, blocks: list[JsonObject]) -> _Turn:
        turn = self._turn("assistant")
        turn.blocks += [*self._held, *blocks]
        self._held = []
        return turn

    def _user(self, blocks: list[JsonObject]) -> _Turn:
        self._held = []
        turn = self._turn("user")
        turn.blocks += blocks
        return turn

    def _turn(self, role: str) -> _Turn:
        """The turn that is on, or a new one; that of the user begins with the results of all calls before it."""
        if not self._turns or self._turns[-1].role != role:
            calls = self._turns[-1].calls if self._turns else []
            self._turns.append(_Turn(role, [self._answer(at) for at in calls]))
        return self._turns[-1]

    def _call(self, at: int, item: JsonObject) -> JsonObject:
        assert self._calls is not None  # noqa: S101
        name = self._plan.shown_name(item)
        return {"type": "tool_use", "id": self._calls.ids[at], "name": name, "input": _arguments(item)}

    def _answer(self, at: int) -> JsonObject:
        assert self._calls is not None  # noqa: S101
        item = self._calls.answers.get(at)
        content = [_text(NO_RESULT)] if item is None else _result(item, self._profile)
        answer = {"type": "tool_result", "tool_use_id": self._calls.ids[at], "content": content}
        failed = item is not None and item.get("status") == "failed"
        return {**answer, "is_error": True} if failed else answer


def _marked(text: str) -> str:
    return f"<operator>\n{text}\n</operator>"


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _texts(parts: Sequence[JsonObject]) -> list[JsonObject]:
    """The text of parts, a block each; blank ones are refused by the API."""
    texts = [str(part.get(TEXT_FIELDS.get(part["type"], "text")) or "") for part in parts]
    return [_text(text) for text in texts if text.strip()]


def _arguments(item: JsonObject) -> JsonObject:
    """A call's input as the object that it was, or else an object that holds what the model wrote."""
    if item["type"] in NATIVE_CALLS:
        return NATIVE_CALLS[item["type"]].arguments(item)
    if item["type"] == "custom_tool_call":
        return {"input": item["input"]}
    if item["type"] != "function_call":
        return {"action": item.get("action")}
    try:
        value = msgspec.json.decode(item["arguments"] or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": item["arguments"]}


def _result(item: JsonObject, profile: Profile) -> list[JsonObject]:
    """What came of a call; never empty."""
    output = item.get("output")
    if item["type"] in NATIVE_OUTPUTS:
        blocks = _texts([{"type": "text", "text": NATIVE_OUTPUTS[item["type"]].result(item)}])
    elif isinstance(output, list):
        blocks = _content(output, profile)
    elif isinstance(output, dict):  # a computer's screenshot
        blocks = [_image(output, profile)]
    else:
        blocks = _texts([{"type": "text", "text": output}])
    return blocks or [_text(NO_RESULT)]


def _content(parts: Sequence[JsonObject], profile: Profile) -> list[JsonObject]:
    return [block for part in parts for block in _part(part, profile)]


def _part(part: JsonObject, profile: Profile) -> list[JsonObject]:
    kind = part["type"]
    if kind in TEXT_FIELDS:
        return _texts([part])
    if kind in ("input_image", "computer_screenshot"):
        return [_image(part, profile)]
    if kind == "input_file":
        return [_file(part, profile)]
    raise _cannot(f"read a part of type '{kind}'", "Send text, images or files.")


def _image(part: JsonObject, profile: Profile) -> JsonObject:
    if not profile.images:
        return _text(UNSEEN_IMAGE)
    url = part.get("image_url")
    if not isinstance(url, str):
        raise _cannot("look up an image by its file id", "Send it as 'image_url', a data URL or an https URL.")
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media, data = _opened(url)
    return _image_block(media, data)


def _image_block(media: str, data: str) -> JsonObject:
    media = "image/jpeg" if media == "image/jpg" else media
    if media not in _IMAGES:
        raise _cannot(f"see an image of type '{media or 'unknown'}'", "Send JPEG, PNG, GIF or WebP.")
    return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}


def _file(part: JsonObject, profile: Profile) -> JsonObject:
    name = str(part.get("filename") or "")[:_MAX_TITLE]
    if part.get("file_url"):
        if not profile.files:
            raise _cannot("open a file by its URL", "Send its text.")
        return _titled({"type": "document", "source": {"type": "url", "url": part["file_url"]}}, name)
    if not part.get("file_data"):
        raise _cannot("look up a file by its id", "Send it as 'file_data' or 'file_url'.")
    media, data = _opened(part["file_data"])
    if media.startswith("image/"):
        return _image_block(media, data) if profile.images else _text(UNSEEN_IMAGE)
    if media == _PDF or name.lower().endswith(".pdf") or data.startswith("JVBERi0"):
        if not profile.files:
            raise _cannot("read PDF files", "Send the file's text.")
        return _titled({"type": "document", "source": {"type": "base64", "media_type": _PDF, "data": data}}, name)
    return _text_file(data, name, profile)


def _text_file(data: str, name: str, profile: Profile) -> JsonObject:
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise _cannot("read a file that is neither PDF, image nor UTF-8 text", "Send its text.") from None
    if not text.strip():
        return _text(f"(The file '{name}' is empty.)")
    if not profile.files:
        return _text(f"File '{name}':\n{text}")
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return _titled({"type": "document", "source": source}, name)


def _titled(document: JsonObject, name: str) -> JsonObject:
    return {**document, "title": name} if name.strip() else document


def _opened(data: str) -> tuple[str, str]:
    """Media type and base64 of a data URL, or of base64 alone, whose type nobody says."""
    found = _DATA_URL.match(data)
    if found is None:
        return "", data
    if not found[2].lower().endswith(";base64"):
        raise _cannot("read a data URL without base64", "Encode it as base64.")
    return (found[1] or "").lower(), data[found.end() :]


def _cannot(what: str, instead: str) -> InvalidRequest:
    return InvalidRequest(f"This model cannot {what}. {instead}", param="input")
