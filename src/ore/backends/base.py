"""The seam between ORE and anything that answers: `Backend`, `ModelRequest`, `Capabilities`.

A backend turns one request into deltas, or texts into vectors. It mints no ids, keeps no state about responses, runs no
tools and has no second, non-streaming way to an answer.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from msgspec import Struct, field

from ore.core.callable_tools import TOOL_TYPES
from ore.core.deltas import Delta

JsonObject = dict[str, Any]

BYTES_PER_TOKEN: Final = 4
"""For estimates, where nobody counts: about what English has."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How to choose the next token. `None` means: whatever the model's own default is."""

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One sampling of a model: everything it sees, as items.

    Everything here has been validated against the wire contract. `items` are in order, each a dict of the wire's
    input or output form with `type` present and message `content` always an array of parts; `tools` are flat
    Responses tool definitions; `tool_choice` is `"auto" | "none" | "required"` or an object of section 17.9.
    """

    model: str
    items: tuple[JsonObject, ...]
    places: tuple[int | None, ...] = ()
    """For each item, its index in the client's `input`, for errors to name; None where it comes from elsewhere."""
    instructions: str | None = None
    tools: tuple[JsonObject, ...] = ()
    tool_choice: str | JsonObject = "auto"
    parallel_tool_calls: bool = True
    text_format: JsonObject = field(default_factory=lambda: {"type": "text"})
    verbosity: str | None = None
    reasoning: JsonObject | None = None
    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    """None: no logprobs wanted. 0..20: the chosen token's logprob, with so many alternatives."""
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    include: tuple[str, ...] = ()
    max_tool_calls: int | None = None
    passed_on: JsonObject = field(default_factory=dict)
    """Fields of OpenAI's API that mean something to it alone, as the client sent them: `service_tier`, `user`, ..."""
    owner: str = ""
    """Who asks: for fairness between owners and for cache isolation; never sent to a provider."""


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Inputs whose vectors are wanted: texts, or tokens in the model's own numbers. None of them is empty."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    """How many numbers each vector is to have; None: as many as the model makes."""
    user: str | None = None
    owner: str = ""
    """As in `ModelRequest`."""


class Embedded(Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the inputs; and the tokens of all inputs together."""

    vectors: Sequence[Sequence[float]]
    input_tokens: int


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one model can do; published in `GET /v1/models`."""

    responses: bool = True
    """Whether it answers at all; a model that only embeds does not."""
    embeddings: int | None = None
    """How many numbers its vectors have, 0 when that is not known; None: it makes none."""
    context_window: int | None = None
    """Tokens that prompt and answer may take together; None when unknown."""
    tools: bool = True
    tool_types: tuple[str, ...] = TOOL_TYPES
    """The tool types that have an effect here; tools of others are skipped, with a warning."""
    json_schema: bool = True
    logprobs: bool = False
    reasoning: bool = False
    images: bool = False
    files: bool = False
    max_output_tokens: int | None = None
    """Tokens of an answer, at most; None when unknown."""


class Model(Struct, frozen=True, kw_only=True):
    """A model that a backend offers. `created` is in seconds since 1970."""

    id: str
    created: int = 0
    owned_by: str = "ore"
    capabilities: Capabilities = Capabilities()
    defaults: Sampling = Sampling()
    """What the model is sampled with when the request does not say."""
    input_schema: JsonObject | None = None
    """Of a model that takes data: what the text of the user is to be."""
    output_schema: JsonObject | None = None
    """Of a model that answers with data: what every answer satisfies, unless the request has a schema of its own."""


class Load(Struct, frozen=True, kw_only=True):
    """How busy a backend is right now."""

    running: int = 0
    waiting: int = 0
    slots: int | None = None
    """How many may run at the same time; None: no bound is known."""
    wait_seconds: float = 0.0
    """How long one more request would wait before it is worked on, as far as can be told."""


class Health(Struct, frozen=True, kw_only=True):
    """`ok` decides readiness; `detail` is for `/readyz?verbose` (no secrets, no paths)."""

    ok: bool
    detail: Mapping[str, str | int | float | bool] = {}


class Backend(Protocol):
    """One engine or one upstream. Safe for concurrent use from one event loop."""

    async def start(self) -> None:
        """Bring the backend up (load weights, spawn processes). Raises `StartupError`."""

    async def stop(self) -> None:
        """Free everything. Idempotent."""

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Sample once.

        Entering checks and admits the request, and connects where there is something to connect to: it raises
        `RequestError` (context too long, a schema that cannot be enforced, queue full) or `ServerFault`, and no delta
        has been seen then. Iterating yields deltas, the last one a `Finish`, or raises `ServerFault`. Leaving, for
        whatever reason, disconnects and frees the slot.
        """

    async def count_tokens(self, request: ModelRequest) -> int:
        """Tokens of the fully rendered prompt, by the model's own tokenizer."""

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """The vectors of the inputs. Leaving frees whatever works on them.

        Raises `RequestError` (a model that makes none, an input too long, by its index; a full queue) or `ServerFault`.
        """

    async def models(self) -> list[Model]:
        """What this backend can serve now."""

    def model(self, name: str) -> Model | None:
        """The model of that name, when this backend serves it. Called for every request: asks nobody."""

    def load(self) -> Load:
        """How busy it is. Called for every request: asks nobody."""

    async def health(self) -> Health:
        """Cheap: called by every readiness probe."""
