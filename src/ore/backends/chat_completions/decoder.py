"""Reads the chunks of a streamed chat completion, whoever made them: chunks in, deltas out. The hot path.

Strict only in what would be garbage. Where servers differ (what reasoning is called, how calls are cut, where usage
stands), all ways are read; `docs/providers/chat-completions.md` lists them. It mends nothing that a model wrote.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.chat_completions.calls import CallFunction, CallPiece, Calls
from ore.backends.chat_completions.think_tags import ThinkTags
from ore.backends.dialect import Unintelligible, packed
from ore.backends.upstream_errors import error_in_stream
from ore.core.deltas import (
    Annotation,
    Delta,
    Finish,
    Reasoning,
    ReasoningState,
    ReasoningSummary,
    Refusal,
    Text,
    Usage,
)

Reason = Literal["stop", "max_output_tokens", "content_filter", "tool_calls"]

REASONS: Final[dict[str, Reason]] = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
}
"""Words of servers that mean more than that the model has stopped, in small letters."""

FAULTS: Final = frozenset({"error", "network_error", "insufficient_system_resource", "abort"})
"""Finish reasons that are none."""


class _Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[CallPiece] | None = None
    refusal: str | None = None
    function_call: CallFunction | None = None
    reasoning_details: list[Any] | None = None
    annotations: list[Any] | None = None


class _Choice(Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    usage: Any = None
    error: Any = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    service_tier: str | None = None
    citations: list[Any] | None = None
    search_results: list[Any] | None = None
    x_groq: Any = None
    object: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class ChatCompletionsDecoder:
    """One for each answer."""

    def __init__(
        self,
        calls: Calls,
        *,
        origin: str = "",
        think_tags: bool = False,
        summarised: bool = False,
        logprobs: bool = False,
    ) -> None:
        self._calls = calls
        self._origin = origin
        self._tags = ThinkTags() if think_tags else None
        self._thought: type[Reasoning | ReasoningSummary] = ReasoningSummary if summarised else Reasoning
        self._wants_logprobs = logprobs
        self._logprobs: tuple[JsonObject, ...] = ()
        self._held: list[Delta] = []
        self._blank = ""
        self._phase: Literal["fresh", "thinking", "text", "calling"] = "fresh"
        self._details: list[JsonObject] = []
        self._cited: dict[str, JsonObject] = {}
        self._length = 0
        self._said = False
        self._reason: str | None = None
        self._usage: JsonObject = {}
        self._tier: str | None = None

    def feed(self, data: bytes) -> Sequence[Delta]:
        """See `Decoder.feed`. What ends the answer may be told before its usage is: `end` says `Finish`."""
        chunk = _chunk(data)
        out: list[Delta] = []
        for choice in chunk.choices or ():
            if not choice.index:
                self._choice(choice, out)
        if chunk.usage:
            self._usage = chunk.usage
        if chunk.service_tier:
            self._tier = chunk.service_tier
        if chunk.citations or chunk.search_results or chunk.x_groq:
            self._extras(chunk)
        return out

    def end(self) -> Sequence[Delta]:
        """See `Decoder.end`. An answer without a reason to end was broken off."""
        out: list[Delta] = []
        if self._tags is not None:
            self._tagged(self._tags.end(), out)
        out += self._calls.end()
        out += self._held
        if not self._said and not self._calls.called and self._blank:
            out.append(Text(self._blank, self._logprobs))
        if self._details and self._phase in ("fresh", "thinking"):  # later ones belong to nothing
            out += self._state()
        if self._said and self._phase == "text":
            out += map(Annotation, self._cited.values())
        if self._reason is not None:
            out.append(Finish(self._finish(), usage_of(self._usage), self._tier))
        return out

    def _choice(self, choice: _Choice, out: list[Delta]) -> None:
        if choice.error:
            raise error_in_stream(choice.error)
        if choice.logprobs and self._wants_logprobs:
            self._logprobs += _entries(choice.logprobs)
        delta = choice.delta or choice.message
        if delta is not None:
            self._delta(delta, out)
        if choice.usage:
            self._usage = choice.usage
        if choice.finish_reason:
            self._reason = choice.finish_reason.lower()
            if self._reason in FAULTS:
                raise error_in_stream({"message": f"The answer ended with '{self._reason}'.", "type": self._reason})

    def _delta(self, delta: _Delta, out: list[Delta]) -> None:
        thought = delta.reasoning_content or delta.reasoning
        if thought or delta.reasoning_details:
            self._think(thought, delta.reasoning_details or (), out)
        content = delta.content
        if content:
            if type(content) is str:
                self._content(content, out)
            else:
                self._parts(content, out)
        elif self._logprobs and self._phase == "text":
            self._text("", out)
        if delta.tool_calls or delta.function_call:
            self._call(delta, out)
        if delta.refusal:
            self._say(Refusal(delta.refusal), out)
            self._phase = "text"
        if delta.annotations:
            self._annotate(delta.annotations)

    def _content(self, text: str, out: list[Delta]) -> None:
        if self._tags is None:
            self._text(text, out)
        else:
            self._tagged(self._tags.feed(text), out)

    def _tagged(self, pieces: Iterable[tuple[bool, str]], out: list[Delta]) -> None:
        for is_reasoning, text in pieces:
            if is_reasoning:
                self._logprobs = ()  # of the answer only
                self._think(text, (), out)
            else:
                self._text(text, out)

    def _parts(self, parts: Iterable[Any], out: list[Delta]) -> None:
        """Mistral's form: a list of texts, and of thoughts that are lists of texts."""
        for part in parts:
            if isinstance(part, str):
                self._content(part, out)
            elif isinstance(part, dict) and part.get("type") == "thinking":
                self._think(_text_in(part.get("thinking")), (), out)
            elif isinstance(part, dict) and part.get("type", "text") == "text":
                self._content(_text_in(part.get("text")), out)

    def _text(self, text: str, out: list[Delta]) -> None:
        if self._phase != "text":
            if not text.strip():
                self._blank += text  # layout between reasoning and calls, unless text follows
                self._logprobs = self._logprobs if self._phase == "fresh" else ()
                return
            text = self._blank + text if self._phase == "fresh" else text
            self._begin_text(out)
        self._length += len(text)
        self._say(Text(text, self._logprobs), out)
        self._logprobs = ()

    def _begin_text(self, out: list[Delta]) -> None:
        self._blank = ""
        self._phase = "text"
        self._said = True
        if self._details:
            self._put(self._state(), out)

    def _think(self, thought: Any, details: Iterable[Any], out: list[Delta]) -> None:
        details = [detail for detail in details if isinstance(detail, dict)]
        text = _text_in(thought) or "".join(_text_in(detail) for detail in details)
        for detail in details:
            _add_detail(self._details, detail)
        if text:
            self._phase = "thinking"
            self._blank = ""
            self._say(self._thought(text), out)

    def _call(self, delta: _Delta, out: list[Delta]) -> None:
        pieces = delta.tool_calls or [CallPiece(function=delta.function_call)]
        if self._details:
            self._put(self._state(), out)
        self._phase = "calling"
        self._blank = ""
        out += self._calls.take(pieces)
        self._release(out)

    def _say(self, delta: Delta, out: list[Delta]) -> None:
        if self._calls.busy:
            self._put([delta], out)
        else:
            out.append(delta)

    def _put(self, deltas: list[Delta], out: list[Delta]) -> None:
        """Between calls there is place for something else only when the open one is whole."""
        self._held += deltas
        out += self._calls.settle()
        self._release(out)

    def _release(self, out: list[Delta]) -> None:
        if self._held and not self._calls.busy:
            out += self._held
            self._held = []

    def _state(self) -> list[Delta]:
        """What OpenRouter wants back of reasoning; what anybody can read goes back without it."""
        details, self._details = self._details, []
        opaque = any(detail.get("data") or detail.get("signature") for detail in details)
        return [ReasoningState(packed(self._origin, {"reasoning_details": details}))] if opaque else []

    def _annotate(self, annotations: Iterable[Any]) -> None:
        for raw in annotations:
            if isinstance(raw, dict) and raw.get("type") == "url_citation":
                cited = raw.get("url_citation") if isinstance(raw.get("url_citation"), dict) else raw
                self._cite(cited or {}, cited or {})

    def _extras(self, chunk: _Chunk) -> None:
        """What some add beside the choices: citations (Perplexity, xAI) and usage (Groq)."""
        results = [result for result in chunk.search_results or () if isinstance(result, dict)]
        titles = {address: result.get("title") for result in results if isinstance(address := result.get("url"), str)}
        for address in chunk.citations or titles:
            if isinstance(address, str):
                self._cite({"url": address, "title": titles.get(address)}, {})
        if isinstance(chunk.x_groq, dict):
            self._usage = chunk.x_groq.get("usage") or self._usage

    def _cite(self, cited: JsonObject, place: JsonObject) -> None:
        """Said at the end, once for each place: some repeat all of them in every chunk."""
        start, end = place.get("start_index"), place.get("end_index")
        annotation = {
            "type": "url_citation",
            "url": str(cited.get("url") or ""),
            "title": str(cited.get("title") or ""),
            "start_index": start if isinstance(start, int) else 0,
            "end_index": end if isinstance(end, int) else self._length,
        }
        self._cited[f"{annotation['url']} {start} {end}"] = annotation

    def _finish(self) -> Reason:
        reason = REASONS.get(self._reason or "", "stop")
        return "tool_calls" if reason == "stop" and self._calls.called else reason


