"""Reads an answer of the Messages API: its server-sent events as deltas.

Blocks come one after the other; each kind has a class that says what becomes of it. Kinds, events and deltas that are
not known are passed over: the API adds some from time to time. It knows of the request only what it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import packed
from ore.backends.free_text import FreeText
from ore.backends.upstream_errors import error_in_stream
from ore.core.callable_tools import CallableTool
from ore.core.deltas import (
    Annotation,
    Begin,
    Delta,
    Finish,
    Reasoning,
    ReasoningState,
    ReasoningSummary,
    Refusal,
    Text,
    ToolArguments,
    ToolCall,
    Usage,
    WholeItem,
)

Deltas = Sequence[Delta]

ANSWER_TOOL: Final = "give_answer"
"""The tool that a model without structured output is made to call; its input is the answer."""

_TIERS: Final = {"standard": "default", "priority": "priority", "batch": "batch"}
_REASONS: Final[dict[str, Literal["max_output_tokens", "content_filter"]]] = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}


class _Delta(Struct, frozen=True):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    citation: JsonObject | None = None
    stop_reason: str | None = None
    stop_details: JsonObject | None = None


class _Block(Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    citations: list[JsonObject] | None = None


class _Details(Struct, frozen=True):
    thinking_tokens: int = 0


class _Usage(Struct, frozen=True):
    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Details | None = None
    service_tier: str | None = None


class _Message(Struct, frozen=True):
    usage: _Usage | None = None


class _Event(Struct, frozen=True):
    type: str
    index: int = 0
    delta: _Delta = _Delta()
    content_block: _Block = _Block()
    message: _Message = _Message()
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class _Whole(Struct, frozen=True):
    """A message that was not streamed."""

    content: list[_Block]
    usage: _Usage | None = None
    stop_reason: str | None = None
    stop_details: JsonObject | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """What a decoder has to know of the request. `origin` is bound into the state of reasoning."""

    origin: str
    tools: Mapping[str, CallableTool] = {}
    """By the name that the model was shown."""
    answer_tool: str = ""
    """The tool whose input is the answer's text."""
    reasoning: Literal["summary", "raw", "hidden"] = "hidden"
    sources: bool = False
    """Whether a web search is to say what it found."""


class MessagesDecoder:
    """Reads one answer. See `ore.backends.dialect.Decoder`."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.called = False
        """Whether the model has called a tool of the request."""
        self.speaking = False
        """Whether a message is open: more text is another part of it."""
        self.searches: dict[str, JsonObject] = {}
        """Inputs of the provider's own tools, by the id of the call."""
        self._block: _Reader | None = None
        self._index = 0
        """Of the block that is open."""
        self._waiting: list[_Event] = []
        """Events of blocks that began before that one was over."""
        self._usage = _Usage()
        self._stop_reason = ""
        self._stop_details: JsonObject = {}

    def feed(self, data: bytes) -> Deltas:
        event = _decode(data)
        if event.type == "content_block_delta":
            return self._of_block(event)
        if event.type == "message":
            return self._whole(msgspec.json.decode(data, type=_Whole))
        read = _EVENTS.get(event.type)
        return read(self, event) if read is not None else ()

    def end(self) -> Deltas:
        """Nothing: an answer without `message_stop` was broken off."""
        return ()

    def _whole(self, message: _Whole) -> Deltas:
        """The answer of a provider that streams nothing."""
        deltas: list[Delta] = []
        for block in message.content:
            reader = _READERS.get(block.type, _Reader)(self, block)
            deltas += [*reader.begin(), *reader.end()]
        self._ends(message.stop_reason, message.stop_details, message.usage)
        return [*deltas, *self._stopped()]

    def _started(self, event: _Event) -> Deltas:
        self._count(event.message.usage)
        return ()

    def _of_block(self, event: _Event) -> Deltas:
        """The API tells one block after the other; those that others tell between each other wait for their turn."""
        block = self._block
        if block is not None and event.index != self._index:
            self._waiting.append(event)
            return ()
        if event.type == "content_block_start":
            over, shown = self._close(), event.content_block
            self._index, self._block = event.index, _READERS.get(shown.type, _Reader)(self, shown)
            return [*over, *self._block.begin()]
        if block is None:
            return ()
        return self._close() if event.type == "content_block_stop" else block.delta(event.delta)

    def _close(self) -> Deltas:
        """End the block that is open, and let those speak that waited for it."""
        block, self._block = self._block, None
        waiting, self._waiting = self._waiting, []
        deltas = [] if block is None else [*block.end()]
        for event in waiting:
            deltas += self._of_block(event)
        return deltas

    def _close_all(self) -> Deltas:
        """Blocks whose end nobody told are over with the message."""
        deltas: list[Delta] = []
        while self._block is not None:
            deltas += self._close()
        return deltas

    def _message_changed(self, event: _Event) -> Deltas:
        self._ends(event.delta.stop_reason, event.delta.stop_details, event.usage)
        return ()

    def _ends(self, reason: str | None, details: JsonObject | None, usage: _Usage | None) -> None:
        self._stop_reason = reason or self._stop_reason
        self._stop_details = details or self._stop_details
        self._count(usage)

    def _stopped(self, _: _Event | None = None) -> Deltas:
        over = self._close_all()
        why = self._stop_details.get("explanation")
        refused = (Refusal(why),) if self._stop_reason == "refusal" and isinstance(why, str) and why else ()
        reason = _REASONS.get(self._stop_reason) or ("tool_calls" if self.called else "stop")
        tier = self._usage.service_tier
        return (*over, *refused, Finish(reason, _counted(self._usage), _TIERS.get(tier, tier) if tier else None))

    def _failed(self, event: _Event) -> Deltas:
        raise error_in_stream(event.error)

    def _count(self, usage: _Usage | None) -> None:
        """Counts are cumulative: what is told later replaces what was told before."""
        if usage is not None:
            told = {name: value for name in usage.__struct_fields__ if (value := getattr(usage, name)) is not None}
            self._usage = msgspec.structs.replace(self._usage, **told)


