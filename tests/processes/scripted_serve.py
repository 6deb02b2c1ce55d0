"""The command `ore`, all of it but for the models that it serves: those do what their names promise, without an engine.

    python scripted_serve.py serve ANY.gguf --port 0 --data-dir FOLDER

A program for tests, not a test. Its models:

    quick    a short answer at once
    steady   a piece of text each 20 ms for three seconds
    slow     the same for a minute
    mute     begins, then says nothing for a minute
    late     does not even begin for a minute
    agent    calls two tools that run here, one after the other, and answers from what it heard

The tools of `agent` write each call into the file that the variable SCRIPTED_JOURNAL names, when they begin and when
they end: `test:again` may be repeated when its process dies, `test:once` may not.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

import ore.app
from ore.backends.base import Backend, ModelRequest
from ore.backends.scripted import ScriptedBackend, Step, says
from ore.cli import main
from ore.core.deltas import Delta, Finish, Reasoning, Text, ToolArguments, ToolCall, Usage
from ore.core.progress import PendingCall
from ore.protocol.decoding import JsonObject
from ore.settings import Settings
from ore.tools.base import Tool

MINUTE = 60.0
PAUSE = 0.02
BREATH = 0.004


def talks(seconds: float) -> list[Step]:
    pieces: list[Step] = [step for n in range(round(seconds / PAUSE)) for step in (Text(f"{n} "), PAUSE)]
    return [*pieces, Finish("stop")]


def agent(request: ModelRequest) -> Sequence[Step]:
    """Thinks, talks and calls; then calls again; then says what it heard."""
    heard = [item["output"] for item in request.items if item["type"] == "function_call_output"]
    if not heard:
        said: list[Delta] = [
            *map(Reasoning, ("Which ", "tool ", "first?")),
            *map(Text, ("One ", "moment, ", "please.")),
        ]
        said += [ToolCall("call_again", "again"), ToolArguments('{"n":'), ToolArguments("1}")]
    elif len(heard) == 1:
        said = [*map(Text, ("And ", "the ", "other ", "one."))]
        said += [ToolCall("call_once", "once"), ToolArguments('{"n":'), ToolArguments("2}")]
    else:
        said = [Text(f"{word} ") for one in heard for word in one.split()]
    ended = Finish("tool_calls" if len(heard) < 2 else "stop", Usage(input_tokens=len(request.items), output_tokens=1))
    return [step for delta in said for step in (delta, BREATH)] + [ended]


class Journal:
    """A tool that writes down what it does, so that a test can count it."""

    def __init__(self, name: str, *, repeatable: bool) -> None:
        self.type = f"test:{name}"
        self.repeatable = repeatable
        self._name = name

    def definition(self, asked: JsonObject) -> JsonObject:
        return {"type": "function", "name": self._name, "description": None, "parameters": None, "strict": None}

    async def run(self, call: PendingCall) -> str:
        self._write(f"{call.call_id} begins")
        await anyio.sleep(PAUSE)
        self._write(f"{call.call_id} ends")
        return f"{self._name} heard {call.arguments}"

    def _write(self, line: str) -> None:
        with open(os.environ["SCRIPTED_JOURNAL"], "a") as journal:  # noqa: PTH123
            journal.write(line + "\n")


def tools(settings: Settings) -> dict[str, Tool]:
    both = (Journal("again", repeatable=True), Journal("once", repeatable=False))
    return {tool.type: tool for tool in both}


class Late(ScriptedBackend):
    """Scripted, but the model `late` keeps its caller waiting before it takes the request."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        if request.model == "late":
            await anyio.sleep(MINUTE)
        async with super().stream(request) as deltas:
            yield deltas


async def backends(settings: Settings, progress: object) -> dict[str, Backend]:
    scripts = {
        "quick": says("Hello there.", pieces=3),
        "steady": talks(3.0),
        "slow": talks(MINUTE),
        "mute": [MINUTE, *says("At last.")],
        "late": says("At last."),
        "agent": agent,
    }
    return {"scripted": Late(scripts)}


if __name__ == "__main__":
    ore.app.make_backends = backends
    ore.app.make_tools = tools
    main()
