"""Stored responses, wherever they are: at a server, or in a store that no server has.

A store that no server has is asked in this process, through the endpoints that a server has, so that both tell the
same. Which of the two it is, the lock on the store decides. It draws nothing, and makes no store where there is none.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlencode

import click

from ore.commands.address import refuse_no_url, refuse_two_places
from ore.commands.conversation import call_text, connection_to, path_at
from ore.commands.holder import holder_of
from ore.commands.options import load_settings
from ore.errors import InvalidRequest, StartupError, StoreTaken
from ore.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

PAGE: Final = 100
"""Entries asked for at once: the most that a list gives."""

_BEGINNING: Final = re.compile(r"resp_[0-9a-f]{8,31}")
"""Enough of an id of ours to stand for it, and not the whole."""

SECONDS: Final = 30.0
"""How long a server may take over an answer."""


class Answer(NamedTuple):
    """What an endpoint answered."""

    status: int
    body: bytes


Ask = Callable[[str, str], Answer]
"""Called with a method and a path behind `/v1`."""


class Refused(click.ClickException):
    """What was asked for cannot be had: one sentence, and exit status 1."""


class Stored:
    """The stored responses, over whatever answers; `where` names it. Every method raises `Refused`."""

    def __init__(self, ask: Ask, where: object) -> None:
        self._ask = ask
        self.where = where

    def named(self, text: str) -> str:
        """The id that `text` is, or of which alone it is the beginning."""
        if not _BEGINNING.fullmatch(text) or self._ask("GET", _one(text)).status == 200:
            return text
        status, _ = self._ask("GET", "/ore/responses?limit=1")
        found = [one["id"] for one in self._pages("/ore/responses")] if status == 200 else []
        found = [response_id for response_id in found if response_id.startswith(text)]
        if len(found) > 1:
            raise Refused(f"{text} is the beginning of {len(found)} ids, such as {found[0]}; give more of it.")
        return found[0] if found else text

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """A line about each, newest first."""
        return list(self._pages("/ore/responses", limit))

    def read(self, response_id: str) -> bytes:
        """The response as `GET` gives it."""
        return self._good("GET", _one(response_id))

    def given(self, response_id: str) -> list[dict[str, Any]]:
        """All that the model was given, oldest first."""
        return list(self._pages(f"{_one(response_id)}/input_items", order="asc"))

    def last_given(self, response_id: str) -> list[dict[str, Any]]:
        """The last item of that, if there is one."""
        return list(self._pages(f"{_one(response_id)}/input_items", 1))

    def delete(self, response_id: str) -> None:
        self._good("DELETE", _one(response_id))

    def _pages(self, path: str, limit: int | None = None, **query: str) -> Iterator[dict[str, Any]]:
        left = limit
        while left is None or left > 0:
            asked = {**query, "limit": str(PAGE if left is None else min(left, PAGE))}
            page = json.loads(self._good("GET", f"{path}?{urlencode(asked)}"))
            yield from page["data"]
            if not page["has_more"]:
                return
            left = left and left - len(page["data"])
            query["after"] = page["data"][-1]["id"]

    def _good(self, method: str, path: str) -> bytes:
        status, body = self._ask(method, path)
        if status != 200:
            raise Refused(_sentence(status, path, body))
        return body


class Earlier(NamedTuple):
    """What a chat goes on from: nothing, or a stored response."""

    id: str | None = None
    model: str | None = None
    instructions: str | None = None
    exchange: tuple[str, ...] = ()
    """What was said last, a line for each item."""


def resumable(stored: Stored, response_id: str | None) -> Earlier:
    """The response of this id, or the newest one. Raises `Refused` when it cannot be continued."""
    from ore.core.history import check_continuable

    if response_id is None:
        newest = stored.newest(1)
        if not newest:
            raise Refused("Nothing is stored here yet, so there is nothing to go on from.")
        response_id = newest[0]["id"]
    response_id = stored.named(response_id)
    response = json.loads(stored.read(response_id))
    try:
        check_continuable(response["status"], response_id)
    except InvalidRequest as refusal:
        raise Refused(refusal.message) from None
    said = [*stored.last_given(response_id), *response["output"]]
    instructions = response.get("instructions")
    return Earlier(
        response_id,
        response["model"],
        instructions if isinstance(instructions, str) else None,
        tuple(f"{who}: {text}" for who, text in map(told, said) if text),
    )


def told(item: dict[str, Any]) -> tuple[str, str]:
    """Who says something by an item, and what: as much of it as there are words for."""
    kind = str(item.get("type", "message"))
    if kind == "message":
        return str(item["role"]), _text_of(item["content"])
    if kind == "reasoning":
        return "reasoning", _text_of(item.get("content") or item.get("summary"))
    if kind.endswith("_call"):
        return "tool", call_text(item)
    if kind.endswith("_output"):
        return "result", _text_of(item.get("output"))
    return kind, ""


def _text_of(said: Any) -> str:
    """The words of a content: a text, or parts of which some have one. Whatever else a tool may say is JSON."""
    if isinstance(said, str):
        return said
    if not isinstance(said, list):
        return "" if said is None else json.dumps(said, ensure_ascii=False)
    parts = [part for part in said if isinstance(part, dict)]
    return "".join(str(part.get("text") or part.get("refusal") or f"[{part.get('type')}]") for part in parts)


@contextmanager
def stored_responses(url: str | None, data_dir: str | None, config: Path | None) -> Iterator[Stored]:
    """The responses of a server, or those in the data folder. Raises `StartupError` when neither can be asked."""
    if url is not None:
        refuse_two_places(data_dir, config)
        refuse_no_url(url)
        yield Stored(partial(_over_http, url), url)
        return
    settings = load_settings(config, data_dir=data_dir).settings
    with ExitStack() as stack:
        try:
            ask = stack.enter_context(_in_process(settings))
        except StoreTaken:
            ask = partial(_over_http, holder_of(settings.data_path()))
        yield Stored(ask, settings.data_path())


def _over_http(url: str, method: str, path: str) -> Answer:
    from http.client import HTTPException

    connection = connection_to(url, SECONDS)
    try:
        connection.request(method, path_at(url, path), headers={"accept": "application/json"})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read())
    except (OSError, HTTPException) as error:
        raise StartupError(f"No server answers at {url} ({error or type(error).__name__}); is it running?") from error
    finally:
        connection.close()


@contextmanager
def _in_process(settings: Settings) -> Iterator[Ask]:
    """The endpoints over the store in the data folder, if there is one. Raises `StoreTaken` when a server has it."""
    from anyio.from_thread import start_blocking_portal

    from ore.app import at_rest, store_path

    if not store_path(settings).exists():
        yield _nothing
        return
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(at_rest(settings)) as app:
        yield partial(portal.call, _asked, app)


def _nothing(_: str, path: str) -> Answer:
    """What a store says that has never been."""
    if path.startswith("/ore/"):
        return Answer(200, b'{"data":[],"has_more":false}')
    return Answer(404, b'{"error":{"message":"Nothing is stored here yet."}}')


async def _asked(app: "ASGIApp", method: str, path: str) -> Answer:
    """One request to an application in this process."""
    said: list[Message] = []
    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": "/v1" + unquote(plain),
        "raw_path": f"/v1{plain}".encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
    }

    async def receive() -> "Message":
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: "Message") -> None:
        said.append(message)

    await app(scope, receive, send)
    return Answer(said[0]["status"], b"".join(message["body"] for message in said[1:]))


def _one(response_id: str) -> str:
    return f"/responses/{quote(response_id, safe='')}"


def _sentence(status: int, path: str, body: bytes) -> str:
    """Why something was refused."""
    if status == 404 and path.startswith("/ore/"):
        return "This server lists no responses: it is no ORE, or an older one. Name a response by its id."
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered with HTTP status {status}."
