"""What a broken provider may send: the conversations of the contract kit, as each dialect tells them, and then spoilt.

Whatever comes, a decoder and the writer after it end with an answer or with one of the errors that a provider's faults
are told by. Anything else would be shown to the client as a fault of ORE's own.
"""

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from conversations import CONVERSATIONS, POEM, WEATHER, WINDOWS
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import VOICES

from core.writing import Recording
from ore.backends.base import ModelRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.dialect import Dialect, Unintelligible, UpstreamError
from ore.backends.messages import Messages
from ore.backends.profiles import profile_of
from ore.backends.responses import Responses
from ore.core.deltas import Finish
from ore.errors import ModelFailed

SPEAKERS: dict[str, tuple[Dialect, str, str, str]] = {
    "chat_completions": (ChatCompletions(), "chat_completions", "qwen3:8b", "chat_completions"),
    "messages": (Messages(), "anthropic", "claude-sonnet-5", "messages"),
    "openai": (Responses(), "openai", "gpt-5", "responses"),
    "functions only": (Responses(), "responses", "m", "responses"),
}
"""A dialect, its provider's kind and model, and its voice."""

TOLD = (Unintelligible, UpstreamError, msgspec.MsgspecError, UnicodeError, RecursionError, ModelFailed)
"""What `Decoder.feed` may raise, with what `provider` takes for garbage, and the writer's own refusal."""

JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1.5, "", "x", "message", "function_call", "error"),
    *([], [None], ["a"], {}, [{}], {"type": "x"}, [{"type": "text", "text": 5}], {"a": {"b": [1]}}),
)


@cache
def transcripts(voice: str) -> tuple[list[Any], ...]:
    """Every turn of every conversation, as events; the voice speaks with all tools that the request has."""
    told = []
    for conversation in CONVERSATIONS.values():
        for turn in conversation.turns:
            frames = VOICES[voice].speaks(turn.says, {"tools": turn.asked.get("tools")})
            datas = [frame.partition(b"data: ")[2].strip() for frame in frames]
            told.append([json.loads(data) for data in datas if data != b"[DONE]"])
    return tuple(told)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that is inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from places(each, (*path, key))


def spoil(events: list[Any], data: st.DataObject) -> list[Any]:
    """A few events are lost, repeated, exchanged, or have another value or none at one of their places."""
    events = copy.deepcopy(events)
    for _ in range(data.draw(st.integers(1, 4))):
        at, other = (data.draw(st.integers(0, len(events) - 1)) for _ in range(2))
        match data.draw(st.sampled_from(["lose", "repeat", "exchange", "change", "change", "drop"])):
            case "lose" if len(events) > 1:
                del events[at]
            case "repeat":
                events.insert(other, copy.deepcopy(events[at]))
            case "exchange":
                events[at], events[other] = events[other], events[at]
            case how:
                change(events[at], data, drop=how == "drop")
    return events


def change(event: Any, data: st.DataObject, *, drop: bool) -> None:
    found = list(places(event))
    if not found:
        return
    *way, last = data.draw(st.sampled_from(found))
    for key in way:
        event = event[key]
    if drop:
        del event[last]
    else:
        event[last] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))


@pytest.mark.parametrize("speaker", SPEAKERS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_spoilt_transcript_is_an_answer_or_a_provider_s_fault(speaker: str, data: st.DataObject) -> None:
    """No mutation makes a decoder or the writer raise what is not foreseen, and nothing follows a `Finish`."""
    dialect, kind, model, voice = SPEAKERS[speaker]
    asked = {"tools": (WEATHER, POEM, WINDOWS), "reasoning": {"effort": "low", "summary": "auto"}, "top_logprobs": 1}
    request = ModelRequest(model=model, items=(), **asked)
    decoder = dialect.ask(request, profile_of(kind, model), "p").decoder
    recording = Recording()
    try:
        for event in spoil(data.draw(st.sampled_from(transcripts(voice))), data):
            for delta in decoder.feed(json.dumps(event).encode()):
                if isinstance(delta, Finish):
                    recording.end()
                    return
                recording.writer.write(delta)
        for delta in decoder.end():
            if not isinstance(delta, Finish):
                recording.writer.write(delta)
        recording.end()
    except TOLD:
        pass
