"""Models as servers of Chat Completions list them: OpenAI's list, and what others tell beside the id.

It guesses nothing of what a server does not say.
"""

from collections.abc import Callable
from typing import Any, Final

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed
from ore.backends.listing import WINDOWS, first_count, listed_models

_LIMITS: Final = ("max_completion_tokens", "max_output_tokens")


def read_listing(body: bytes) -> list[Listed]:
    """The models of a listing. Raises `Unintelligible`."""
    return listed_models(body, _facts)


def _facts(model: JsonObject) -> JsonObject:
    return {field: value for field, fact in _FACTS.items() if (value := fact(model)) is not None}


def _window(model: JsonObject) -> int | None:
    meta = _object(model, "meta")  # llama-server
    return first_count(model, WINDOWS) or first_count(meta, ("n_ctx", "n_ctx_train"))


def _limit(model: JsonObject) -> int | None:
    return first_count(_object(model, "top_provider"), _LIMITS) or first_count(model, _LIMITS)


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
