"""The command `ore`, all of it but for the models that it serves: those do what their names promise, without an engine.

    python scripted_serve.py serve ANY.gguf --port 0 --data-dir FOLDER

A program for tests, not a test. Its models:

    quick    a short answer at once
    steady   a piece of text each 20 ms for three seconds
    slow     the same for a minute
    mute     begins, then says nothing for a minute
    late     does not even begin for a minute
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

import ore.app
from ore.backends.base import Backend, ModelRequest
from ore.backends.scripted import ScriptedBackend, Step, says
from ore.cli import main
from ore.core.deltas import Delta, Finish, Text
from ore.settings import Settings

MINUTE = 60.0
PAUSE = 0.02


def talks(seconds: float) -> list[Step]:
    pieces: list[Step] = [step for n in range(round(seconds / PAUSE)) for step in (Text(f"{n} "), PAUSE)]
    return [*pieces, Finish("stop")]


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
    }
    return {"scripted": Late(scripts)}


if __name__ == "__main__":
    ore.app.make_backends = backends
    main()
