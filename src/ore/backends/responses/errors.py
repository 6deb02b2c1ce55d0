"""Errors as Responses upstreams tell them: in an answer's body, in an `error` event, in a failed response.

One reading for all three, by two tables. It refuses to word them for a client: that is `provider`'s.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ore.backends.dialect import UpstreamError

CONTEXT_TOO_LONG: Final = "context_length_exceeded"

FAILED: Final = 500
"""The status of an error that says nothing about itself: the provider's own."""

_STATUS_OF_CODE: Final = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "slow_down": 503,
    "server_is_overloaded": 503,
    "server_error": FAILED,
    "vector_store_timeout": 504,
    "invalid_model_output": FAILED,
    "invalid_api_key": 401,
    "model_not_found": 404,
    CONTEXT_TOO_LONG: 400,
    "data_residency_mismatch": 400,
    "failed_to_download_image": 400,
}
_REQUEST_CODE: Final = re.compile(
    r"(invalid|image|empty_image|unsupported|missing|unknown|bio|cyber|misalignment|content)_\w+"
)
"""Codes that blame the request."""

_STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "not_found": 404,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "service_unavailable_error": 503,
    "overloaded_error": 503,
}

_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|exceeds? the (?:available )?context|maximum context length|"
    r"maximum model length|context window",
    re.IGNORECASE,
)
_PLAIN_NAME: Final = re.compile(r"[a-z_]+")


def read_error(status: int, body: bytes) -> UpstreamError:
    """The error that an answer without 2xx is: OpenAI's, FastAPI's `detail`, or whatever text there is."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return UpstreamError(status, body.decode("utf-8", "replace").strip()[:2000] or f"HTTP {status}")
    error = told.get("error", told)
    if not isinstance(error, dict):
        error = {"message": error}
    if "message" not in error and "detail" in error:
        error = {"message": _detail(error["detail"])}
    return error_in_stream(error, status)


def error_in_stream(error: Mapping[str, Any], status: int | None = None) -> UpstreamError:
    """The error of an object with `message`, `code`, `type`, `param`; each may be missing, or of any type.

    Without a `status` the nearest to its code and type. Indexes in a `param` count the request that we made, so only
    plain names are kept.
    """
    code, kind, param = error.get("code"), error.get("type"), error.get("param")
    message = str(error.get("message") or code or kind or "It gave no reason.")
    word = code if isinstance(code, str) else ""
    kind = kind if isinstance(kind, str) else ""
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else _status(word, kind)
    if "insufficient_quota" in (word, kind):
        word = "insufficient_quota"
    elif 400 <= status < 500 and status != 429 and _TOO_LONG.search(f"{word} {kind} {message}"):
        status, word = 400, CONTEXT_TOO_LONG
    plain = param if isinstance(param, str) and _PLAIN_NAME.fullmatch(param) else ""
    return UpstreamError(status, message, code=word, param=plain)


def _status(code: str, kind: str) -> int:
    by_code = _STATUS_OF_CODE.get(code) or (400 if _REQUEST_CODE.fullmatch(code) else None)
    return by_code or _STATUS_OF_TYPE.get(kind, FAILED)


def _detail(detail: Any) -> str:
    """FastAPI's `detail`: a text, or a list of what is wrong where."""
    if not isinstance(detail, list):
        return str(detail)
    said = [each for each in detail if isinstance(each, dict)]
    return "; ".join(f"{'.'.join(map(str, each.get('loc') or ()))}: {each.get('msg')}" for each in said[:5])
