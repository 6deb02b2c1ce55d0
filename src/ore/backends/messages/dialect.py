"""The dialect of Anthropic's Messages API (version 2023-06-01), which other providers speak too.

It asks for nothing that this version does not know, whatever newer ones do. What is lost on the way is in
`docs/providers/anthropic.md`.
"""

from typing import Final

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.dialect import Asked, Listed, counted_tokens
from ore.backends.messages.decoder import MessagesDecoder
from ore.backends.messages.listing import read_listing
from ore.backends.messages.requests import Asking
from ore.backends.profiles import Profile

VERSION: Final = "2023-06-01"
"""Of the API. 2026-10-21 differs in what is used here only by taking no `temperature` and `top_p` of any model."""

BINDING_BETA: Final = "thinking-binding-controls-2026-08-01"
"""Has the API let go of thinking that no longer fits, instead of refusing the request."""


class Messages:
    """See `ore.backends.dialect.Dialect`."""

    name = "Messages API"
    path = "messages"
    models_path = "models?limit=1000"
    embeddings_path = ""

    def key_headers(self, key: str) -> dict[str, str]:
        version = {"anthropic-version": VERSION}
        return {"x-api-key": key, **version} if key else version

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:
        """See `Dialect.ask`."""
        asking = Asking(request, profile, origin)
        headers = {"anthropic-beta": BINDING_BETA} if asking.binds() else {}
        return Asked(asking.body(), MessagesDecoder(asking.reading()), headers)

    def models(self, body: bytes) -> list[Listed]:
        return read_listing(body)

    def counting(self, request: ModelRequest, profile: Profile, origin: str) -> tuple[str, JsonObject]:
        """Without bound thinking, which could only be sent with a header; it counts for nothing when it is old."""
        return "messages/count_tokens", Asking(request, profile, origin).counted_body()

    def counted(self, body: bytes) -> int:
        return counted_tokens(body)
