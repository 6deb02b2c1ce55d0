"""The seam between a provider and its dialect: pure translation, there and back.

A dialect turns a `ModelRequest` into the body of an HTTP request, and the server-sent events of the answer into deltas.
It opens no connection, knows no key and no clock; a recorded transcript and the expected deltas are its test.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.profiles import Profile
from ore.core.deltas import Delta

Form = TypeVar("Form")


class Decoder(Protocol):
    """Reads one answer."""

    def feed(self, data: bytes) -> Sequence[Delta]:
        """The deltas of one event, by its `data`. A `Finish` is the last that is read.

        Raises `UpstreamError` for an error that the provider reports in the stream, and `Unintelligible` for what is
        not of the dialect.
        """

    def end(self) -> Sequence[Delta]:
        """What is left to say when the stream ends; a `Finish` where the dialect lets it end so, else nothing."""


class Asked(Struct, frozen=True):
    """A request in the dialect's words, and who reads the answer."""

    body: JsonObject
    decoder: Decoder
    headers: Mapping[str, str] = {}


class Listed(Struct, frozen=True, kw_only=True):
    """A model as a provider lists it; None is what it does not say."""

    id: str
    created: int = 0
    owned_by: str = ""
    facts: Mapping[str, Any] = {}
    """Fields of `Profile` that the provider told."""


class UpstreamError(Exception):
    """An error in the provider's own words. `status` is HTTP's, or the nearest to what an event in a stream says."""

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after


class Unintelligible(Exception):
    """An answer that is not of the dialect."""


class Dialect(Protocol):
    """A provider's way of speaking."""

    name: str
    path: str
    """Where requests are posted, below the base URL."""
    models_path: str
    """Where its models are listed."""
    embeddings_path: str
    """Where embeddings are made, in the words of OpenAI's API; empty: it makes none."""

    def key_headers(self, key: str) -> dict[str, str]:
        """What it wants to hear with every request: the key, unless that is empty, and what else there is."""

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:
        """The request in its words. `origin` names the provider: what reasoning of which provider may go back.

        Raises `InvalidRequest` for what it can neither say nor leave out.
        """

    def models(self, body: bytes) -> list[Listed]:
        """The models of a listing. Raises `Unintelligible`."""

    def counting(self, request: ModelRequest, profile: Profile, origin: str) -> tuple[str, JsonObject] | None:
        """Path and body of a request that counts tokens; None where the dialect knows none."""

    def counted(self, body: bytes) -> int:
        """The tokens that the answer to `counting` tells. Raises `Unintelligible`."""


class _Counted(Struct):
    input_tokens: int


def told_as(form: type[Form], body: bytes) -> Form:
    """What a whole body tells, in that form. Raises `Unintelligible`."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Unintelligible(str(error)) from None


def counted_tokens(body: bytes) -> int:
    """The `input_tokens` that an answer to `counting` tells. Raises `Unintelligible`."""
    return told_as(_Counted, body).input_tokens


def packed(origin: str, state: Any) -> str:
    """What a provider wants back with a reasoning item, bound to it: `ReasoningState.state`."""
    return msgspec.json.encode({"origin": origin, "state": state}).decode()


def unpacked(item: JsonObject, origin: str) -> Any:
    """What this provider wants back with a reasoning item; None when it is another's, or none."""
    try:
        inside = msgspec.json.decode(item.get("state") or b"null")
    except msgspec.DecodeError:
        return None
    return inside.get("state") if isinstance(inside, dict) and inside.get("origin") == origin else None
