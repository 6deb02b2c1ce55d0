"""Models as Anthropic lists them: what the Models API tells of each lies over the profile of its family.

What it does not tell is for the profiles. Models that are retired are left out.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import Listed, told_as
from ore.protocol.configuration import EFFORTS


def read_listing(body: bytes) -> list[Listed]:
    """The models of a listing: `{"data": [...]}`. Raises `Unintelligible`."""
    return [_listed(model) for model in told_as(_Listing, body).data if model.lifecycle != "retired"]


class _Model(Struct):
    id: str
    created_at: str = ""
    lifecycle: str = ""
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: JsonObject | None = None


class _Listing(Struct):
    data: list[_Model]


def _listed(model: _Model) -> Listed:
    facts: JsonObject = {} if model.capabilities is None else _facts(model.capabilities)
    if model.max_input_tokens:
        facts["context_window"] = model.max_input_tokens
    if model.max_tokens:
        facts["max_output_tokens"] = model.max_tokens
    return Listed(id=model.id, created=_seconds(model.created_at), owned_by="anthropic", facts=facts)


def _seconds(moment: str) -> int:
    try:
        return max(0, int(datetime.fromisoformat(moment).timestamp()))
    except (ValueError, OverflowError):
        return 0


def _facts(capabilities: JsonObject) -> JsonObject:
    """What of the capabilities says more than the family's profile; a key that is missing says nothing."""
    facts: JsonObject = {}
    for name, key in (("images", "image_input"), ("files", "pdf_input"), ("reasoning", "thinking")):
        if (able := _able(capabilities, key)) is not None:
            facts[name] = able
    if (able := _able(capabilities, "structured_outputs")) is not None:
        facts["json_schema"] = "native" if able else "tool"
    if _able(capabilities, "thinking", "types", "adaptive"):
        facts["effort"] = "adaptive"
        if levels := tuple(level for level in EFFORTS if _able(capabilities, "effort", level)):
            facts["efforts"] = levels
    elif (able := _able(capabilities, "thinking", "types", "enabled")) is not None:
        facts["effort"] = "budget" if able else "none"
    if facts.get("reasoning") and _able(capabilities, "thinking", "types", "disabled") is False:
        facts["thinks"] = "always"
    return facts


def _able(capabilities: Any, *path: str) -> bool | None:
    for key in path:
        capabilities = capabilities.get(key) if isinstance(capabilities, dict) else None
    able = capabilities.get("supported") if isinstance(capabilities, dict) else None
    return able if isinstance(able, bool) else None
