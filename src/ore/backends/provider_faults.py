"""A provider's errors as ours: whose fault it is, and what to do. The only place where they are worded.

It quotes what a provider says, never a key; what an error means is read in `upstream_errors`.
"""

import logging
from typing import Final

import msgspec

from ore.backends.dialect import Unintelligible, UpstreamError
from ore.backends.upstream import Refused, Upstream
from ore.backends.upstream_errors import read_error
from ore.errors import (
    CONTEXT_TOO_LONG,
    NO_QUOTA,
    HTTPFault,
    InvalidRequest,
    ModelFailed,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    Unavailable,
)

logger = logging.getLogger("ore.backends")

LONGEST_RETRY: Final = 86_400.0
"""Seconds of a provider's `Retry-After` that are believed."""

MAX_QUOTED: Final = 500
"""Characters of a provider's message that a client is shown."""

GARBAGE: Final = (Unintelligible, msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises on an answer that is not of its dialect."""


class ProviderFaults:
    """The faults of one provider, by its name; `speech` is the name of its dialect."""

    def __init__(self, upstream: Upstream, speech: str) -> None:
        self._upstream = upstream
        self._name = upstream.name
        self._speech = speech

    def refusal(self, refused: Refused, model: str) -> HTTPFault:
        """Of an answer without 2xx."""
        error = read_error(refused.status, refused.body)
        if error.retry_after is None:
            error.retry_after = refused.retry_after
        return self.told(error, model)

    def told(self, error: UpstreamError, model: str) -> HTTPFault:
        """Of an error in the provider's words, which are quoted."""
        status, after = error.status, min(1.0 if error.retry_after is None else error.retry_after, LONGEST_RETRY)
        said = " ".join(self._upstream.masked(error.message).split())[:MAX_QUOTED]
        logger.info("%s refused a request: HTTP %d %s", self._name, status, error.code)
        if status in (401, 403):
            return ModelFailed(
                f"The provider '{self._name}' does not accept this server's key. "
                f"Check [providers.{self._name}] api_key.",
                code="upstream_unauthorized",
            )
        if status == 404:
            place = f", or no API at [providers.{self._name}] base_url, which often ends in /v1"
            return NotFound(
                f"The provider '{self._name}' has no model '{model}'{'' if model in said else place}: {said}",
                code="model_not_found",
                param="model",
            )
        if 300 <= status < 400:
            return ModelFailed(
                f"The provider '{self._name}' only says that its API is elsewhere (HTTP {status}). Correct "
                f"[providers.{self._name}] base_url.",
                code="upstream_failed",
            )
        if status == 429:
            message = f"The provider '{self._name}' is asked too much: {said}"
            code = NO_QUOTA if error.code == NO_QUOTA else None
            return TooManyRequests(message, retry_after=after, code=code)
        if status in (503, 529):
            message = f"The provider '{self._name}' is overloaded: {said}"
            return Unavailable(message, retry_after=after)
        if status == 413:
            return PayloadTooLarge(f"The provider '{self._name}' refused the request as too large: {said}")
        if 400 <= status < 500 and status != 408:
            message = f"The provider '{self._name}' refused the request: {said}"
            param = "input" if error.code == CONTEXT_TOO_LONG else error.param or None
            return InvalidRequest(message, code=error.code or "upstream_refused", param=param)
        return ModelFailed(f"The provider '{self._name}' failed: {said}", code="upstream_failed")

    def unfinished(self, *, senseless: bool) -> ModelFailed:
        """Of an answer that ended too soon: it was `senseless` from the beginning, or it has lost its end."""
        return self.garbage() if senseless else self._upstream.broken_off()

    def garbage(self) -> ModelFailed:
        """Of an answer that is not of the dialect."""
        return ModelFailed(
            f"The provider '{self._name}' sent what is no {self._speech}. Check that [providers.{self._name}] kind "
            "and base_url are those of its API.",
            code="upstream_garbage",
        )
