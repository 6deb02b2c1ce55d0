"""Models as Responses upstreams list them: OpenAI's list; vLLM and OpenRouter add the context, another ORE all of it.

It guesses nothing of what a server does not say.
"""

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed
from ore.backends.listing import WINDOWS, first_count, listed_models


def read_listing(body: bytes) -> list[Listed]:
    """The models of a listing. Raises `Unintelligible`."""
    return listed_models(body, _facts)


class _Facts(Struct, frozen=True):
    """`capabilities` of ORE's own listing, by the names of `Profile`."""

    tool_types: tuple[str, ...]
    context_window: int | None = None
    max_output_tokens: int | None = None
    tools: bool = True
    logprobs: bool = False
    reasoning: bool = False
    images: bool = False
    files: bool = False


def _facts(entry: JsonObject) -> JsonObject:
    try:
        told = msgspec.convert(entry.get("capabilities"), _Facts)
    except msgspec.ValidationError:
        size = first_count(entry, WINDOWS)
        return {} if size is None else {"context_window": size}
    facts = {**msgspec.structs.asdict(told), "counts_tokens": True}
    return {key: value for key, value in facts.items() if value is not None}
