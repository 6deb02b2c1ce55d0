"""The contract of local engines: `Engine`, `Embedder`, and the values that go in and out of one.

An engine has one model. It turns a prompt into pieces of text and knows tokens; it knows no items, no deltas, no owners
and no queue: `ore.backends.local.local_model` has those, for every engine alike. Where an engine would hold the
interpreter or could crash, it runs in a process of its own, and what is here is the near end.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from ore.backends.base import Embedded, JsonObject

EndReason = Literal["stop", "length", "stop_text"]
"""The model ended its turn; a limit was reached; one of the `stop` texts came, which does not show."""


class Facts(Struct, frozen=True, kw_only=True):
    """What a loaded model tells of itself."""

    context: int
    """Tokens that prompt and answer may take together."""
    chat_template: str = ""
    bos_token: str = ""
    eos_token: str = ""
    adds_bos: bool = False
    """Whether `tokenize` with `add_special` puts `bos_token` first by itself."""
    images: bool = False
    image_marker: str = ""
    """What stands in a prompt for each image, where it sees."""
    logprobs: bool = True


class Generation(Struct, frozen=True, kw_only=True):
    """One sampling. Everything is resolved: an engine has no defaults of its own."""

    prompt: str
    temperature: float
    top_p: float
    max_tokens: int | None = None
    """None: up to the context."""
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    own_distribution: bool = True
    """Whether temperature and nucleus are the model's own, with which an engine may cut the tail as it usually does."""
    stop: tuple[str, ...] = ()
    grammar: str = ""
    """Lark in llguidance's dialect that the whole output is held to; empty: free text."""
    visible: tuple[str, ...] = ()
    """Control tokens that must come out as text: markers that the output parser looks for."""
    alternatives: int | None = None
    """Logprobs: None for none, else how many alternatives each entry has."""
    images: tuple[bytes, ...] = ()
    """Encoded images, checked, one for each image marker in the prompt, in order."""
    cache_key: str = ""
    """Prompts with different keys never share cached prefixes, where an engine can keep them apart."""


class End(Struct, frozen=True, kw_only=True):
    """How a sampling ended, with its counts in tokens."""

    reason: EndReason
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class Piece(Struct, frozen=True, kw_only=True):
    """Some output; the last one has an `end`. Text never breaks a character apart."""

    text: str = ""
    tokens: int = 0
    """Tokens that have been sampled so far."""
    logprobs: tuple[JsonObject, ...] = ()
    """In the wire's shape (section 6), for the tokens of `text`."""
    end: End | None = None


class Sampled(Protocol):
    """An answer that is being sampled."""

    async def read(self) -> list[Piece]:
        """The next pieces, at least one. Raises `ModelFailed`, or `InvalidRequest` where an engine looks late."""

    def close(self) -> None:
        """Stop, at once; that frees the engine's slot. Idempotent."""


class Loaded(Protocol):
    """One model, loaded or not. Safe for concurrent use from one event loop."""

    async def start(self) -> None:
        """Load the model. Raises `StartupError` with the reason. Idempotent."""

    async def stop(self) -> None:
        """Unload it, and end whatever is being sampled. Idempotent."""

    @property
    def up(self) -> bool:
        """Whether it can answer now."""

    @property
    def restarts(self) -> int:
        """How often it died and was brought back."""

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""

    async def back(self, seconds: float) -> bool:
        """Wait until an engine that died is up again; False when that takes longer, or when it did not die."""

    async def facts(self) -> Facts:
        """What the loaded model tells of itself."""

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """The model's tokens of a text. `parse_special`: markers of control tokens in it count as such."""


class Engine(Loaded, Protocol):
    """A model that answers."""

    async def generate(self, generation: Generation) -> Sampled:
        """Begin to sample. Raises `InvalidRequest` or `ModelFailed`."""


@runtime_checkable
class CountsImages(Protocol):
    """An engine that knows what an image costs before it sees it; others refuse late what does not fit."""

    async def image_tokens(self, image: bytes) -> int:
        """Tokens of context that an image takes. Raises `InvalidRequest` or `ModelFailed`."""


class Embedder(Loaded, Protocol):
    """A model that embeds."""

    async def embed(self, inputs: Sequence[str | Sequence[int]]) -> Embedded:
        """Vectors of length one, for texts and tokens that fit its context. Raises `InvalidRequest` or `ModelFailed`.

        Leaving stops it.
        """