def _counted(usage: _Usage) -> Usage:
    """The API counts what it took from its cache, or put there, beside the rest of the input; ORE counts it all."""
    cached = usage.cache_read_input_tokens or 0
    return Usage(
        input_tokens=(usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0),
        output_tokens=usage.output_tokens or 0,
        cached_tokens=cached,
        reasoning_tokens=usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else 0,
    )


_EVENTS: Final[dict[str, Callable[[MessagesDecoder, _Event], Deltas]]] = {
    "message_start": MessagesDecoder._started,
    "content_block_start": MessagesDecoder._of_block,
    "content_block_stop": MessagesDecoder._of_block,
    "message_delta": MessagesDecoder._message_changed,
    "message_stop": MessagesDecoder._stopped,
    "error": MessagesDecoder._failed,
}


class _Reader:
    """A block that is passed over, whatever comes in it."""

    def __init__(self, answer: MessagesDecoder, block: _Block) -> None:
        self.answer = answer
        self.block = block

    def begin(self) -> Deltas:
        return ()

    def delta(self, delta: _Delta) -> Deltas:  # noqa: ARG002
        return ()

    def end(self) -> Deltas:
        return ()


class _TextReader(_Reader):
    """A part of its own: the next request gives the blocks back as they were. Citations cover all of the block."""

    def begin(self) -> Deltas:
        self._length = len(self.block.text)
        self._citations = list(self.block.citations or ())
        text = (Text(self.block.text),) if self.block.text else ()
        begun = (Begin("part"),) if self.answer.speaking else ()
        self.answer.speaking = True
        return (*begun, *text)

    def delta(self, delta: _Delta) -> Deltas:
        if delta.type == "text_delta":
            self._length += len(delta.text)
            return (Text(delta.text),)
        if delta.citation is not None:
            self._citations.append(delta.citation)
        return ()

    def end(self) -> Deltas:
        return [Annotation(_annotation(each, self._length)) for each in self._citations]


class _ThinkingReader(_Reader):
    """Shown as it comes, and kept whole: what the API wants back is the block, to the letter."""

    def begin(self) -> Deltas:
        self.answer.speaking = False
        self._thinking = [self.block.thinking]
        self._signature = [self.block.signature]
        return self._shown(self.block.thinking)

    def delta(self, delta: _Delta) -> Deltas:
        self._signature.append(delta.signature)
        self._thinking.append(delta.thinking)
        return self._shown(delta.thinking)

    def end(self) -> Deltas:
        block = {"type": "thinking", "thinking": "".join(self._thinking), "signature": "".join(self._signature)}
        return (ReasoningState(packed(self.answer.reading.origin, block)),)

    def _shown(self, text: str) -> Deltas:
        shown = self.answer.reading.reasoning
        if not text or shown == "hidden":
            return ()
        return (ReasoningSummary(text),) if shown == "summary" else (Reasoning(text),)