def _chunk(data: bytes) -> _Chunk:
    try:
        chunk = _decode(data)
    except (msgspec.MsgspecError, RecursionError) as problem:
        if data.strip() in (b"", b"[DONE]"):
            return _Chunk()
        raise Unintelligible from problem
    if chunk.error:
        raise error_in_stream(chunk.error)
    if chunk.choices is None and chunk.usage is None and chunk.x_groq is None:
        _check_known(chunk, data)
    return chunk


def _check_known(chunk: _Chunk, data: bytes) -> None:
    """A chunk may say nothing; an event of another API is none."""
    if chunk.object == "error":  # vLLM's older form
        raise error_in_stream(msgspec.json.decode(data))
    if chunk.object is None and data.strip() != b"{}":
        raise Unintelligible


def usage_of(told: Any) -> Usage:
    """Tokens, from whichever fields there are. Gemini and xAI count reasoning beside the answer, in the total only."""
    if not isinstance(told, dict):
        return Usage()
    prompt, completion, total = (_count(told, key) for key in ("prompt_tokens", "completion_tokens", "total_tokens"))
    hidden = max(0, total - prompt - completion) if prompt else 0
    cached = (
        _count(told.get("prompt_tokens_details"), "cached_tokens")
        or _count(told, "prompt_cache_hit_tokens")  # DeepSeek
        or _count(told, "cached_tokens")  # Moonshot
    )
    reasoning = _count(told.get("completion_tokens_details"), "reasoning_tokens") or _count(told, "reasoning_tokens")
    return Usage(
        input_tokens=prompt,
        output_tokens=completion + hidden,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=min(max(reasoning, hidden), completion + hidden),
    )


