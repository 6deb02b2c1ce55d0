"""How the endpoints answer: JSON that is encoded already, and lists of stored items. Errors are for `errors`."""

from collections.abc import Mapping, Sequence

from starlette.responses import Response as HTTPResponse

from ore.errors import InvalidRequest
from ore.protocol.decoding import quoted
from ore.protocol.events import encode
from ore.runs.summary import ResponseSummary
from ore.stores.base import ItemPage

_NO_ENDS = b'{"first_id":null,"last_id":null}'


def json_response(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    return HTTPResponse(body, status_code=status, headers=dict(headers or {}), media_type="application/json")


def item_list(page: ItemPage) -> HTTPResponse:
    """A page as the list object: the items' own bytes, which were encoded when they were stored."""
    ends = encode({"first_id": page.items[0].id, "last_id": page.items[-1].id}) if page.items else _NO_ENDS
    items = b",".join(item.body for item in page.items)
    more = b"true" if page.has_more else b"false"
    return json_response(b'{"object":"list","data":[%b],%b,"has_more":%b}' % (items, ends[1:-1], more))


def object_list(data: Sequence[ResponseSummary], *, has_more: bool) -> HTTPResponse:
    """A page of objects that are encoded now."""
    ends = {"first_id": data[0].id if data else None, "last_id": data[-1].id if data else None}
    return json_response(encode({"object": "list", "data": list(data), **ends, "has_more": has_more}))


def unknown_cursor(after: str | None) -> InvalidRequest:
    return InvalidRequest(f"'after' names no item of this list: {quoted(after)}.", param="after")
