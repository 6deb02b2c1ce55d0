"""One classical model, as a `Backend`: it reads the rows of a request, predicts them, and says them as JSON.

The first rows are predicted on entering, so that values which the model cannot work with are an HTTP 400. It refuses
what a model that only predicts cannot do: tools, images, logprobs. How to sample means nothing to it.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct, structs

from ore.backends.admission import Admission
from ore.backends.base import (
    BYTES_PER_TOKEN,
    Capabilities,
    Embedded,
    EmbeddingRequest,
    Health,
    JsonObject,
    Load,
    Model,
    ModelRequest,
)
from ore.backends.classical.batching import Batching
from ore.backends.classical.forms import Form, form_of
from ore.backends.classical.predictor import Predictor
from ore.backends.classical.published import input_schema, output_schema
from ore.backends.classical.rows import Rows, read_rows
from ore.backends.embeddings import makes_no_embeddings
from ore.core.deltas import Delta, Finish, Text, Usage
from ore.core.tool_choice import mode
from ore.errors import InvalidRequest, Unavailable

CHUNK: Final = 512
"""Rows of one request that are predicted together: between two chunks, others have their turn."""

BREATH: Final = 64
"""Rows that are said one after the other before the event loop has its turn."""

CAPABILITIES: Final = Capabilities(tools=False, tool_types=(), json_schema=True, files=True)

LOADERS: Final[Mapping[str, tuple[str, str]]] = {
    ".skops": ("ore.backends.classical.skops_file", "load_skops"),
    ".onnx": ("ore.backends.classical.onnx_file", "load_onnx"),
}
"""Who reads which files, by module and function: imported when such a file is loaded."""


class ClassicalOptions(Struct, frozen=True, kw_only=True):
    """`queue` requests may be open at the same time; more are a 429. A request has at most `max_rows` rows."""

    path: Path
    queue: int = 2048
    max_rows: int = 100_000


class Classical:
    """A `Backend` that serves one model under `name`. `clock` is in seconds, for estimates only."""

    def __init__(self, name: str, options: ClassicalOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.options = options
        self._admission = Admission(options.queue, 0, clock)
        self._predictor: Predictor | None = None
        self._batching: Batching | None = None
        self._model = Model(id=name, capabilities=CAPABILITIES)
        """Before `start`, its schemas are not known."""

    async def start(self) -> None:
        """Load the file. Raises `StartupError`."""
        if self._predictor is not None:
            return
        path = self.options.path
        module, function = LOADERS[path.suffix.lower()]
        load = getattr(import_module(module), function)
        created = int((await anyio.Path(path).stat()).st_mtime)
        self._predictor = predictor = await anyio.to_thread.run_sync(load, self.name, path)
        self._model = structs.replace(
            self._model,
            created=created,
            input_schema=input_schema(predictor),
            output_schema=output_schema(predictor),
        )
        self._batching = Batching(self.name, predictor.predict)

    async def stop(self) -> None:
        """Idempotent."""
        batching, self._batching, self._predictor = self._batching, None, None
        if batching is not None:
            batching.stop()

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `Backend.stream`."""
        predictor, batching = self._running()
        _refuse_impossible(request)
        ticket = self._admission.enter(request.owner)
        try:
            rows = await read_rows(request, predictor, self.options.max_rows)
            _check_limit(request, rows)
            form = form_of(request.text_format, predictor, len(rows.rows), many=rows.many)
            first = await batching.predict(rows.rows[:CHUNK])
            async with aclosing(_deltas(rows, first, form, batching)) as deltas:
                yield deltas
        finally:
            ticket.release()

    async def count_tokens(self, request: ModelRequest) -> int:
        """What `usage.input_tokens` will say. Raises `InvalidRequest` for rows that do not fit the model."""
        predictor, _ = self._running()
        return _size(await read_rows(request, predictor, self.options.max_rows))

    async def predict(self, texts: Sequence[str]) -> list[JsonObject]:
        """What a text model says of each text, for ORE's own use. Raises `QueueFull` or `ServerFault`."""
        _, batching = self._running()
        ticket = self._admission.enter("")
        try:
            return await batching.predict(texts)
        finally:
            ticket.release()

    @property
    def predictor(self) -> Predictor:
        """The model. Raises `Unavailable` before `start`."""
        return self._running()[0]

    async def models(self) -> list[Model]:
        return [self._model]

    def model(self, name: str) -> Model | None:
        return self._model if name == self.name else None

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """Raises the 400: it predicts, and has no vectors."""
        raise makes_no_embeddings(request.model)

    def load(self) -> Load:
        return self._admission.load()

    def memory(self) -> int | None:
        """It is in ORE's own process, and cannot be told from it."""
        return None

    async def health(self) -> Health:
        batches = self._batching.batches if self._batching else 0
        detail = {"running": self._admission.running, "batches": batches}
        return Health(ok=self._predictor is not None, detail=detail)

    def _running(self) -> tuple[Predictor, Batching]:
        if self._predictor is None or self._batching is None:
            raise Unavailable(f"The model {self.name!r} is not running. Try again in a few seconds.", retry_after=3)
        return self._predictor, self._batching


async def _deltas(rows: Rows, first: list[JsonObject], form: Form, batching: Batching) -> AsyncGenerator[Delta]:
    """A delta for each row, chunk after chunk."""
    answers, count = first, len(rows.rows)
    for start in range(0, count, CHUNK):
        if start:
            answers = await batching.predict(rows.rows[start : start + CHUNK])
        for at, answer in enumerate(answers, start):
            if at % BREATH == 0:
                await anyio.lowlevel.checkpoint()
            yield Text(form.text(answer, at, count))
    yield Finish("stop", Usage(input_tokens=_size(rows), output_tokens=count))


def _size(rows: Rows) -> int:
    """What is counted where there are no tokens: the values of a table; of a text, about what its tokens would be."""
    return sum(-(-len(row) // BYTES_PER_TOKEN) if isinstance(row, str) else len(row) for row in rows.rows)


def _refuse_impossible(request: ModelRequest) -> None:
    """Raise the 400 for what a model that only predicts cannot do."""
    if request.tools and mode(request.tool_choice) != "none":
        raise InvalidRequest("This model predicts and calls no tools. Send no 'tools'.", param="tools")
    if request.top_logprobs is not None:
        raise InvalidRequest(
            "This model has no tokens, and so no logprobs. A classifier's answer has 'probabilities'; leave "
            "message.output_text.logprobs out of 'include'.",
            param="include",
        )


def _check_limit(request: ModelRequest, rows: Rows) -> None:
    """Raise the 400 for more predictions than were allowed: half of an array would be no JSON."""
    limit, count = request.max_output_tokens, len(rows.rows)
    if limit is not None and count > limit:
        raise InvalidRequest(
            f"'max_output_tokens' is {limit}, and the input has {count} rows, each of which counts as one. Raise it, "
            "or leave it out.",
            param="max_output_tokens",
        )
