"""What a WebSocket client says (wire contract, 10.2 and 10.6), read frame by frame.

A frame that cannot be used becomes a turn that has failed already: its error is due when its place in the line comes,
or clients would take it for the end of the turn that is under way. Nothing here sends or decides.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from starlette.types import Message

from ore.errors import HTTPFault, InvalidRequest
from ore.protocol.decoding import JsonObject, parse_json_object, quoted
from ore.protocol.events import encode
from ore.protocol.responses import Create

Check = Callable[[JsonObject, bool], Create]
"""Checks the body of a create; the second argument is whether the model is to say something."""

_OUR_KEYS: Final = ("type", "stream_id", "generate")
_EXAMPLE: Final = '{"type": "response.create", "input": "Hello"}'


class Asked(Struct, frozen=True):
    """A turn. `size` is of its frame, in characters; `continues` is the response it names, even when it is wrong."""

    create: Create | HTTPFault
    size: int
    lane: str | None = None
    continues: str | None = None


class Steer(Struct, frozen=True):
    """The wish to steer a response that is under way."""

    lane: str | None
    frame: JsonObject


def read_frame(message: Message, check: Check) -> Asked | Steer:
    """Read one frame. Raises nothing."""
    text: str = message.get("text") or ""
    lane: str | None = None
    frame: JsonObject = {}
    try:
        frame = _parsed(message)
        lane = _lane(frame)
        if frame.get("type") == "response.steer":
            return Steer(lane, frame)
        create: Create | HTTPFault = _create(frame, check)
    except HTTPFault as fault:
        create = fault
    previous = frame.get("previous_response_id")
    return Asked(create, len(text), lane, previous if isinstance(previous, str) else None)


def _parsed(message: Message) -> JsonObject:
    if message.get("text") is None:
        text = f"Binary frames are not understood. Send JSON in text frames, such as {_EXAMPLE}."
        raise InvalidRequest(text, code="invalid_request")
    return parse_json_object(message["text"].encode())


def _lane(frame: JsonObject) -> str | None:
    lane = frame.get("stream_id")
    if lane is None or (isinstance(lane, str) and 1 <= len(lane) <= 64):
        return lane
    raise InvalidRequest("Invalid 'stream_id': expected a string of 1 to 64 characters.", param="stream_id")


def _create(frame: JsonObject, check: Check) -> Create:
    kind = frame.get("type")
    if kind is None:
        text = f"Missing required parameter: 'type'. Send a frame such as {_EXAMPLE}."
        raise InvalidRequest(text, code="missing_required_parameter", param="type")
    if kind != "response.create":
        text = f"Unknown type {quoted(str(kind))}. Send 'response.create'; to stop a turn, close the connection."
        raise InvalidRequest(text, code="invalid_request", param="type")
    if isinstance(frame.get("response"), dict):
        text = "The fields of a request stand beside 'type', not in an object 'response'."
        raise InvalidRequest(text, code="unknown_parameter", param="response")
    if frame.get("stream") not in (None, True):
        text = "A WebSocket always streams: leave 'stream' out, or send the request with POST /v1/responses."
        raise InvalidRequest(text, code="unsupported_value", param="stream")
    if frame.get("background") not in (None, False):
        text = "A turn of a WebSocket ends with it: send background requests with POST /v1/responses."
        raise InvalidRequest(text, code="unsupported_parameter", param="background")
    generate = frame.get("generate")
    if generate is not None and not isinstance(generate, bool):
        raise InvalidRequest("Invalid type for 'generate': expected a boolean.", code="invalid_type", param="generate")
    body = {key: value for key, value in frame.items() if key not in _OUR_KEYS}
    return check(body | {"stream": True}, generate is not False)


def steer_failed(steer: Steer) -> bytes:
    """The answer of a server that cannot steer: the input comes back, to be sent as a turn of its own."""
    given: dict[str, Any] = {key: steer.frame.get(key, "") for key in ("input", "previous_response_id")}
    error = {
        "type": "invalid_request_error",
        "code": "steering_not_supported",
        "message": "A response cannot be steered here. Send the input as a turn of its own when this one has ended.",
    }
    return encode({"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": given})