def _count(fields: Any, key: str) -> int:
    value = fields.get(key) if isinstance(fields, dict) else None
    return max(0, int(value)) if isinstance(value, int | float) else 0


def _text_in(value: Any) -> str:
    """The text of a thought or a part: a string, an object around one, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text_in, value))
    if not isinstance(value, dict):
        return ""
    return next(filter(None, (_text_in(value.get(key)) for key in ("text", "content", "summary", "thinking"))), "")


def _add_detail(details: list[JsonObject], detail: JsonObject) -> None:
    """Join the pieces of one detail: of its texts; of everything else the newest counts."""
    last = next((each for each in details if _same_detail(each, detail)), None)
    if last is None:
        details.append(dict(detail))
        return
    for key, value in detail.items():
        joined = key in ("text", "summary", "data") and isinstance(last.get(key), str) and isinstance(value, str)
        last[key] = last[key] + value if joined else value if value is not None else last.get(key)


def _same_detail(one: JsonObject, other: JsonObject) -> bool:
    return one.get("index") is not None and all(one.get(key) == other.get(key) for key in ("index", "type"))


def _entries(logprobs: Any) -> tuple[JsonObject, ...]:
    """Logprobs in the wire's shape (section 6), where every field is required."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return tuple(_entry(raw, top=True) for raw in _objects(content))


def _entry(raw: JsonObject, *, top: bool = False) -> JsonObject:
    token = str(raw.get("token") or "")
    given = raw.get("bytes")
    logprob = raw.get("logprob")
    entry: JsonObject = {
        "token": token,
        "logprob": logprob if isinstance(logprob, int | float) else -9999.0,
        "bytes": given if isinstance(given, list) else list(token.encode("utf-8", "replace")),
    }
    if top:
        entry["top_logprobs"] = [_entry(other) for other in _objects(raw.get("top_logprobs"))]
    return entry


def _objects(values: Any) -> list[JsonObject]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
