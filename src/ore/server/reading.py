"""How the endpoints read a request: its body, its query, and whose it is. It answers nothing and asks no store."""

from collections.abc import Callable
from typing import Literal, TypeVar

import anyio.to_thread
from starlette.requests import Request

from ore.errors import InvalidRequest, UnsupportedMediaType
from ore.protocol.decoding import JsonObject, parse_json_object

T = TypeVar("T")

LONG_BODY = 256 * 1024
"""Bytes above which a body takes milliseconds to check."""

OWNER = "default"
"""Whom everything belongs to while there are no keys."""


async def read_body(request: Request) -> bytes:
    """The body. Raises `UnsupportedMediaType` when it claims to be anything but JSON."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(
            f"The body's Content-Type is '{kind[:64]}'; send JSON with the header 'Content-Type: application/json'.",
            code="unsupported_media_type",
        )
    return await request.body()


async def checked(request: Request, check: Callable[[JsonObject], T]) -> T:
    """Read a body and check it; a long one in a thread, because others have their turn meanwhile."""
    body = await read_body(request)

    def work() -> T:
        return check(parse_json_object(body))

    return await anyio.to_thread.run_sync(work) if len(body) > LONG_BODY else work()


def array(request: Request, name: str) -> list[str]:
    """A query array in both spellings: `name=a&name=b` and `name[]=a&name[]=b`."""
    return [*request.query_params.getlist(name), *request.query_params.getlist(f"{name}[]")]


def flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"Invalid '{name}': expected true or false.", code="invalid_type", param=name)
    return value in ("true", "1")


def page_query(request: Request) -> tuple[int, Literal["asc", "desc"], str | None]:
    """Which page of a list is wanted: `limit`, `order`, `after`."""
    query = request.query_params
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= 100):
        raise InvalidRequest("Invalid 'limit': expected an integer from 1 to 100.", param="limit")
    if order == "asc":
        return int(limit), "asc", query.get("after") or None
    if order != "desc":
        raise InvalidRequest("Invalid 'order'. Supported values are: 'asc', 'desc'.", param="order")
    return int(limit), "desc", query.get("after") or None
