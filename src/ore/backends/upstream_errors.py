"""Errors of providers, which agree on little: what was wrong, and whose fault it is. One reading for all dialects.

OpenAI sends `{"error": {message, type, code, param}}`; others a bare string, `{"message"}`, `{"detail"}` (a list, where
it is FastAPI's), a list of errors (Gemini), an error in another's words inside (OpenRouter), plain text or a page of
HTML; proxies send whatever stands behind them sends. It words nothing anew: `provider_faults` does.
"""

import html
import re
from typing import Any, Final

import msgspec

from ore.backends.base import JsonObject
from ore.backends.dialect import UpstreamError
from ore.errors import CONTEXT_TOO_LONG, NO_QUOTA

MAX_BODY: Final = 64 * 1024
"""Bytes of an error that are looked at."""

FAILED: Final = 500
"""The status of an error that says nothing about itself: the provider's own."""


_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|window|size|limit)"  # OpenAI, Anthropic, vLLM, SGLang, llama-server, LM Studio, Ollama
    r"|maximum (?:prompt|model|input) length"  # xAI, vLLM
    r"|maximum number of tokens"  # Gemini, Anthropic
    r"|longer than the (?:maximum )?model"  # vLLM
    r"|exceeded model token limit"  # Moonshot
    r"|prompt (?:is )?too long"  # Anthropic, Ollama and others
    r"|keep the first \d+ tokens"  # LM Studio
    r"|tokens \+ .?max_new_tokens"  # TGI, Together
    r"|input tokens exceed",  # OpenAI
    re.IGNORECASE,
)
_TOO_LONG_CODES: Final = frozenset({CONTEXT_TOO_LONG, "exceed_context_size_error", "string_above_max_length"})
_NOT_TOO_LONG: Final = (401, 403, 404, 429)
_NO_QUOTA: Final = re.compile(
    r"insufficient (?:balance|credits|quota)|exceeded your current quota|credit balance is too low", re.IGNORECASE
)
_NO_QUOTA_CODES: Final = frozenset(
    {NO_QUOTA, "exceeded_current_quota_error", "billing_hard_limit_reached", "billing_error"}
)
_BAD_KEY: Final = re.compile(r"api[ _]key (?:not|is not) valid|(?:incorrect|invalid) api[ _]key", re.IGNORECASE)
_NO_MODEL: Final = re.compile(r"\bmodel\b.{0,200}\b(?:not exist|not found|does not exist)", re.IGNORECASE | re.DOTALL)

_STATUSES: Final = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "badrequesterror": 400,
    "badrequest": 400,
    "data_residency_mismatch": 400,
    "failed_to_download_image": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "server_error": FAILED,
    "api_error": FAILED,
    "invalid_model_output": FAILED,
    "overloaded_error": 503,
    "engine_overloaded_error": 503,
    "server_is_overloaded": 503,
    "service_unavailable_error": 503,
    "unavailable_error": 503,
    "unavailable": 503,
    "slow_down": 503,
    "insufficient_system_resource": 503,
    "timeout_error": 504,
    "vector_store_timeout": 504,
}
"""Type or code, in small letters -> HTTP status, for errors in a stream."""

_REQUEST_CODE: Final = re.compile(
    r"(invalid|image|empty_image|unsupported|missing|unknown|bio|cyber|misalignment|content)_\w+"
)
"""Codes that blame the request."""

_PLAIN_NAME: Final = re.compile(r"[a-z_]+")
_WORDS: Final = ("message", "error", "detail", "msg", "error_description", "errors")
_RETRY_DELAY: Final = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')
_TAG: Final = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def read_error(status: int, body: bytes) -> UpstreamError:
    """The error that an answer without 2xx is."""
    text = body[:MAX_BODY].decode("utf-8", "replace")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = _plain(text)
    delay = _RETRY_DELAY.search(text)
    return _error(status, value, float(delay[1]) if delay else None)


def error_in_stream(value: Any) -> UpstreamError:
    """The error that an event of a stream tells, with the status that it would have had before the stream."""
    fields = _fields(value)
    words = [str(told).lower() for told in (fields.get("code"), fields.get("status"), fields.get("type"))]
    return _error(next(filter(None, map(_status, words)), FAILED), value)


def _status(word: str) -> int | None:
    if word.isdigit() and 400 <= int(word) <= 599:
        return int(word)
    return _STATUSES.get(word) or (400 if _REQUEST_CODE.fullmatch(word) else None)


def _error(status: int, value: Any, retry_after: float | None = None) -> UpstreamError:
    """Places such as `input[3].id` count items of the request that we made: of a `param` only plain names are kept."""
    fields = _fields(value)
    code, kind, param = fields.get("code"), fields.get("type"), fields.get("param")
    message = _words(value) or str(code or kind or "It gave no reason.")
    codes = {str(code).lower(), str(kind).lower()}
    named = code if isinstance(code, str) and not code.isdigit() else ""
    if codes & _TOO_LONG_CODES or (status not in _NOT_TOO_LONG and _TOO_LONG.search(message)):
        status, named = 400, CONTEXT_TOO_LONG
    elif status == 402 or codes & _NO_QUOTA_CODES or _NO_QUOTA.search(message):
        status, named = 429, NO_QUOTA
    elif status == 400 and _BAD_KEY.search(message):
        status = 401
    elif status == 400 and _NO_MODEL.search(message):
        status = 404
    plain = param if isinstance(param, str) and _PLAIN_NAME.fullmatch(param) else ""
    return UpstreamError(status, message, code=named, param=plain, retry_after=retry_after)


def _fields(value: Any) -> JsonObject:
    """The innermost object that tells a code or a type."""
    while True:
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict) and isinstance(value.get("error"), dict | list):
            value = value["error"]
        else:
            return value if isinstance(value, dict) else {}


def _words(value: Any) -> str:
    """What it says, wherever it says it."""
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value[:8])))
    if not isinstance(value, dict):
        return value.strip() if isinstance(value, str) else ""
    said = next(filter(None, (_words(value.get(key)) for key in _WORDS)), "")
    if isinstance(value.get("loc"), list):
        said = f"{'.'.join(map(str, value['loc']))}: {said}"
    inner = value.get("metadata")
    if isinstance(inner, dict) and isinstance(inner.get("raw"), str) and inner["raw"] not in said:
        said = f"{said}: {inner['raw']}"
    return said


def _plain(text: str) -> str:
    """Text as it is; of a page of HTML, what a reader would see."""
    if text.lstrip()[:1] == "<":
        text = html.unescape(_TAG.sub(" ", text))
    return " ".join(text.split())
