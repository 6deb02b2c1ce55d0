"""Models as Responses upstreams list them: OpenAI's list; vLLM and OpenRouter add the context, another ORE all of it.

What it does not tell is for the profiles.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed, told_as


def read_listing(body: bytes) -> list[Listed]:
    """The models of a listing: `{"data": [...]}`. Raises `Unintelligible`."""
    entries = told_as(_Listing, body).data
    return [_listed(entry) for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


class _Listing(Struct):
    data: list[Any]


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


_CONTEXT_FIELDS: Final = ("max_model_len", "context_length", "context_window")
"""Where servers tell the context of a model: vLLM and SGLang, OpenRouter, others."""


def _listed(entry: JsonObject) -> Listed:
    created, owned_by = entry.get("created"), entry.get("owned_by")
    return Listed(
        id=entry["id"],
        created=int(created) if isinstance(created, int | float) else 0,
        owned_by=owned_by if isinstance(owned_by, str) else "",
        facts=_facts(entry),
    )


def _facts(entry: JsonObject) -> JsonObject:
    try:
        told = msgspec.convert(entry.get("capabilities"), _Facts)
    except msgspec.ValidationError:
        sizes = (entry.get(field) for field in _CONTEXT_FIELDS)
        size = next((size for size in sizes if isinstance(size, int) and size > 0), None)
        return {} if size is None else {"context_window": size}
    facts = {**msgspec.structs.asdict(told), "counts_tokens": True}
    return {key: value for key, value in facts.items() if value is not None}
