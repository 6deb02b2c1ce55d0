"""Thirty-six conversations that every dialect has to carry, in ORE's own words: what is asked, and what a model says.

A conversation is a list of turns; `says` are the deltas that reach ORE when nothing is lost on the way. Not a test.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ore.core import deltas as d
from ore.core.deltas import Delta, Finish, Usage

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
PDF = "data:application/pdf;base64,JVBERi0xLjQKJUVPRgo="
TEXT_FILE = "data:text/plain;base64,VGhlIGNvZGUgaXMgNzMu"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather.",
    "parameters": SCHEMA,
    "strict": True,
}
TIME = {"type": "function", "name": "get_time", "parameters": None}
POEM = {"type": "custom", "name": "write_poem", "description": "Free text.", "format": {"type": "text"}}
WINDOWS = {"type": "namespace", "name": "windows", "description": "Windows.", "tools": [{**TIME, "name": "close"}]}
FORMAT = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
CITED = {"type": "url_citation", "url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 5}
LOGPROB = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}

STOP = Finish("stop", Usage(input_tokens=9, output_tokens=3))
CALLS = Finish("tool_calls", Usage(input_tokens=9, output_tokens=3))


class Turn(Struct, frozen=True):
    """Fields of a create request, and what the model says to it."""

    asked: dict[str, Any]
    says: Sequence[Delta]


class Conversation(Struct, frozen=True, kw_only=True):
    """`stored`: turns follow by `previous_response_id`; else the client sends the whole history each time.

    `needs` are words for what not every dialect has: `logprobs`, `refusal`, `citations`, `files`.
    """

    turns: Sequence[Turn]
    stored: bool = True
    needs: tuple[str, ...] = ()


def user(*content: Any) -> dict[str, Any]:
    parts = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in content]
    return {"type": "message", "role": "user", "content": parts}


def says(*texts: str) -> list[Delta]:
    return [*map(d.Text, texts), STOP]


def call(name: str, arguments: str, call_id: str = "call_1", **more: Any) -> list[Delta]:
    half = len(arguments) // 2
    return [d.ToolCall(call_id, name, **more), d.ToolArguments(arguments[:half]), d.ToolArguments(arguments[half:])]


def output(text: Any, call_id: str = "call_1", kind: str = "function_call_output") -> dict[str, Any]:
    return {"type": kind, "call_id": call_id, "output": text}


def thinks(text: str, state: str = "s1") -> list[Delta]:
    """Reasoning, and what its provider wants back with it."""
    return [d.Reasoning(text[:3]), d.Reasoning(text[3:]), d.ReasoningState(state)]


REASONING = {"effort": "low", "summary": "auto"}
OSLO = '{"city":"Oslo"}'
ASK = {"input": "How is the weather?", "tools": [WEATHER]}


def _loop(steps: int) -> list[Turn]:
    """A model that calls its tool again and again before it answers."""
    turns = [Turn(ASK, [*call("get_weather", OSLO, "call_0"), CALLS])]
    for step in range(1, steps):
        more = [*call("get_weather", OSLO, f"call_{step}"), CALLS]
        turns.append(Turn({"input": [output(f"{step} degrees", f"call_{step - 1}")], "tools": [WEATHER]}, more))
    last = Turn({"input": [output("Sun", f"call_{steps - 1}")], "tools": [WEATHER]}, says("Sunny."))
    return [*turns, last]


def one(says: Sequence[Delta], *, needs: tuple[str, ...] = (), **asked: Any) -> Conversation:
    return Conversation(turns=[Turn({"input": "Hi", **asked}, says)], needs=needs)


CONVERSATIONS: dict[str, Conversation] = {
    "one word": one(says("Hello.")),
    "many pieces": one(says(*"one piece after the other, each a letter")),
    "other scripts": one(says("Grüße, 世界! ", "🎉👩‍👩‍👧 ", "a\u0301"), input="Naïve? 日本語 🙂"),
    "line breaks and quotes": one(says('a\n\nb\t"c" \\ d\r\n', "data: [DONE]\n\n"), input='"quoted"\n\n\\'),
    "instructions": one(says("Ahoy."), instructions="Speak like a pirate."),
    "a developer's message": one(
        says("Yes."), input=[{"type": "message", "role": "developer", "content": "Be brief."}, user("Are you there?")]
    ),
    "an easy message without a type": one(says("Hi."), input=[{"role": "user", "content": "Hi"}]),
    "three turns, stored": Conversation(
        turns=[
            Turn({"input": "My name is Ada."}, says("Hello Ada.")),
            Turn({"input": "What is my name?"}, says("Ada", ".")),
            Turn({"input": "Spell it."}, says("A-d-a.")),
        ]
    ),
    "three turns, stateless": Conversation(
        turns=[
            Turn({"input": "My name is Ada."}, says("Hello Ada.")),
            Turn({"input": "What is my name?"}, says("Ada", ".")),
            Turn({"input": "Spell it."}, says("A-d-a.")),
        ],
        stored=False,
    ),
    "two users in a row": one(says("Both."), input=[user("First."), user("Second.")]),
    "an image": one(says("A dot."), input=[user("What is it?", {"type": "input_image", "image_url": PNG})]),
    "an image by its address": one(
        says("A cat."), input=[user({"type": "input_image", "image_url": "https://a.example/cat.png", "detail": "low"})]
    ),
    "a text file": one(
        says("73."), input=[user("Code?", {"type": "input_file", "filename": "a.txt", "file_data": TEXT_FILE})]
    ),
    "a PDF": one(
        says("Empty."),
        input=[user("What?", {"type": "input_file", "filename": "a.pdf", "file_data": PDF})],
        needs=("files",),
    ),
    "a call and its output": Conversation(
        turns=[
            Turn(ASK, [*call("get_weather", OSLO), CALLS]),
            Turn({"input": [output("Rain")], "tools": [WEATHER]}, says("It rains.")),
        ]
    ),
    "a call, stateless": Conversation(
        turns=[
            Turn(ASK, [*call("get_weather", OSLO), CALLS]),
            Turn({"input": [output("Rain")], "tools": [WEATHER]}, says("It rains.")),
        ],
        stored=False,
    ),
    "a call without arguments": one([*call("get_time", "{}"), CALLS], tools=[TIME]),
    "calls beside each other": Conversation(
        turns=[
            Turn(
                ASK,
                [*call("get_weather", OSLO), *call("get_weather", '{"city":"Rome"}', "call_2"), CALLS],
            ),
            Turn({"input": [output("Rain"), output("Sun", "call_2")], "tools": [WEATHER]}, says("Rain, and sun.")),
        ]
    ),
    "a call after words": one([d.Text("Let me see."), *call("get_weather", OSLO), CALLS], tools=[WEATHER]),
    "five calls in a row": Conversation(turns=_loop(5)),
    "an output with an image": Conversation(
        turns=[
            Turn(ASK, [*call("get_weather", OSLO), CALLS]),
            Turn(
                {
                    "input": [
                        output([{"type": "input_text", "text": "See:"}, {"type": "input_image", "image_url": PNG}])
                    ],
                    "tools": [WEATHER],
                },
                says("Clouds."),
            ),
        ]
    ),
    "a custom tool": Conversation(
        turns=[
            Turn(
                {"input": "Write.", "tools": [POEM]},
                [*call("write_poem", 'O "sea"\n!', kind="custom_tool_call"), CALLS],
            ),
            Turn({"input": [output("Fine", kind="custom_tool_call_output")], "tools": [POEM]}, says("Done.")),
        ]
    ),
    "a tool of a namespace": Conversation(
        turns=[
            Turn({"input": "Close.", "tools": [WINDOWS]}, [*call("close", "{}", namespace="windows"), CALLS]),
            Turn({"input": [output("Closed")], "tools": [WINDOWS]}, says("Closed.")),
        ]
    ),
    "a tool that must be called": one(
        [*call("get_weather", OSLO), CALLS], tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False
    ),
    "a tool that is named": one(
        [*call("get_weather", OSLO), CALLS],
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "name": "get_weather"},
    ),
    "no tool, though there are some": one(says("I do not know."), tools=[WEATHER], tool_choice="none"),
    "JSON by a schema": one([d.Text('{"city":'), d.Text('"Oslo"}'), STOP], text=FORMAT),
    "thought before words": one([*thinks("Let me think."), d.Text("42."), STOP], reasoning=REASONING),
    "thought and calls, stored": Conversation(
        turns=[
            Turn({**ASK, "reasoning": REASONING}, [*thinks("Look it up."), *call("get_weather", OSLO), CALLS]),
            Turn(
                {"input": [output("Rain")], "tools": [WEATHER], "reasoning": REASONING},
                [*thinks("Now I know.", "s2"), d.Text("It rains."), STOP],
            ),
            Turn({"input": "Thanks.", "tools": [WEATHER], "reasoning": REASONING}, says("You are welcome.")),
        ]
    ),
    "thought and calls, stateless": Conversation(
        turns=[
            Turn({**ASK, "reasoning": REASONING}, [*thinks("Look it up."), *call("get_weather", OSLO), CALLS]),
            Turn(
                {"input": [output("Rain")], "tools": [WEATHER], "reasoning": REASONING},
                [*thinks("Now I know.", "s2"), d.Text("It rains."), STOP],
            ),
        ],
        stored=False,
    ),
    "cut off": one([d.Text("And then"), Finish("max_output_tokens", Usage(input_tokens=9, output_tokens=16))]),
    "filtered": one([d.Text("I"), Finish("content_filter", Usage(input_tokens=9, output_tokens=1))]),
    "refused": one([d.Refusal("I can"), d.Refusal("not."), STOP], needs=("refusal",)),
    "cited": one([d.Text("Water"), d.Text(" is wet."), d.Annotation(CITED), STOP], needs=("citations",)),
    "logprobs": one(
        [d.Text("Hi", (LOGPROB,)), STOP], include=["message.output_text.logprobs"], top_logprobs=0, needs=("logprobs",)
    ),
    "cached and thought tokens": one(
        [
            d.Text("Hi."),
            Finish("stop", Usage(input_tokens=1000, output_tokens=50, cached_tokens=900, reasoning_tokens=40)),
        ]
    ),
}
