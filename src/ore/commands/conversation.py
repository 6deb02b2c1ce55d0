"""Talks to a server by the Responses API: one streamed answer at a time, chained by `previous_response_id`.

Blocking on purpose: closing the iterator, as Ctrl-C does, closes the connection, and that cancels the answer on the
server. Whatever goes wrong is a piece of kind `error`, never an exception. Draws nothing.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from http.client import HTTPConnection

_SILENCE: Final = 600.0
"""Seconds without a byte after which a server counts as dead. Ours sends a comment every 15 seconds."""


class Piece(NamedTuple):
    """Something to show. `tool` is a call the model made: its name and arguments."""

    kind: Literal["text", "reasoning", "tool", "note", "error"]
    text: str


class Conversation:
    """One chat with one model. `url` is the server's, with or without `/v1`."""

    def __init__(self, url: str, model: str, system: str | None = None) -> None:
        self._url = url
        self._model = model
        self._system = system
        self.previous_response_id: str | None = None

    def ask(self, text: str) -> Generator[Piece, None, None]:
        """Send one message and follow the answer. An answer that was broken off leaves no trace in the chain."""
        body: dict[str, Any] = {"model": self._model, "input": text, "stream": True}
        if self._system is not None:
            body["instructions"] = self._system
        if self.previous_response_id is not None:
            body["previous_response_id"] = self.previous_response_id
        with closing(_post_events(self._url, body)) as events:
            for event in events:
                if event["type"] in ("response.completed", "response.incomplete"):
                    self.previous_response_id = event["response"]["id"]
                yield from pieces_of(event)
                if _error_of(event).get("code") == "previous_response_not_found":
                    self.previous_response_id = None
                    yield Piece("note", "The server no longer knows this conversation; the next message starts anew.")


def served_models(url: str, timeout: float = 2.0) -> list[str] | None:
    """The models of the server at `url`; None when nothing there answers like one."""
    from http.client import HTTPException

    connection = connection_to(url, timeout)
    try:
        connection.request("GET", path_at(url, "/models"), headers={"accept": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return [entry["id"] for entry in body["data"]] if answer.status == 200 else None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        connection.close()


def pieces_of(event: dict[str, Any]) -> list[Piece]:
    """What of an event there is to show. Unknown events show nothing."""
    kind = event.get("type", "")
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        return [Piece("text", event["delta"])]
    if kind in ("response.reasoning.delta", "response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
        return [Piece("reasoning", event["delta"])]
    if kind == "response.output_item.done" and event["item"].get("type", "").endswith("_call"):
        return [Piece("tool", call_text(event["item"]))]
    if kind == "response.incomplete":
        reason = (event["response"].get("incomplete_details") or {}).get("reason", "no reason given")
        return [Piece("note", f"The answer was cut short: {reason}.")]
    if kind == "error":
        return [Piece("error", str(_error_of(event).get("message") or "The server reports an error."))]
    return []


def call_text(item: dict[str, Any]) -> str:
    """A call as it would be written: its name and its arguments."""
    arguments = item.get("arguments") or item.get("input") or item.get("action") or ""
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{item.get('name') or item['type']}({shown})"


def _error_of(event: dict[str, Any]) -> dict[str, Any]:
    """The error in an `error` event, which may be nested or flat."""
    if event.get("type") != "error":
        return {}
    nested = event.get("error")
    return nested if isinstance(nested, dict) else event


def events_of(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Read server-sent events whose data is a JSON object. Comments and the `[DONE]` marker are left out."""
    data: list[bytes] = []
    for line in lines:
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            if data != [b"[DONE]"]:
                yield json.loads(b"\n".join(data))
            data = []


def _post_events(url: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
    """The events of one streamed response, and an `error` event for anything that went wrong on the way."""
    from http.client import HTTPException

    connection = connection_to(url, _SILENCE)
    try:
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        connection.request("POST", path_at(url, "/responses"), json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            yield _refusal(answer.status, answer)
            return
        yield from _until_the_end(events_of(answer))
    except (OSError, HTTPException) as error:
        yield _failure(f"The connection to {url} failed ({error or type(error).__name__}); is the server running?")
    except (ValueError, KeyError, TypeError, AttributeError):
        yield _failure(f"What {url} sent is no stream of Responses events; is it an Open Responses server?")
    finally:
        connection.close()


def _until_the_end(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Stop at the terminal event; say so where there is none, and where `response.failed` is all that was said."""
    told = False
    for event in events:
        told = told or event["type"] == "error"
        yield event
        if event["type"] == "response.failed" and not told:
            yield _failure((event["response"].get("error") or {}).get("message") or "The answer failed.")
        if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
            return
    if not told:
        yield _failure("The server ended the stream before the answer was complete.")


def _refusal(status: int, answer: IO[bytes]) -> dict[str, Any]:
    try:
        return {"type": "error", "error": dict(json.loads(answer.read())["error"])}
    except (ValueError, KeyError, TypeError):
        return _failure(f"The server answered with HTTP status {status}.")


def _failure(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"message": message}}


def connection_to(url: str, timeout: float) -> "HTTPConnection":
    from http.client import HTTPConnection, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


def path_at(url: str, endpoint: str) -> str:
    """The path of an endpoint such as `/models`, for a URL with or without `/v1`."""
    return urlsplit(url).path.rstrip("/").removesuffix("/v1") + "/v1" + endpoint
