"""Chat Completions: what is heard. Transcripts in the shapes in which servers really answer, over HTTP."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from chat_completions_server import chat_server, chunk, stream, usage
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_server import Play, StubServer, as_json, events

from core.writing import begun, counted
from ore.backends.base import ModelRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.chat_completions.listing import read_listing
from ore.backends.chat_completions.think_tags import ThinkTags
from ore.backends.dialect import Unintelligible, packed
from ore.backends.event_stream import EventReader
from ore.backends.profiles import Profile, profile_of
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.deltas import (
    Annotation,
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
)
from ore.core.writer import ResponseWriter
from ore.errors import HTTPFault, InvalidRequest, ModelFailed, NotFound, TooManyRequests, Unavailable
from ore.protocol.items import as_object

pytestmark = pytest.mark.anyio

HI = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "name": "add", "parameters": SCHEMA}
SUB = {"type": "function", "name": "sub", "parameters": SCHEMA}
TOOLS = (
    ADD,
    SUB,
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "n", "tools": [ADD]},
    {"type": "shell"},
)
FORMAT = {"type": "json_schema", "name": "shape", "schema": SCHEMA}
STOP = chunk(finish="stop")
END = Finish("stop", Usage(input_tokens=3, output_tokens=2))
CALLED = Finish("tool_calls", Usage(input_tokens=3, output_tokens=2))


def request(**fields: Any) -> ModelRequest:
    return ModelRequest(model="m", items=(HI,), tools=TOOLS, **fields)


def dialect() -> ChatCompletions:
    minted = iter(range(100))
    return ChatCompletions(lambda purpose: f"{purpose}_{next(minted)}")


def calls(*pieces: Any) -> dict[str, Any]:
    return chunk({"tool_calls": list(pieces)})


def piece(index: int | None = 0, call_id: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """A piece of a call, with the fields that are given."""
    told = {"index": index, "id": call_id}
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {key: value for key, value in told.items() if value is not None} | {"function": function}


def whole(*made: tuple[str, str, str]) -> list[Delta]:
    """Calls as deltas: id, name and arguments."""
    return [delta for call_id, name, text in made for delta in (ToolCall(call_id, name), ToolArguments(text))]


def cited(url: str, title: str, start: int, end: int) -> Annotation:
    place = {"start_index": start, "end_index": end}
    return Annotation({"type": "url_citation", "url": url, "title": title, **place})


Transcript = tuple[Sequence[Any], Sequence[Delta]]

TRANSCRIPTS: dict[str, Transcript] = {
    "OpenAI: role first, usage in a chunk of its own": (
        [chunk({"role": "assistant", "content": "", "refusal": None}), chunk({"content": "Hi"}), STOP, usage()],
        [Text("Hi"), END],
    ),
    "Azure: a chunk without choices first": (
        [chunk(choices=[], prompt_filter_results=[]), chunk({"content": "Hi"}), STOP, usage()],
        [Text("Hi"), END],
    ),
    "null where others leave out": (
        [
            chunk({"content": None, "tool_calls": None, "reasoning_content": None, "function_call": None}),
            chunk(choices=None),
            chunk(choices=[{"index": 0, "delta": None, "finish_reason": ""}]),
            chunk({"content": "Hi"}),
            STOP,
            usage(),
        ],
        [Text("Hi"), END],
    ),
    "Together, vLLM: usage in the last chunk with a choice": (
        [chunk({"content": "Hi"}), chunk(finish="eos") | {"usage": usage()["usage"]}],
        [Text("Hi"), END],
    ),
    "usage in every chunk: the last counts": (
        [chunk({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 1}), STOP, usage()],
        [Text("Hi"), END],
    ),
    "Moonshot: usage in the choice": (
        [chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage()["usage"]}])],
        [END],
    ),
    "Groq: usage in x_groq": (
        [chunk({"content": "Hi"}), chunk(finish="stop", x_groq={"id": "x", "usage": usage()["usage"]})],
        [Text("Hi"), END],
    ),
    "other choices are not ours": (
        [chunk(choices=[{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "Hi"}}]), STOP],
        [Text("Hi"), Finish("stop")],
    ),
    "details of usage": (
        [STOP, usage(prompt_tokens_details={"cached_tokens": 1}, completion_tokens_details={"reasoning_tokens": 1})],
        [Finish("stop", Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1))],
    ),
    "DeepSeek: what was in the cache": (
        [STOP, usage(prompt_cache_hit_tokens=2, prompt_cache_miss_tokens=1)],
        [Finish("stop", Usage(input_tokens=3, output_tokens=2, cached_tokens=2))],
    ),
    "Gemini, xAI: reasoning is counted in the total only": (
        [STOP, usage(total_tokens=9)],
        [Finish("stop", Usage(input_tokens=3, output_tokens=6, reasoning_tokens=4))],
    ),
    "Gemini: nothing but reasoning": (
        [chunk(finish="length"), usage(completion_tokens=0, total_tokens=9)],
        [Finish("max_output_tokens", Usage(input_tokens=3, output_tokens=6, reasoning_tokens=6))],
    ),
    "the tier that was used": (
        [chunk({"content": "Hi"}, service_tier="flex"), STOP],
        [Text("Hi"), Finish("stop", service_tier="flex")],
    ),
    "a refusal": (
        [chunk({"refusal": "I "}), chunk({"refusal": "can't."}), STOP],
        [Refusal("I "), Refusal("can't."), Finish("stop")],
    ),
    "DeepSeek: reasoning_content, then content": (
        [chunk({"content": None, "reasoning_content": "hm"}), chunk({"reasoning_content": None, "content": "2"}), STOP],
        [Reasoning("hm"), Text("2"), Finish("stop")],
    ),
    "vLLM, Ollama, Groq: reasoning": (
        [chunk({"content": "", "reasoning": "hm"}), chunk({"content": "2"}), STOP],
        [Reasoning("hm"), Text("2"), Finish("stop")],
    ),
    "both names for the same reasoning": (
        [chunk({"reasoning": "hm", "reasoning_content": "hm"}), STOP],
        [Reasoning("hm"), Finish("stop")],
    ),
    "reasoning as an object": (
        [chunk({"reasoning": {"content": "hm"}}), STOP],
        [Reasoning("hm"), Finish("stop")],
    ),
    "Mistral: content as a list of thoughts and texts": (
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
            chunk({"content": [{"type": "text", "text": "2"}, {"type": "reference", "reference_ids": [1]}]}),
            chunk({"content": "!"}),
            STOP,
        ],
        [Reasoning("hm"), Text("2"), Text("!"), Finish("stop")],
    ),
    "OpenRouter: what it wants back comes at the end of reasoning": (
        [
            chunk({"reasoning": "h", "reasoning_details": [{"type": "reasoning.text", "text": "h", "index": 0}]}),
            chunk({"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "text": "m", "index": 0}]}),
            chunk({"reasoning_details": [{"type": "reasoning.text", "signature": "s", "index": 0}]}),
            chunk({"content": "2"}),
            STOP,
        ],
        [
            Reasoning("h"),
            Reasoning("m"),
            ReasoningState(
                packed(
                    "here",
                    {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0, "signature": "s"}]},
                )
            ),
            Text("2"),
            Finish("stop"),
        ],
    ),
    "OpenRouter: encrypted reasoning with a call, and some that comes too late": (
        [
            calls(piece(0, "c", "add", "{}")),
            chunk(
                {
                    "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
                    "tool_calls": [piece(1, "d", "sub", "{}")],
                }
            ),
            chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "y"}]}),
            STOP,
        ],
        [
            *whole(("c", "add", "{}")),
            ReasoningState(packed("here", {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]})),
            *whole(("d", "sub", "{}")),
            Finish("tool_calls"),
        ],
    ),
    "blank lines between reasoning and a call are layout": (
        [
            chunk({"reasoning_content": "hm"}),
            chunk({"content": "\n\n"}),
            calls(piece(0, "c", "add", "{}")),
            chunk({"content": "\n"}),
            STOP,
        ],
        [Reasoning("hm"), *whole(("c", "add", "{}")), Finish("tool_calls")],
    ),
    "blank lines before text are text": (
        [chunk({"content": "\n"}), chunk({"content": " a"}), chunk({"content": "\n"}), STOP],
        [Text("\n a"), Text("\n"), Finish("stop")],
    ),
    "nothing but a blank": ([chunk({"content": " "}), STOP], [Text(" "), Finish("stop")]),
    "OpenAI: a call in pieces": (
        [
            calls(piece(0, "call_x", "add", "")),
            calls(piece(0, arguments='{"a"')),
            calls(piece(0, arguments=": 1}")),
            chunk(finish="tool_calls"),
            usage(),
        ],
        [ToolCall("call_x", "add"), ToolArguments('{"a"'), ToolArguments(": 1}"), CALLED],
    ),
    "text, then two calls one after the other": (
        [
            chunk({"content": "Hm."}),
            calls(piece(0, "c1", "add", '{"a"')),
            calls(piece(0, arguments=":1}")),
            calls(piece(1, "c2", "sub", '{"a"')),
            calls(piece(1, arguments=":2}")),
            chunk(finish="tool_calls"),
        ],
        [
            Text("Hm."),
            ToolCall("c1", "add"),
            ToolArguments('{"a"'),
            ToolArguments(":1}"),
            ToolCall("c2", "sub"),
            ToolArguments('{"a"'),
            ToolArguments(":2}"),
            Finish("tool_calls"),
        ],
    ),
    "two calls written at the same time": (
        [
            calls(piece(0, "c1", "add", ""), piece(1, "c2", "sub", "")),
            calls(piece(1, arguments='{"a"'), piece(0, arguments='{"a"')),
            calls(piece(1, arguments=":2}")),
            calls(piece(0, arguments=":1}")),
            chunk(finish="tool_calls"),
        ],
        [
            ToolCall("c1", "add"),
            ToolArguments('{"a"'),
            ToolArguments(":1}"),
            *whole(("c2", "sub", '{"a":2}')),
            Finish("tool_calls"),
        ],
    ),
    "Ollama: whole calls, all of them with index 0": (
        [calls(piece(0, "c1", "add", '{"a":1}')), calls(piece(0, "c2", "add", '{"a":2}')), STOP],
        [*whole(("c1", "add", '{"a":1}'), ("c2", "add", '{"a":2}')), Finish("tool_calls")],
    ),
    "Gemini: whole calls without index and id": (
        [calls(piece(None, "", "add", '{"a":1}'), piece(None, None, "add", '{"a":2}')), STOP],
        [*whole(("call_0", "add", '{"a":1}'), ("call_1", "add", '{"a":2}')), Finish("tool_calls")],
    ),
    "Gemini: a signature goes before its call": (
        [calls(piece(0, "c1", "add", "{}") | {"extra_content": {"google": {"thought_signature": "s"}}}), STOP],
        [
            ReasoningState(packed("here", {"call_id": "c1", "extra_content": {"google": {"thought_signature": "s"}}})),
            *whole(("c1", "add", "{}")),
            Finish("tool_calls"),
        ],
    ),
    "arguments as an object": (
        [calls(piece(0, "c1", "add", {"a": 1})), STOP],
        [*whole(("c1", "add", '{"a":1}')), Finish("tool_calls")],
    ),
    "id and name in every piece": (
        [
            calls(piece(0, "c1", "add", '{"a"')),
            calls(piece(0, "c1", "add", ":1}")),
            calls(piece(0, "c1", "", "")),
            STOP,
        ],
        [ToolCall("c1", "add"), ToolArguments('{"a"'), ToolArguments(":1}"), Finish("tool_calls")],
    ),
    "a new id for every piece": (
        [calls(piece(0, "x1", "add", '{"a"')), calls(piece(0, "x2", "", ":1}")), STOP],
        [ToolCall("x1", "add"), ToolArguments('{"a"'), ToolArguments(":1}"), Finish("tool_calls")],
    ),
    "one id for two calls": (
        [calls(piece(0, "c", "add", '{"a":1}'), piece(1, "c", "sub", '{"a":2}')), STOP],
        [*whole(("c", "add", '{"a":1}'), ("call_0", "sub", '{"a":2}')), Finish("tool_calls")],
    ),
    "the name comes after the arguments began": (
        [calls(piece(0, "c1", "", '{"a"')), calls(piece(0, None, "add", ":1}")), STOP],
        [*whole(("c1", "add", '{"a":1}')), Finish("tool_calls")],
    ),
    "a call without arguments has none": (
        [calls(piece(0, "c1", "add", "")), chunk(finish="tool_calls")],
        [*whole(("c1", "add", "{}")), Finish("tool_calls")],
    ),
    "a call that never gets a name": ([calls(piece(0, "c1", "", "{}")), STOP], [Finish("stop")]),
    "function_call, as it was before tools": (
        [
            chunk({"function_call": {"name": "add", "arguments": ""}}),
            chunk({"function_call": {"arguments": '{"a":1}'}}),
            chunk(finish="function_call"),
        ],
        [*whole(("call_0", "add", '{"a":1}')), Finish("tool_calls")],
    ),
    "text in the middle of a call waits for its end": (
        [
            calls(piece(0, "c1", "add", '{"a"')),
            chunk({"content": "and"}),
            calls(piece(0, arguments=":1}")),
            chunk({"content": " so"}),
            STOP,
        ],
        [
            ToolCall("c1", "add"),
            ToolArguments('{"a"'),
            ToolArguments(":1}"),
            Text("and"),
            Text(" so"),
            Finish("tool_calls"),
        ],
    ),
    "the client's own kinds and names come back": (
        [
            calls(
                piece(0, "c1", "patch", '{"input": "a\\nb'),
                piece(1, "c2", "n__add", "{}"),
                piece(2, "c3", "shell", '{"commands":[]}'),
                piece(3, "c4", "heard_of", "{}"),
            ),
            calls(piece(0, arguments='\\u00e9"}')),
            STOP,
        ],
        [
            ToolCall("c1", "patch", "custom_tool_call"),
            ToolArguments("a\nb"),
            ToolArguments("é"),
            ToolCall("c2", "add", "function_call", "n"),
            ToolArguments("{}"),
            ToolCall("c3", "shell", "shell_call"),
            ToolArguments('{"commands":[]}'),
            *whole(("c4", "heard_of", "{}")),
            Finish("tool_calls"),
        ],
    ),
    "OpenAI: citations in annotations": (
        [
            chunk({"content": "See it."}),
            chunk(
                {
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 3},
                        }
                    ]
                }
            ),
            STOP,
        ],
        [Text("See it."), cited("u", "t", 0, 3), Finish("stop")],
    ),
    "Perplexity: citations in every chunk": (
        [
            chunk({"content": "See"}, citations=["u"], search_results=[{"url": "u", "title": "t"}]),
            chunk({"content": " it."}, citations=["u"]),
            STOP,
        ],
        [Text("See"), Text(" it."), cited("u", "", 0, 7), Finish("stop")],
    ),
    "the whole answer as one message": (
        [chunk(choices=[{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}])],
        [Text("Hi"), Finish("stop")],
    ),
}
REASONS = {
    "stop": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "length": "max_output_tokens",
    "model_length": "max_output_tokens",
    "content_filter": "content_filter",
    "SAFETY": "content_filter",
    "never heard of": "stop",
}
TRANSCRIPTS |= {
    f"ends with {word}": ([chunk({"content": "a"}), chunk(finish=word)], [Text("a"), Finish(reason)])
    for word, reason in REASONS.items()
}


def heard(datas: Sequence[bytes], profile: Profile | None = None, **fields: Any) -> list[Delta]:
    """The deltas of events by the decoder alone."""
    asked = dialect().ask(request(**fields), profile or Profile(summarised=False), "here")
    deltas: list[Delta] = []
    for data in datas:
        deltas += asked.decoder.feed(data) if data != b"[DONE]" else []
    return [*deltas, *asked.decoder.end()]


@asynccontextmanager
async def provider_of(stub: StubServer, kind: str = "chat_completions", key: str = "") -> AsyncIterator[Provider]:
    upstream = Upstream("here", UpstreamOptions(base_url=f"{stub.url}/v1"))
    provider = Provider(dialect(), upstream, ProviderOptions(kind=kind))
    await provider.start()
    try:
        yield provider
    finally:
        await provider.stop()


async def answered(play: Play, **fields: Any) -> list[Delta]:
    """The deltas of an answer that really went over HTTP."""
    async with chat_server(play) as stub, provider_of(stub) as provider, provider.stream(request(**fields)) as deltas:
        return [delta async for delta in deltas]


async def fault_of(play: Play, **fields: Any) -> HTTPFault:
    with pytest.raises(HTTPFault) as caught:
        await answered(play, **fields)
    return caught.value


@pytest.mark.parametrize("size", [0, 7, 100_000], ids=["events", "crumbs", "at once"])
@pytest.mark.parametrize("name", TRANSCRIPTS)
async def test_transcripts(name: str, size: int) -> None:
    """Each oddity, over HTTP, in chunks of any size."""
    chunks, expected = TRANSCRIPTS[name]
    steps = events(*chunks, done=True)
    sent = b": hello\n\n" + b"".join(steps)
    cut = [sent[at : at + size] for at in range(0, len(sent), size)] if size else steps
    assert await answered(Play(cut)) == expected


@given(st.sampled_from(sorted(TRANSCRIPTS)), st.lists(st.integers(1, 60), min_size=1), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_bytes_may_be_cut_anywhere(name: str, sizes: list[int], line_end: str) -> None:
    """However the bytes are cut, the deltas are the same."""
    chunks, expected = TRANSCRIPTS[name]
    sent = b"".join(events(*chunks, done=True)).replace(b"\n", line_end.encode())
    reader, datas, at = EventReader(), [], 0
    for number in range(len(sent)):
        size = sizes[number % len(sizes)]
        datas += reader.feed(sent[at : at + size])
        at += size
        if at >= len(sent):
            break
    assert heard([*datas, *reader.end()]) == expected


async def test_the_end_of_the_stream_is_enough_after_a_reason() -> None:
    assert await answered(stream(chunk({"content": "a"}), STOP, done=False)) == [Text("a"), Finish("stop")]


@pytest.mark.parametrize("done", [True, False])
async def test_an_answer_without_a_reason_was_broken_off(done: bool) -> None:
    fault = await fault_of(stream(chunk({"content": "a"}), calls(piece(0, "c", "add", "{")), done=done))
    assert (type(fault), fault.code) == (ModelFailed, "upstream_incomplete")


@given(st.text(alphabet="<think>/ a\n", max_size=40), st.integers(1, 9))
def test_think_tags_do_not_depend_on_cuts(text: str, size: int) -> None:
    """Nothing is lost but the tags and the blank lines around them, however the text is cut."""

    def told(pieces: Sequence[str]) -> list[str]:
        tags = ThinkTags()
        out = [each for given in pieces for each in tags.feed(given)] + tags.end()
        return ["".join(part for is_reasoning, part in out if is_reasoning is kind) for kind in (True, False)]

    assert told([text[at : at + size] for at in range(0, len(text), size)]) == told([text] if text else [])


def test_think_tags_in_the_text() -> None:
    pieces = ["\n<th", "ink>\nh", "m</thi", "nk>", "\n\n", "2 <think>"]
    datas = [json.dumps(chunk({"content": text})).encode() for text in pieces]
    profile = Profile(summarised=False, think_tags=True)
    assert heard(datas, profile) == [Reasoning("h"), Reasoning("m"), Text("2 <think>")]
    assert heard([json.dumps(chunk({"content": "<thi"})).encode()], profile) == [Text("<thi")]


def test_reasoning_that_is_a_summary_is_told_as_one() -> None:
    datas = [json.dumps(chunk({"reasoning_content": "hm"})).encode()]
    assert heard(datas, profile_of("chat_completions", "grok-4")) == [ReasoningSummary("hm")]


def test_the_answer_of_a_function_is_text() -> None:
    """Where a schema is held to by a function, the client sees an answer and no call."""
    profile = Profile(json_schema="tool")
    datas = [
        json.dumps(each).encode()
        for each in (
            calls(piece(0, "c1", "shape", '{"a"')),
            calls(piece(0, arguments=":1}")),
            chunk(finish="tool_calls"),
        )
    ]
    assert heard(datas, profile, text_format=FORMAT) == [Text('{"a"'), Text(":1}"), Finish("stop")]


def test_logprobs_and_citations_of_no_known_shape_are_left_out() -> None:
    """They stand beside the answer: an answer is not given up for them."""
    said = chunk({"content": "hi"}, citations=[5], search_results=[{"url": {}}, 7])
    said["choices"][0]["logprobs"] = {"content": 5}
    more = chunk({"content": "!"})
    more["choices"][0]["logprobs"] = {"content": [{"token": "!", "logprob": -1, "bytes": [33], "top_logprobs": 5}]}
    token = {"token": "!", "logprob": -1, "bytes": [33], "top_logprobs": []}
    data = [json.dumps(each).encode() for each in (said, more)]
    assert heard(data, Profile(logprobs=True), top_logprobs=1) == [Text("hi"), Text("!", (token,))]


def test_logprobs_in_the_wires_shape() -> None:
    entry = {"token": "é", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "e", "logprob": -1}]}
    said = chunk({"content": "é"})
    said["choices"][0]["logprobs"] = {"content": [entry]}
    wire = {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
    }
    data = json.dumps(said).encode()
    assert heard([data], Profile(logprobs=True), top_logprobs=1) == [Text("é", (wire,))]
    assert heard([data]) == [Text("é")]


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ({"error": {"message": "busy", "code": 429}}, TooManyRequests, "rate_limit_exceeded"),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, Unavailable, None),
        ({"error": {"message": "no credits", "code": 402}}, TooManyRequests, "insufficient_quota"),
        ({"error": "it broke"}, ModelFailed, "upstream_failed"),
        ({"error": {"message": "bad", "code": 400}}, InvalidRequest, "upstream_refused"),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, InvalidRequest, None),
        (
            {"error": {"message": "Trying to keep the first 9000 tokens when context the overflows."}},
            InvalidRequest,
            "context_length_exceeded",
        ),
        (chunk(choices=[{"index": 0, "error": {"message": "down", "code": 503}}]), Unavailable, None),
        (chunk(finish="error"), ModelFailed, "upstream_failed"),
        (chunk(finish="insufficient_system_resource"), Unavailable, None),
        ({"type": "message_start", "message": {"id": "msg"}}, ModelFailed, "upstream_garbage"),
        ({"choices": "none"}, ModelFailed, "upstream_garbage"),
        ([1], ModelFailed, "upstream_garbage"),
    ],
)
async def test_faults_in_a_stream(said: Any, kind: type[HTTPFault], code: str | None) -> None:
    fault = await fault_of(stream(chunk({"content": "a"}), said))
    assert type(fault) is kind
    assert code is None or fault.code == code


async def test_what_is_no_json_is_no_chunk_but_empty_events_are_nothing() -> None:
    said = events(chunk({"content": "a"}), STOP, done=True)
    assert await answered(Play([b"data: \n\n", b"data: {}\n\n", *said])) == [Text("a"), Finish("stop")]
    fault = await fault_of(Play([b"data: <html>\n\n"]))
    assert fault.code == "upstream_garbage"


CONTEXT = "context_length_exceeded"
ERRORS: dict[str, tuple[int, Any, type[HTTPFault], str | None]] = {
    "OpenAI": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 9 tokens.",
                "code": CONTEXT,
                "param": "messages",
            }
        },
        InvalidRequest,
        CONTEXT,
    ),
    "vLLM": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 9 tokens.",
                "type": "BadRequestError",
                "code": 400,
            }
        },
        InvalidRequest,
        CONTEXT,
    ),
    "vLLM, older": (
        400,
        {"object": "error", "message": "The decoder prompt (length 9) is longer than the maximum model length of 8."},
        InvalidRequest,
        CONTEXT,
    ),
    "SGLang": (
        400,
        {"object": "error", "message": "The input (9 tokens) is longer than the model's context length (8 tokens)."},
        InvalidRequest,
        CONTEXT,
    ),
    "llama-server": (
        400,
        {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error", "n_prompt_tokens": 9}},
        InvalidRequest,
        CONTEXT,
    ),
    "llama-server, older": (
        500,
        {"error": {"code": 500, "message": "the request exceeds the available context size.", "type": "server_error"}},
        InvalidRequest,
        CONTEXT,
    ),
    "LM Studio": (
        400,
        {"error": "Trying to keep the first 9 tokens when context the overflows."},
        InvalidRequest,
        CONTEXT,
    ),
    "Ollama": (400, {"error": {"message": "prompt too long; exceeded max context length"}}, InvalidRequest, CONTEXT),
    "Gemini": (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (9) exceeds the maximum number of tokens allowed 8.",
                }
            }
        ],
        InvalidRequest,
        CONTEXT,
    ),
    "xAI": (400, {"code": "invalid", "error": "This model's maximum prompt length is 8."}, InvalidRequest, CONTEXT),
    "Mistral": (
        400,
        {"object": "error", "message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"},
        InvalidRequest,
        CONTEXT,
    ),
    "Moonshot": (
        400,
        {"error": {"message": "Your request exceeded model token limit: 8", "type": "invalid_request_error"}},
        InvalidRequest,
        CONTEXT,
    ),
    "no money left": (402, {"error": {"message": "Insufficient Balance"}}, TooManyRequests, "insufficient_quota"),
    "no quota": (429, {"error": {"message": "m", "code": "insufficient_quota"}}, TooManyRequests, "insufficient_quota"),
    "too many": (429, {"error": {"message": "slow down", "type": "requests"}}, TooManyRequests, "rate_limit_exceeded"),
    "Gemini: a bad key is a 400": (
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
        ModelFailed,
        "upstream_unauthorized",
    ),
    "DeepSeek: no such model is a 400": (400, {"error": {"message": "Model Not Exist"}}, NotFound, "model_not_found"),
    "Ollama: no such model": (404, {"error": {"message": "model 'm' not found"}}, NotFound, "model_not_found"),
    "plain text": (500, "down", ModelFailed, "upstream_failed"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_errors_of_servers(name: str) -> None:
    status, body, kind, code = ERRORS[name]
    fault = await fault_of(as_json(body, status))
    assert (type(fault), fault.code) == (kind, code)
    if code == CONTEXT:
        assert fault.param == "input"


@pytest.mark.parametrize(
    ("status", "body", "kind", "says_address"),
    [
        (302, {}, ModelFailed, True),
        (404, {"detail": "Not Found"}, NotFound, True),
        (404, {"error": {"message": "model 'm' not found"}}, NotFound, False),
    ],
)
async def test_an_address_that_may_be_wrong_is_named(
    status: int, body: Any, kind: type[HTTPFault], says_address: bool
) -> None:
    """A base URL without its `/v1` is a frequent mistake, and looks like a model that is not there."""
    fault = await fault_of(as_json(body, status))
    assert isinstance(fault, kind)
    assert ("base_url" in fault.message) == says_address


LISTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "OpenAI": ({"id": "m", "created": 5, "owned_by": "o"}, {}),
    "vLLM": ({"id": "m", "max_model_len": 8192}, {"context_window": 8192}),
    "llama-server": ({"id": "m", "meta": {"n_ctx_train": 2048}}, {"context_window": 2048}),
    "Groq": (
        {"id": "m", "context_window": 131072, "max_completion_tokens": 9},
        {"context_window": 131072, "max_output_tokens": 9},
    ),
    "LM Studio": ({"id": "m", "max_context_length": 9000, "loaded_context_length": 4096}, {"context_window": 4096}),
    "Mistral": (
        {"id": "m", "max_context_length": 32768, "capabilities": {"vision": True, "function_calling": False}},
        {"context_window": 32768, "images": True, "tools": False},
    ),
    "OpenRouter": (
        {
            "id": "m",
            "context_length": 200000,
            "architecture": {"input_modalities": ["text", "image"]},
            "supported_parameters": ["tools", "reasoning"],
            "top_provider": {"max_completion_tokens": 64000},
        },
        {
            "context_window": 200000,
            "max_output_tokens": 64000,
            "images": True,
            "tools": True,
            "reasoning": True,
            "logprobs": False,
        },
    ),
    "nonsense": ({"id": "m", "context_length": "long", "capabilities": [], "created": None}, {}),
}


@pytest.mark.parametrize("name", LISTINGS)
async def test_listings(name: str) -> None:
    """What servers tell of their models is laid over what is known of the family."""
    model, facts = LISTINGS[name]
    play = as_json({"object": "list", "data": [model, {"id": "e", "type": "embedding"}, "odd"]})
    async with chat_server(play) as stub, provider_of(stub) as provider:
        (told,) = await provider.models()
    assert told.id == "m"
    for field, value in facts.items():
        assert getattr(told.capabilities, field) == value


def test_a_bare_list_is_a_listing_and_other_things_are_none() -> None:
    (told,) = read_listing(b'[{"id": "m", "context_length": 5, "organization": "o"}]')
    assert (told.owned_by, told.facts) == ("o", {"context_window": 5})
    with pytest.raises(Unintelligible):
        read_listing(b'{"models": {}}')


async def test_tokens_are_estimated() -> None:
    async with chat_server(stream(STOP)) as stub, provider_of(stub) as provider:
        assert await provider.count_tokens(request()) > 0


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_the_writer_takes_whatever_is_heard(name: str) -> None:
    """No arguments without their call: every call that was told becomes an item."""
    chunks, _ = TRANSCRIPTS[name]
    deltas = heard([json.dumps(each).encode() for each in chunks])
    writer = ResponseWriter(counted(), lambda _: None)
    writer.begin(begun())
    for delta in deltas[:-1]:
        writer.write(delta)
    writer.close()
    made = [item for item in map(as_object, writer.response.output) if "call_id" in item]
    assert len(made) == sum(isinstance(delta, ToolCall) for delta in deltas)
