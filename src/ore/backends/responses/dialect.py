"""The dialect of upstreams that speak Responses themselves: OpenAI, vLLM, another ORE, OpenRouter, LM Studio.

What they say passes through with nothing lost; only the envelope, and the ids of what ORE tells piece by piece, are
ours. It keeps no state at the upstream (`store: false`) and never asks it to truncate: both are ORE's own business.
"""

from typing import Final

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.dialect import Asked, Listed, counted_tokens
from ore.backends.profiles import Profile
from ore.backends.responses.decoder import ResponsesDecoder
from ore.backends.responses.listing import read_listing
from ore.backends.responses.requests import plan_of, request_body
from ore.backends.responses.tracks import Known
from ore.ids import NewId, new_id

_COUNTED: Final = ("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text")
"""The fields that counting takes (wire contract, section 14)."""


class Responses:
    """`Dialect` of the OpenAI Responses API (wire contract, sections 3, 5, 7 and 14)."""

    name = "Responses"
    path = "responses"
    models_path = "models"
    embeddings_path = "embeddings"

    def __init__(self, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def key_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:
        """See `Dialect.ask`. Raises `InvalidRequest` for a `tool_choice` that nothing can satisfy."""
        planned = plan_of(request, profile)
        names = {tool.shown: tool for tool in planned.known} if profile.tool_types is None else {}
        body = request_body(request, profile, planned, origin)
        return Asked(body, ResponsesDecoder(Known(origin, names, self._new_id)))

    def models(self, body: bytes) -> list[Listed]:
        return read_listing(body)

    def counting(self, request: ModelRequest, profile: Profile, origin: str) -> tuple[str, JsonObject] | None:
        """As OpenAI and ORE count; None for an upstream that is not known to."""
        if not profile.counts_tokens:
            return None
        body = self.ask(request, profile, origin).body
        return f"{self.path}/input_tokens", {key: body[key] for key in _COUNTED if key in body}

    def counted(self, body: bytes) -> int:
        return counted_tokens(body)
