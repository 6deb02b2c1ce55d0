"""The tests of the official compliance suite (wire contract, 23.2 and 23.3) and its unofficial ones (23.5).

Rebuilt from the description, in our own words. As in the suite, all that the seventeen send begins at the same moment,
so that a model with few slots has to queue; each test then judges one of them by the published JSON Schema. What the
model says is nobody's business here.
"""

import base64
import json
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from clients import wire
from clients.judging import Judge, check_response, check_stream
from clients.sockets import Socket, check_error
from servers import OreProcess

pytestmark = pytest.mark.engine

MODEL = "ore-tiny"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Look up the current weather of a place",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "A city, for example Lisbon"}},
        "required": ["location"],
    },
}
WEATHER_QUESTION = "What's the weather like in San Francisco?"


def user(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": content, **more}


def data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def png(side: int = 32) -> bytes:
    """A square of one colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + b"\xd0\x40\x20" * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PDF = b"""%PDF-1.4
1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj
2 0 obj << /Type /Pages /Kids [3 0 R] /Count 1 >> endobj
3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R >> endobj
4 0 obj << /Length 37 >> stream
BT /F1 12 Tf 20 50 Td (Lisbon) Tj ET
endstream endobj
trailer << /Root 1 0 R >>
startxref
0
%%EOF
"""
"""Text in a file whose cross-reference table is missing, as many a generator leaves it."""

BODIES: dict[str, dict[str, Any]] = {
    "basic-response": {"input": [user("Greet me in exactly three words.")]},
    "assistant-phase": {
        "input": [
            assistant("Let me look that up first.", phase="commentary"),
            assistant("It is done.", phase="final_answer"),
            user("Thank you. Say OK."),
        ]
    },
    "streaming-response": {"input": [user("Count from 1 to 5.")], "stream": True},
    "system-prompt": {
        "input": [
            {"type": "message", "role": "system", "content": "You are a pirate. Talk like one."},
            user("Who are you?"),
        ]
    },
    "tool-calling": {"input": [user(WEATHER_QUESTION)], "tools": [WEATHER]},
    "image-input": {
        "input": [
            user(
                [
                    {"type": "input_text", "text": "Which colour is this?"},
                    {"type": "input_image", "image_url": data_url("image/png", png())},
                ]
            )
        ]
    },
    "multi-turn": {
        "input": [user("My name is Ada."), assistant("Nice to meet you, Ada."), user("What is my name?")],
    },
}
COMPACT_BODIES: dict[str, dict[str, Any]] = {
    "compact-response": {
        "model": MODEL,
        "prompt_cache_key": "compliance",
        "input": [user("We met in Lisbon."), assistant("Yes, on a Monday.")],
    },
    "compact-missing-model": {"input": [user("We met in Lisbon.")]},
}

Turns = list[list[wire.Sent]]


def websocket_response(url: str) -> Turns:
    """One create with one user message. It is the only one of these that is stored."""
    with Socket(url) as socket:
        return [socket.turn(model=MODEL, input=[user("Greet me in exactly three words.")])]


def websocket_sequential_responses(url: str) -> Turns:
    """Two creates on a socket that have nothing to do with each other."""
    with Socket(url) as socket:
        return [socket.turn(model=MODEL, input=text, store=False) for text in ("Say one.", "Say two.")]


def websocket_continuation(url: str) -> Turns:
    """The second create sends only what is new."""
    with Socket(url) as socket:
        first = socket.turn(model=MODEL, input="My name is Ada.", store=False)
        return [first, continued(socket, first, "What is my name?")]


def websocket_reconnect_store_false_recovery(url: str) -> Turns:
    """Another socket cannot continue, but begin anew."""
    with Socket(url) as socket:
        first = socket.turn(model=MODEL, input="My name is Ada.", store=False)
    with Socket(url) as other:
        return [continued(other, first, "Who am I?"), other.turn(model=MODEL, input="I am Ada.", store=False)]


def websocket_previous_response_not_found(url: str) -> Turns:
    with Socket(url) as socket:
        return [socket.turn(model=MODEL, input="Hi", store=False, previous_response_id="resp_that_never_was")]


def websocket_failed_continuation_evicts_cache(url: str) -> Turns:
    """The output of a call that never was cannot be continued with, and what it named is gone then."""
    orphan = [{"type": "function_call_output", "call_id": "call_that_never_was", "output": "18 degrees"}]
    with Socket(url) as socket:
        first = socket.turn(model=MODEL, input="Hi", store=False)
        return [first, continued(socket, first, orphan), continued(socket, first, "Hi again")]


def websocket_compact_new_chain(url: str) -> Turns:
    """A compacted conversation, made over HTTP, is the input of a new chain."""
    said = [user([{"type": "input_text", "text": "We met in Lisbon."}])]
    said += [assistant([{"type": "output_text", "text": "Yes, on a Monday."}])]
    said += [user([{"type": "input_text", "text": "It rained."}])]
    compacted = wire.call(url, "POST", "/v1/responses/compact", {"model": MODEL, "input": said})
    assert compacted.status == 200, compacted.body
    with Socket(url) as socket:
        window = [*compacted.json()["output"], user("Where did we meet?")]
        return [socket.turn(model=MODEL, input=window, tools=[], store=False)]


def continued(socket: Socket, turn: list[wire.Sent], new: Any) -> list[wire.Sent]:
    return socket.turn(model=MODEL, input=new, store=False, previous_response_id=wire.final(turn)["id"])


WEBSOCKET_CALLS: list[Callable[[str], Turns]] = [
    websocket_response,
    websocket_sequential_responses,
    websocket_continuation,
    websocket_reconnect_store_false_recovery,
    websocket_previous_response_not_found,
    websocket_failed_continuation_evicts_cache,
    websocket_compact_new_chain,
]

Outcome = wire.Answer | list[wire.Sent] | Turns


@pytest.fixture(scope="module")
def outcomes(tiny: OreProcess) -> dict[str, Outcome | BaseException]:
    """What came back for each test id. Nobody sends before all are ready to."""
    calls: dict[str, Callable[[], Outcome]] = {}
    for name, body in BODIES.items():
        method = wire.stream if body.get("stream") else wire.create
        calls[name] = lambda method=method, body=body: method(tiny.url, **{"model": MODEL, **body})  # type: ignore[misc]
    for name, body in COMPACT_BODIES.items():
        calls[name] = lambda body=body: wire.call(tiny.url, "POST", "/v1/responses/compact", body)  # type: ignore[misc]
    for play in WEBSOCKET_CALLS:
        calls[play.__name__] = lambda play=play: play(tiny.url)  # type: ignore[misc]
    barrier = threading.Barrier(len(calls))
    results: dict[str, Outcome | BaseException] = {}

    def run(name: str, call: Callable[[], Outcome]) -> None:
        barrier.wait()
        try:
            results[name] = call()
        except Exception as error:
            results[name] = error

    threads = [threading.Thread(target=run, args=pair) for pair in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(wire.LONG)
    return results


def answered(outcomes: dict[str, Outcome | BaseException], name: str) -> dict[str, Any]:
    """The response object of a call that did not stream."""
    outcome = outcomes[name]
    if isinstance(outcome, BaseException):
        raise outcome
    assert isinstance(outcome, wire.Answer)
    assert outcome.status == 200, outcome.body
    return dict(outcome.json())


@pytest.mark.parametrize("name", ["basic-response", "assistant-phase", "system-prompt", "image-input", "multi-turn"])
def test_a_plain_request_completes(
    name: str, outcomes: dict[str, Outcome | BaseException], specification: Judge
) -> None:
    """The response is valid, has output and is completed."""
    check_response(specification, answered(outcomes, name))


def test_tool_calling(outcomes: dict[str, Outcome | BaseException], specification: Judge) -> None:
    """A weather question with a weather tool that says nothing of `strict` is answered by a call of that tool."""
    response = check_response(specification, answered(outcomes, "tool-calling"))
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    assert [call["name"] for call in calls] == ["get_weather"]
    assert isinstance(json.loads(calls[0]["arguments"])["location"], str)


def test_streaming_response(outcomes: dict[str, Outcome | BaseException], specification: Judge) -> None:
    """Every event is one of the 24, all reach a reader that forgets what is split between chunks, the end is whole."""
    events = outcomes["streaming-response"]
    assert isinstance(events, list), events
    check_response(specification, check_stream(specification, events))
    assert any(event.type == "response.output_text.delta" for event in events)


def test_response_output_phase_schema(specification: Judge) -> None:
    """A response with a comment and a final answer is valid; the schema is asked, not the server."""
    check_response(specification, _PHASES)
    assert [item["phase"] for item in _PHASES["output"]] == ["commentary", "final_answer"]


def test_a_phase_of_null_is_not_valid(specification: Judge) -> None:
    """The schema does look at `phase`: unset means absent."""
    unset = {**_PHASES, "output": [{**_PHASES["output"][0], "phase": None}]}
    with pytest.raises(AssertionError, match="phase"):
        specification.check("ResponseResource", unset)


def test_compact_response(outcomes: dict[str, Outcome | BaseException], specification: Judge) -> None:
    """A compacted conversation holds a compaction item."""
    compacted = answered(outcomes, "compact-response")
    specification.check("CompactResource", compacted)
    assert compacted["object"] == "response.compaction"
    assert "compaction" in [item["type"] for item in compacted["output"]]


def test_compact_missing_model(outcomes: dict[str, Outcome | BaseException]) -> None:
    """Compaction needs a model."""
    answer = outcomes["compact-missing-model"]
    assert isinstance(answer, wire.Answer)
    assert answer.status in (400, 422)


# Those of 23.3


def turns(outcomes: dict[str, Outcome | BaseException], play: Callable[[str], Turns]) -> Any:
    """The turns of a WebSocket test."""
    outcome = outcomes[play.__name__]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@pytest.mark.parametrize(
    ("play", "judged"),
    [
        (websocket_response, [0]),
        (websocket_sequential_responses, [0, 1]),
        (websocket_continuation, [0, 1]),
        (websocket_reconnect_store_false_recovery, [1]),
        (websocket_failed_continuation_evicts_cache, [0]),
        (websocket_compact_new_chain, [0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_websocket_turns_complete(
    play: Callable[[str], Turns],
    judged: list[int],
    outcomes: dict[str, Outcome | BaseException],
    specification: Judge,
) -> None:
    """Every frame is a valid event, and the turn ends with a valid, completed response."""
    for at in judged:
        check_response(specification, check_stream(specification, turns(outcomes, play)[at]))


@pytest.mark.parametrize(
    ("play", "at"),
    [
        (websocket_reconnect_store_false_recovery, 0),
        (websocket_previous_response_not_found, 0),
        (websocket_failed_continuation_evicts_cache, 2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_websocket_previous_response_not_found(
    play: Callable[[str], Turns], at: int, outcomes: dict[str, Outcome | BaseException], specification: Judge
) -> None:
    """An id that this socket does not know, or knows no longer, is a valid error frame with that code."""
    (frame,) = turns(outcomes, play)[at]
    check_error(specification, frame, "previous_response_not_found")


def test_websocket_failed_continuation(outcomes: dict[str, Outcome | BaseException], specification: Judge) -> None:
    """The output of a call that never was is refused."""
    (frame,) = turns(outcomes, websocket_failed_continuation_evicts_cache)[1]
    assert "call_that_never_was" in check_error(specification, frame, "invalid_value")["error"]["message"]


# Those of 23.5, on their own


def test_function_call_roundtrip(tiny: OreProcess, specification: Judge) -> None:
    """A forced call has a `call_id`; with its output and `previous_response_id` the model answers."""
    forced = {"type": "function", "name": "get_weather"}
    answer = wire.create(tiny.url, model=MODEL, input=WEATHER_QUESTION, tools=[WEATHER], tool_choice=forced)
    first = check_response(specification, answer.json())
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    assert call["name"] == "get_weather"
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"temperature": "18 degrees"}'}
    answer = wire.create(tiny.url, model=MODEL, input=[output], tools=[WEATHER], previous_response_id=first["id"])
    second = check_response(specification, answer.json())
    assert second["previous_response_id"] == first["id"]


def test_previous_response_id(tiny: OreProcess, specification: Judge) -> None:
    """Two requests over HTTP make one conversation."""
    first = check_response(specification, wire.create(tiny.url, model=MODEL, input="My name is Ada.").json())
    answer = wire.create(tiny.url, model=MODEL, input="What is my name?", previous_response_id=first["id"])
    second = check_response(specification, answer.json())
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_tool_calling_streaming(tiny: OreProcess, specification: Judge) -> None:
    """A streamed call is added, its arguments come in at least one delta, and both are done."""
    events = wire.stream(tiny.url, model=MODEL, input=[user(WEATHER_QUESTION)], tools=[WEATHER])
    check_response(specification, check_stream(specification, events))
    kinds = [(event.event, event.json.get("item", {}).get("type")) for event in events]
    wanted = [
        ("response.output_item.added", "function_call"),
        ("response.function_call_arguments.delta", None),
        ("response.function_call_arguments.done", None),
        ("response.output_item.done", "function_call"),
    ]
    assert sorted({kinds.index(kind) for kind in wanted}) == [kinds.index(kind) for kind in wanted]


def test_file_input(tiny: OreProcess, specification: Judge) -> None:
    """A PDF, even a damaged one, does not keep a text model from answering."""
    content = [
        {"type": "input_text", "text": "Say hello, then tell me what is in the file."},
        {"type": "input_file", "filename": "note.pdf", "file_data": data_url("application/pdf", PDF)},
    ]
    check_response(specification, wire.create(tiny.url, model=MODEL, input=[user(content)]).json())


def _message(phase: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": f"msg_{phase}",
        "status": "completed",
        "role": "assistant",
        "phase": phase,
        "content": [part],
    }


_PHASES: dict[str, Any] = {
    "id": "resp_phases",
    "object": "response",
    "created_at": 1_795_000_000,
    "completed_at": 1_795_000_001,
    "status": "completed",
    "incomplete_details": None,
    "model": MODEL,
    "previous_response_id": None,
    "instructions": None,
    "output": [_message("commentary", "I am looking it up."), _message("final_answer", "It is 18 degrees.")],
    "error": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "usage": {
        "input_tokens": 9,
        "output_tokens": 12,
        "total_tokens": 21,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
