"""Renders exceptions for the wire, and is the only file that does.

An exception becomes the JSON body of an HTTP response (wire contract, section 9), or an `error` frame of a WebSocket
(10.7). Once a response has begun, its run ends it as `failed` instead, out of the same `HTTPFault.payload`.

It refuses to leak: an exception that is not an `HTTPFault` becomes an `InternalFault` whose message is always the
same, so no path, key, query, address or traceback can reach a caller. What happened goes to the log instead.
"""

import difflib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount

from ore.errors import (
    Conflict,
    Forbidden,
    HeadTooLarge,
    HTTPFault,
    InternalFault,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    ServerFault,
    Unauthorized,
    UnsupportedMediaType,
    UpgradeRequired,
    UrlTooLong,
)
from ore.protocol.wire import BOTH, Wire
from ore.telemetry import current_request_id

logger = logging.getLogger("ore.server")

current_wire: ContextVar[Wire] = ContextVar("wire", default=BOTH)
"""The wire of the request that is being answered."""

_BY_STATUS: Final[dict[int, type[HTTPFault]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    409: Conflict,
    413: PayloadTooLarge,
    414: UrlTooLong,
    415: UnsupportedMediaType,
    426: UpgradeRequired,
    431: HeadTooLarge,
}
_HEADERS_BY_STATUS: Final[dict[int, dict[str, str]]] = {
    401: {"www-authenticate": "Bearer"},
    409: {"x-should-retry": "false"},  # the SDK would repeat it (section 1), and a conflict does not mend itself
}
_ECHO: Final = 200  # characters of the caller's own path that an answer repeats, and of a cause that the log does


def as_fault(exc: BaseException) -> HTTPFault:
    """The error to show for an exception. A group that holds a single exception counts as that one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, HTTPFault):
        return exc
    if isinstance(exc, HTTPException) and exc.status_code < 500:
        kind = _BY_STATUS.get(exc.status_code, InvalidRequest)
        return kind(str(exc.detail), headers=exc.headers)
    request_id = current_request_id.get()
    report = f" Report it with request id {request_id}." if request_id else ""
    return InternalFault(f"The server failed because of a fault of its own, not of the request.{report}")


def error_payload(exc: BaseException, wire: Wire | None = None) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, section 9; on the wire of the request, unless one is given."""
    said = (wire or current_wire.get()).error(as_fault(exc))
    return {"error": {key: _clean(value) for key, value in said.items()}}


def error_frame(exc: BaseException) -> dict[str, Any]:
    """The `error` frame of section 10.7. There `code` has to be a string: where there is none, the type stands in."""
    error = error_payload(exc)["error"]
    return {"type": "error", "status": as_fault(exc).status, "error": error | {"code": error["code"] or error["type"]}}


def to_http_response(exc: BaseException, wire: Wire | None = None) -> Response:
    """The whole HTTP response. Headers that the exception carries win over those of its status."""
    fault = as_fault(exc)
    headers = _HEADERS_BY_STATUS.get(fault.status, {}) | {name.lower(): text for name, text in fault.headers.items()}
    body = msgspec.json.encode(error_payload(fault, wire))
    return Response(body, status_code=fault.status, headers=headers, media_type="application/json")


def log_fault(exc: BaseException) -> None:
    """Tell the operator: bugs with their traceback, failures of ours with their cause, the caller's mistakes not.

    What an engine or a provider did is no bug of ours: its cause takes a line, and a traceback only when debugging.
    """
    fault, request_id = as_fault(exc), current_request_id.get() or "-"
    if isinstance(fault, InternalFault) and (fault is not exc or exc.__cause__ is not None):
        logger.error("unexpected error in request %s", request_id, exc_info=exc)
    elif isinstance(fault, ServerFault):
        cause = exc.__cause__
        because = "" if cause is None else f" ({type(cause).__name__}: {' '.join(str(cause).split())[:_ECHO]})"
        told = exc if cause is not None and logger.isEnabledFor(logging.DEBUG) else None
        logger.warning("request %s: %d, %s%s", request_id, fault.status, fault, because, exc_info=told)


def exception_handlers() -> Mapping[Any, Callable[[Request, Any], Response | Awaitable[Response]]]:
    """What to give `Starlette(exception_handlers=...)`; `CatchAll` takes everything else."""
    return {HTTPFault: _render, HTTPException: _render_routing, ClientDisconnect: _forget}  # type: ignore[dict-item]


async def _render(_: Request, exc: HTTPFault) -> Response:
    log_fault(exc)
    return to_http_response(exc)


async def _forget(_: Request, exc: ClientDisconnect) -> None:
    """Nobody is left to answer; starlette takes None for an answer although its types do not say so."""


async def _render_routing(request: Request, exc: HTTPException) -> Response:
    """Starlette's own errors: no such path, no such method, and whatever a third party's route raises."""
    if exc.status_code == 404:
        return to_http_response(_unknown_path(request))
    if exc.status_code == 405:
        return to_http_response(_wrong_method(request, exc))
    if exc.status_code < 400:
        return Response(status_code=exc.status_code, headers=exc.headers)
    log_fault(exc)
    return to_http_response(exc)


def _unknown_path(request: Request) -> NotFound:
    path = request.scope["path"][:_ECHO]
    near = nearest_path(path, request.app.routes)
    hint = _OTHER_APIS.get(path) or (f"Did you mean {near}?" if near else _WHAT_THERE_IS)
    return NotFound(f"There is nothing at {request.scope.get('method', 'GET')} {path}. {hint}")


_WHAT_THERE_IS: Final = "Responses are made with POST /v1/responses; GET /openapi.json lists what else there is."
_OTHER_APIS: Final = dict.fromkeys(
    ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/api/chat", "/api/generate"),
    "This server speaks the Responses API only: send POST /v1/responses, with 'input' for the messages.",
)
"""Paths that clients of other APIs ask for, and what to tell them."""


def _wrong_method(request: Request, exc: HTTPException) -> MethodNotAllowed:
    """Names the methods of every route with this path: starlette would name those of the first one only."""
    allowed: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            allowed |= getattr(route, "methods", None) or set()
    if not allowed and exc.headers:
        allowed = set(exc.headers.get("Allow", "").replace(" ", "").split(",")) - {""}
    listed = ", ".join(sorted(allowed))
    path, method = request.scope["path"][:_ECHO], request.scope.get("method", "GET")
    return MethodNotAllowed(f"{path} does not take {method}. It takes: {listed}.", headers={"allow": listed})


def nearest_path(path: str, routes: Sequence[BaseRoute]) -> str | None:
    """The known path that resembles `path` most, with its parameters in braces; None if none comes near."""
    wanted = path[:_ECHO].split("/")
    known = {_filled(template, wanted): template for template in _templates(routes)}
    near = difflib.get_close_matches(path[:_ECHO], known, n=1, cutoff=0.8)
    return known[near[0]] if near else None


def _templates(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[str]:
    for route in routes:
        path = prefix + getattr(route, "path", "")
        if isinstance(route, Mount):
            yield from _templates(route.routes, path)
        elif path:
            yield re.sub(r":\w+}", "}", path)


def _filled(template: str, wanted: list[str]) -> str:
    """The template with the wanted path's own words for its parameters, so that only the fixed words are compared."""
    parts = template.split("/")
    if len(parts) != len(wanted):
        return template
    return "/".join(word if part.startswith("{") else part for part, word in zip(parts, wanted, strict=True))


def _clean(value: Any) -> Any:
    """Lone surrogates, which callers may have sent and JSON cannot carry, become question marks."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