class _RedactedReader(_Reader):
    def begin(self) -> Deltas:
        self.answer.speaking = False
        return (ReasoningState(packed(self.answer.reading.origin, {"type": self.block.type, "data": self.block.data})),)


class _CallReader(_Reader):
    """A call of the request's tools, under the client's names; or the answer, where a tool stands for it."""

    def __init__(self, answer: MessagesDecoder, block: _Block) -> None:
        super().__init__(answer, block)
        self._tool = answer.reading.tools.get(block.name)
        self._answers = bool(block.name) and block.name == answer.reading.answer_tool
        self._free = FreeText() if self._tool is not None and self._tool.kind == "custom_tool_call" else None
        self._said = False

    def begin(self) -> Deltas:
        speaking, self.answer.speaking = self.answer.speaking, self._answers
        if self._answers:
            return (Begin("part"),) if speaking else ()
        self.answer.called = True
        if self._tool is None:
            return (ToolCall(self.block.id, self.block.name),)
        return (ToolCall(self.block.id, self._tool.name, self._tool.kind, self._tool.namespace),)

    def delta(self, delta: _Delta) -> Deltas:
        piece = delta.partial_json
        self._said = self._said or bool(piece)
        if self._free is not None:
            piece = self._free.feed(piece)
        return self._piece(piece)

    def end(self) -> Deltas:
        """An input that came in no pieces came with the block, and is empty at most."""
        rest = "" if self._said else msgspec.json.encode(self.block.input or {}).decode()
        if self._free is not None:
            rest = self._free.feed(rest) + self._free.end()
        return self._piece(rest)

    def _piece(self, text: str) -> Deltas:
        if not text:
            return ()
        return (Text(text),) if self._answers else (ToolArguments(text),)


class _OwnToolReader(_Reader):
    """A call that the provider makes itself: told when its result comes."""

    def begin(self) -> Deltas:
        self._pieces: list[str] = []
        return ()

    def delta(self, delta: _Delta) -> Deltas:
        self._pieces.append(delta.partial_json)
        return ()

    def end(self) -> Deltas:
        try:
            asked = msgspec.json.decode("".join(self._pieces)) if any(self._pieces) else self.block.input
        except msgspec.DecodeError:
            asked = None
        self.answer.searches[self.block.id] = asked if isinstance(asked, dict) else {}
        return ()


class _SearchReader(_Reader):
    """The result of a web search or fetch, as the item that there is for it."""

    def begin(self) -> Deltas:
        asked = self.answer.searches.get(self.block.tool_use_id, {})
        found = self.block.content if isinstance(self.block.content, list) else None
        failed = found is None if self.block.type == "web_search_tool_result" else _is_error(self.block.content)
        if self.block.type == "web_search_tool_result":
            action: JsonObject = {"type": "search", "query": str(asked.get("query") or "")}
            if self.answer.reading.sources:
                urls = [entry["url"] for entry in found or () if isinstance(entry, dict) and "url" in entry]
                action["sources"] = [{"type": "url", "url": url} for url in urls]
        else:
            action = {"type": "open_page", "url": str(asked.get("url") or "")}
        self.answer.speaking = False
        item = {"type": "web_search_call", "status": "failed" if failed else "completed", "action": action}
        return (WholeItem(item),)


def _is_error(content: Any) -> bool:
    return isinstance(content, dict) and str(content.get("type")).endswith("_error")


_READERS: Final[dict[str, type[_Reader]]] = {
    "text": _TextReader,
    "thinking": _ThinkingReader,
    "redacted_thinking": _RedactedReader,
    "tool_use": _CallReader,
    "server_tool_use": _OwnToolReader,
    "web_search_tool_result": _SearchReader,
    "web_fetch_tool_result": _SearchReader,
}


def _annotation(citation: JsonObject, length: int) -> JsonObject:
    """A citation in the wire's shape. Of documents, `index` counts those of the request, and `location` is Claude's."""
    span = {"start_index": 0, "end_index": length}
    url = citation.get("url") or citation.get("source")
    if isinstance(url, str) and "://" in url:
        return {"type": "url_citation", "url": url, "title": citation.get("title") or "", **span}
    told = ("type", "cited_text", "document_title", "document_index", "file_id", "title", "source")
    return {
        "type": "file_citation",
        "file_id": citation.get("file_id") or "",
        "filename": citation.get("document_title") or citation.get("title") or "",
        "index": citation.get("document_index") or citation.get("search_result_index") or 0,
        **span,
        "cited_text": citation.get("cited_text") or "",
        "location": {"type": citation.get("type")} | {k: v for k, v in citation.items() if k not in told},
    }
