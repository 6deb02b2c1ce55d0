"""A model on this machine that embeds, as a `Backend`.

Puts the parts together: bounds, admission, the engine, shortened vectors. It answers nothing, and refuses to cut an
input that is too long.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
import anyio.to_thread

from ore.backends.admission import Admission
from ore.backends.base import Capabilities, Embedded, EmbeddingRequest, Health, Load, Model, ModelRequest
from ore.backends.embeddings import check_dimensions, input_too_long, only_embeds, shortened
from ore.backends.local.engine import Embedder
from ore.backends.local.local_model import LONGEST_TOKEN, RESTART_SECONDS
from ore.backends.local.memory import resident_bytes
from ore.backends.local.options import EngineOptions
from ore.core.deltas import Delta
from ore.errors import ModelFailed, Unavailable

TOGETHER: Final = 32
"""Inputs that the engine is given at once: between two such portions it can be stopped, and others have their turn."""

MANY_NUMBERS: Final = 50_000
"""Numbers of vectors whose shortening takes so long that others should have their turn meanwhile."""

Input = str | tuple[int, ...]


class EmbeddingModel:
    """A `Backend` that serves one model under `name`. `clock` is in seconds, for estimates only."""

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        engine: Embedder,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.options = options
        self.engine = engine
        self._admission = Admission(options.slots, options.queue, clock)
        self._context = self._width = self._created = 0

    async def start(self) -> None:
        """Load the model, and see how long its vectors are. Raises `StartupError`, with the engine's reason."""
        try:
            await self.engine.start()
            self._created = int((await anyio.Path(self.options.path).stat()).st_mtime)
            self._context = (await self.engine.facts()).context
            self._width = len((await self.engine.embed(["a"])).vectors[0])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Unload it. Idempotent."""
        self._width = 0
        with anyio.CancelScope(shield=True):
            await self.engine.stop()

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """See `Backend.embed`. A request has one slot, however many inputs it brings."""
        self._check_up()
        check_dimensions(request.dimensions, self._width, self.name)
        self._admission.check()
        for at, given in enumerate(request.inputs):
            await self._check_fits(at, given)
        ticket = self._admission.enter(request.owner)
        try:
            await ticket.wait()
            made = [await self._portion(portion) for portion in _portions(request.inputs)]
        finally:
            ticket.release()
        vectors = [vector for portion in made for vector in portion.vectors]
        if request.dimensions is not None and request.dimensions < self._width:
            vectors = await _all_shortened(vectors, request.dimensions)
        return Embedded(vectors=vectors, input_tokens=sum(portion.input_tokens for portion in made))

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Raises the 400 for a model that only embeds."""
        raise only_embeds(request.model)

    async def count_tokens(self, request: ModelRequest) -> int:
        """Raises the 400 for a model that only embeds."""
        raise only_embeds(request.model)

    async def models(self) -> list[Model]:
        """The one model. Before `start` the length of its vectors is not known."""
        return [self._model()]

    def model(self, name: str) -> Model | None:
        return self._model() if name == self.name else None

    def memory(self) -> int | None:
        """Bytes of memory that its engine takes now."""
        return resident_bytes(self.engine.pid)

    def load(self) -> Load:
        return self._admission.load()

    async def health(self) -> Health:
        """Whether the engine is up, and how busy it is. Asks nobody."""
        load = self.load()
        detail = {"running": load.running, "waiting": load.waiting, "slots": self._admission.slots}
        return Health(ok=self.engine.up and self._width > 0, detail={**detail, "restarts": self.engine.restarts})

    def _model(self) -> Model:
        able = Capabilities(
            responses=False,
            embeddings=self._width,
            context_window=self._context or None,
            tools=False,
            tool_types=(),
            json_schema=False,
        )
        return Model(id=self.name, created=self._created, capabilities=able)

    def _check_up(self) -> None:
        if not (self._width and self.engine.up):
            raise Unavailable(f"The model {self.name!r} is being restarted. Try again in a few seconds.", retry_after=3)

    async def _check_fits(self, at: int, given: Input) -> None:
        """Raise the 400 for an input that is too long. A token is a byte at least."""
        tokens = len(given)
        if isinstance(given, str):
            size = len(given.encode())
            if size + 2 <= self._context:
                return
            least = size // LONGEST_TOKEN
            tokens = least if least > self._context else len(await self.engine.tokenize(given))
        if tokens > self._context:
            raise input_too_long(at, tokens, self._context)

    async def _portion(self, inputs: Sequence[Input]) -> Embedded:
        """One that was only asked for when the engine died is asked for again when it is back."""
        try:
            return await self.engine.embed(inputs)
        except ModelFailed:
            if not await self.engine.back(RESTART_SECONDS):
                raise
            return await self.engine.embed(inputs)


def _portions(inputs: Sequence[Input]) -> list[Sequence[Input]]:
    return [inputs[at : at + TOGETHER] for at in range(0, len(inputs), TOGETHER)]


async def _all_shortened(vectors: Sequence[Sequence[float]], dimensions: int) -> list[Sequence[float]]:
    def work() -> list[Sequence[float]]:
        return [shortened(vector, dimensions) for vector in vectors]

    return await anyio.to_thread.run_sync(work) if len(vectors) * dimensions > MANY_NUMBERS else work()
