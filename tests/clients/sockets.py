"""A WebSocket client for tests, over the `websockets` package: turns, and the frames that they are made of."""

import json
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from clients.judging import Json, Judge
from clients.wire import LONG, TERMINAL, Sent


class Socket:
    """A connection to `/v1/responses` of a server. `options` go to `websockets.sync.client.connect`."""

    def __init__(self, url: str, path: str = "/v1/responses", **options: Any) -> None:
        options = {"compression": None, "open_timeout": LONG, "legacy": True} | options
        self.ws = connect(url.replace("http", "ws", 1) + path, **options)

    def ask(self, **fields: Any) -> None:
        """Send a create."""
        self.say({"type": "response.create", **fields})

    def say(self, frame: Any) -> None:
        """Send anything: text and bytes as they are, the rest as JSON."""
        self.ws.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def hear(self) -> Sent:
        """The next frame, which is text."""
        data = self.ws.recv(timeout=LONG)
        assert isinstance(data, str)
        return Sent(json.loads(data)["type"], data)

    def rest(self) -> list[Sent]:
        """The frames up to the end of a turn: its terminal event, or the error frame in its place."""
        frames = [self.hear()]
        while not is_end(frames[-1]):
            frames.append(self.hear())
        return frames

    def turn(self, **fields: Any) -> list[Sent]:
        """One turn."""
        self.ask(**fields)
        return self.rest()

    def refused(self, **fields: Any) -> Json:
        """The error frame that a create gets, checked for the shape of section 10.7."""
        (frame,) = self.turn(**fields)
        return error_of(frame)

    def until_closed(self) -> tuple[list[Sent], int]:
        """What comes before the server closes, and the code."""
        frames: list[Sent] = []
        try:
            while True:
                frames.append(self.hear())
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "the server closed without a word"
            return frames, closed.rcvd.code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ws.close()


def is_end(frame: Sent) -> bool:
    """An `error` event within a turn has a number, and a terminal event after it; an error frame has a status."""
    return frame.type in TERMINAL or "status" in frame.json


def error_of(frame: Sent) -> Json:
    """The frame, which is an error with a code that is a string."""
    body = frame.json
    assert set(body) - {"stream_id"} == {"type", "status", "error"}
    assert set(body["error"]) == {"type", "code", "message", "param"}
    assert body["type"] == "error"
    assert isinstance(body["error"]["code"], str)
    return body


def check_error(judge: Judge, frame: Sent, code: str, status: int = 400) -> Json:
    """An error frame that the published schema knows, with this code."""
    body = error_of(frame)
    judge.check("WebSocketErrorEvent", body)
    assert (body["error"]["code"], body["status"]) == (code, status)
    return body
