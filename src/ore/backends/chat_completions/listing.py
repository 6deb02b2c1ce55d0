"""Models as servers of Chat Completions list them: OpenAI's list, and what others tell beside the id.

Facts are taken only where a server states them; what it does not say is for the profiles. Models that do not chat are
left out where the list says so.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed, Unintelligible

_WINDOWS: Final = (
    "loaded_context_length",  # LM Studio: what is loaded, not what could be
    "max_model_len",  # vLLM, SGLang
    "context_length",  # OpenRouter, Together, Moonshot
    "context_window",  # Groq
    "max_context_length",  # Mistral, LM Studio
)
_LIMITS: Final = ("max_completion_tokens", "max_output_tokens")
_OTHER_TYPES: Final = frozenset(
    {"embedding", "embeddings", "image", "audio", "video", "moderation", "rerank", "transcribe", "tts"}
)


def read_listing(body: bytes) -> list[Listed]:
    """The models of a listing: `{"data": [...]}`, or the bare list that Together sends."""
    told = msgspec.json.decode(body)
    models = told.get("data", told.get("models")) if isinstance(told, dict) else told
    if not isinstance(models, list):
        raise Unintelligible
    return [_listed(model) for model in models if _is_chat(model)]


def _is_chat(model: Any) -> bool:
    named = isinstance(model, dict) and isinstance(model.get("id"), str)
    return named and str(model.get("type")).lower() not in _OTHER_TYPES


def _listed(model: JsonObject) -> Listed:
    created, owner = model.get("created"), model.get("owned_by") or model.get("organization")
    told = {field: value for field, fact in _FACTS.items() if (value := fact(model)) is not None}
    return Listed(
        id=model["id"],
        created=int(created) if isinstance(created, int | float) else 0,
        owned_by=owner if isinstance(owner, str) else "",
        facts=told,
    )


def _window(model: JsonObject) -> int | None:
    meta = _object(model, "meta")  # llama-server
    return _first_count(model, _WINDOWS) or _first_count(meta, ("n_ctx", "n_ctx_train"))


def _limit(model: JsonObject) -> int | None:
    return _first_count(_object(model, "top_provider"), _LIMITS) or _first_count(model, _LIMITS)


def _images(model: JsonObject) -> bool | None:
    reads = _object(model, "architecture").get("input_modalities")  # OpenRouter
    if isinstance(reads, list):
        return "image" in reads
    sees = _object(model, "capabilities").get("vision", model.get("supports_image_in"))  # Mistral, Moonshot
    return sees if isinstance(sees, bool) else None


def _tools(model: JsonObject) -> bool | None:
    takes = model.get("supported_parameters")  # OpenRouter
    if isinstance(takes, list):
        return "tools" in takes
    calls = _object(model, "capabilities").get("function_calling")  # Mistral
    return calls if isinstance(calls, bool) else None


def _takes(parameter: str) -> Callable[[JsonObject], bool | None]:
    def fact(model: JsonObject) -> bool | None:
        takes = model.get("supported_parameters")
        return parameter in takes if isinstance(takes, list) else None

    return fact


_FACTS: Final[dict[str, Callable[[JsonObject], Any]]] = {
    "context_window": _window,
    "max_output_tokens": _limit,
    "images": _images,
    "tools": _tools,
    "reasoning": _takes("reasoning"),
    "logprobs": _takes("logprobs"),
}
"""Field of `Profile` -> what a model's entry says of it."""


def _object(fields: JsonObject, key: str) -> JsonObject:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _first_count(fields: JsonObject, keys: tuple[str, ...]) -> int | None:
    counts = (fields.get(key) for key in keys)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)
