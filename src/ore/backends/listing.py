"""Entries of a listing of models, as OpenAI has them and others extend them; each dialect knows what else they tell.

Facts are taken only where a server states them; what it does not say is for the profiles. Models that do not chat are
left out where the list says so.
"""

from collections.abc import Callable
from typing import Any, Final

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed, Unintelligible, told_as

WINDOWS: Final = (
    "loaded_context_length",  # LM Studio: what is loaded, not what could be
    "max_model_len",  # vLLM, SGLang
    "context_length",  # OpenRouter, Together, Moonshot
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
)
"""Fields in which servers tell the context of a model."""

_OTHER_TYPES: Final = frozenset(
    {"embedding", "embeddings", "image", "audio", "video", "moderation", "rerank", "transcribe", "tts"}
)


def listed_models(body: bytes, facts: Callable[[JsonObject], JsonObject]) -> list[Listed]:
    """The models of `{"data": [...]}`, or of the bare list that Together sends. Raises `Unintelligible`."""
    told = told_as(object, body)
    models = told.get("data", told.get("models")) if isinstance(told, dict) else told
    if not isinstance(models, list):
        raise Unintelligible("a listing of models without 'data'")
    return [_listed(model, facts) for model in models if _is_chat(model)]


def first_count(fields: JsonObject, keys: tuple[str, ...]) -> int | None:
    """The first of these fields that is a number above 0."""
    counts = (fields.get(key) for key in keys)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)


def _is_chat(model: Any) -> bool:
    named = isinstance(model, dict) and isinstance(model.get("id"), str)
    return named and str(model.get("type")).lower() not in _OTHER_TYPES


def _listed(model: JsonObject, facts: Callable[[JsonObject], JsonObject]) -> Listed:
    created, owner = model.get("created"), model.get("owned_by") or model.get("organization")
    return Listed(
        id=model["id"],
        created=int(created) if isinstance(created, int | float) else 0,
        owned_by=owner if isinstance(owner, str) else "",
        facts=facts(model),
    )
