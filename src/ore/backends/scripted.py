"""A backend that says what it is told: for tests, demos and benchmarks of everything but a model.

A script is a list of steps: deltas to yield, seconds to wait, exceptions to raise. It judges nothing and pretends
nothing; whoever asks for a scripted model gets its script.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from ore.backends.base import (
    Capabilities,
    Embedded,
    EmbeddingRequest,
    Health,
    Load,
    Model,
    ModelRequest,
    Sampling,
)
from ore.backends.embeddings import makes_no_embeddings
from ore.core.deltas import Delta, Finish, Text, Usage

Step = Delta | float | Exception
Script = Sequence[Step] | Callable[[ModelRequest], Sequence[Step]]


class ScriptedBackend:
    """Plays one script per model, the same each time; `requests` are those it was asked.

    An exception that stands first is raised on entering; a script without a `Finish` ends without one, which is a
    fault that callers have to survive.
    """

    def __init__(self, scripts: dict[str, Script]) -> None:
        self._scripts = scripts
        self.capabilities = Capabilities()
        self.defaults = Sampling()
        self.slots: int | None = None
        """How many streams it says that it can hold; nothing keeps more from being opened."""
        self.requests: list[ModelRequest] = []
        self.vectors: Callable[[EmbeddingRequest], Sequence[Sequence[float]]] | None = None
        """What it makes of texts, where it is to make something of them; it may raise."""
        self.active = 0
        """Streams that are open right now: the slots of a backend that has no engine."""

    async def start(self) -> None:
        """Nothing to bring up."""

    async def stop(self) -> None:
        """Nothing to free."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        self.requests.append(request)
        script = self._scripts[request.model]
        steps = list(script(request) if callable(script) else script)
        if steps and isinstance(steps[0], Exception):
            raise steps[0]
        self.active += 1
        playing = self._play(steps)
        try:
            yield playing
        finally:
            await playing.aclose()
            self.active -= 1

    async def _play(self, steps: Sequence[Step]) -> AsyncGenerator[Delta]:
        for step in steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float | int):
                await anyio.sleep(step)
            else:
                yield step

    async def count_tokens(self, request: ModelRequest) -> int:
        """One token per item: scripted models read nothing."""
        return len(request.items)

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """As many tokens as inputs."""
        if self.vectors is None:
            raise makes_no_embeddings(request.model)
        return Embedded(vectors=self.vectors(request), input_tokens=len(request.inputs))

    async def models(self) -> list[Model]:
        return [self._model(name) for name in self._scripts]

    def model(self, name: str) -> Model | None:
        return self._model(name) if name in self._scripts else None

    def load(self) -> Load:
        waiting = 0 if self.slots is None else max(0, self.active - self.slots)
        return Load(running=self.active - waiting, waiting=waiting, slots=self.slots)

    def _model(self, name: str) -> Model:
        return Model(id=name, owned_by="scripted", capabilities=self.capabilities, defaults=self.defaults)

    async def health(self) -> Health:
        return Health(ok=True, detail={"active": self.active})


def says(text: str, *, pieces: int = 1) -> list[Step]:
    """A script that answers with `text` in about so many pieces."""
    size = max(1, -(-len(text) // pieces))
    steps: list[Step] = [Text(text[at : at + size]) for at in range(0, len(text), size)]
    return [*steps, Finish("stop", Usage(input_tokens=1, output_tokens=len(steps)))]
