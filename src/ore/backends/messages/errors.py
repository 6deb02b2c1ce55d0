"""Errors as the Messages API tells them: in an answer's body, and in an `error` event.

It words nothing anew: `provider` does.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.dialect import UpstreamError

STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 429,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of an error -> HTTP's status. A bill that was not paid is a quota that is used up."""

_TOO_LONG: Final = ("prompt is too long", "exceed context limit", "exceeds the maximum number of tokens")
_CONTEXT_TOO_LONG: Final = "context_length_exceeded"


def read_error(status: int, body: bytes) -> UpstreamError:
    """The error that an answer without 2xx is."""
    try:
        return _error(msgspec.json.decode(body, type=_Failure).error, status)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _error(_Problem(message=body[:500].decode("utf-8", "replace")), status)


def error_in_stream(value: Any) -> UpstreamError:
    """The error that an event of a stream tells, with the status that it would have had before the stream."""
    problem = msgspec.convert(value, _Problem)
    return _error(problem, STATUSES.get(problem.type, 500))


class _Problem(Struct, frozen=True):
    type: str = ""
    message: str = ""


class _Failure(Struct):
    error: _Problem


def _error(problem: _Problem, status: int) -> UpstreamError:
    said = problem.message or problem.type or "no reason was given"
    if status == 402 or problem.type == "billing_error" or "credit balance is too low" in said:
        return UpstreamError(429, said, code="insufficient_quota")
    if status in (400, 413) and any(words in said for words in _TOO_LONG):
        return UpstreamError(400, said, code=_CONTEXT_TOO_LONG)
    return UpstreamError(status, said, code="" if status == 400 else problem.type)
