"""`Idempotency-Key`: the same request under the same key gets the same answer again, and nothing happens twice.

An answer is kept before its last byte goes out, so whoever has it whole gets it again, even after `kill -9`. What
refuses a request (4xx, 503) is not kept, and no answer that was broken off: the key is free then, for the work was
refused or cancelled. It refuses to know what it keeps: status, headers and body are bytes to it, those of a stream too.
The stream of a background response is not copied: it can be asked for, so only the place is kept (303), from the moment
that it begins, and followed for whoever comes again.

Requests without the header pass by untouched.
"""

import hashlib
import logging
import re
from contextlib import suppress
from typing import Final

import anyio
import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ore.errors import Conflict, HTTPFault, InvalidRequest, StorageFailed
from ore.server.errors import log_fault, to_http_response
from ore.server.middleware import CatchAll
from ore.server.reading import OWNER
from ore.stores.base import Store, StoredAnswer

logger = logging.getLogger("ore.server")

HEADER: Final = b"idempotency-key"
REPLAYED: Final = (b"x-ore-idempotent-replay", b"true")
PATHS: Final = re.compile(r"/v1/(responses(/compact)?|embeddings|conversations(/[^/]+/items)?)")
"""Where POST makes something."""

SEE_OTHER: Final = 303
"""The status of an answer that is to be found at its `location`."""

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Larger answers go out and are not kept."""

STORE_SECONDS: Final = 30.0
"""How long the end of an answer waits for the store."""

MAX_KEY: Final = 255


class Idempotency:
    """Innermost of the middleware, so that what it keeps names no request and what it reads is decoded.

    Answers are kept for `keep_seconds`; an answer that takes longer than `hold_seconds` loses its key.
    """

    def __init__(self, app: ASGIApp, *, store: Store, keep_seconds: float, hold_seconds: float) -> None:
        self.app, self.answering = app, CatchAll(app)
        self.store, self.keep_seconds, self.hold_seconds = store, keep_seconds, hold_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key(scope)
        if key is None:
            await self.app(scope, receive, send)
            return
        try:
            name, body = _checked(key), await _Body.read(scope, receive)
            answer = await self._reserve(name, scope, body)
        except HTTPFault as fault:
            log_fault(fault)
            await to_http_response(fault)(scope, receive, send)
            return
        if answer is not None and answer.status == SEE_OTHER:
            await self.app(_to_follow(scope, answer), receive, _marked(send))
            return
        if answer is not None:
            await _replay(answer, send)
            return
        recorder = _Recorder(self, name, scope, send)
        try:
            await self.answering(scope, body.receive, recorder.send)
        finally:
            await recorder.end()

    async def _reserve(self, key: str, scope: Scope, body: "_Body") -> StoredAnswer | None:
        """The answer that is there already; None when this request is the first. Raises the two conflicts."""
        holder, print_ = _holder(scope), body.fingerprint
        found = await self.store.reserve(OWNER, key, print_, holder=holder, seconds=self.hold_seconds)
        if found == "other request":
            raise _reused()
        if found == "in use":
            raise _in_use()
        return found if isinstance(found, StoredAnswer) else None

    async def keep(self, key: str, holder: str, answer: StoredAnswer | None) -> None:
        """Keep the answer, or with None give the key back. A store that fails keeps nobody from an answer."""
        with anyio.move_on_after(STORE_SECONDS, shield=True):
            try:
                if answer is not None:
                    await self.store.complete(OWNER, key, holder, answer, seconds=self.keep_seconds)
            except StorageFailed as failure:
                logger.warning("an answer could not be kept under its idempotency key: %s", failure)
                answer = None
            with suppress(StorageFailed):  # then it ends by itself
                if answer is None:
                    await self.store.free(OWNER, key, holder)


class _Body:
    """A request's body that was read ahead, and then whatever else its sender does."""

    def __init__(self, whole: bytes, fingerprint: bytes, receive: Receive) -> None:
        self.fingerprint = fingerprint
        self._whole: bytes | None = whole
        self._receive = receive

    @classmethod
    async def read(cls, scope: Scope, receive: Receive) -> "_Body":
        """Read it to its end, telling apart requests by method, path, query and body. Raises `ClientDisconnect`."""
        seen = hashlib.sha256(msgspec.json.encode([scope["method"], scope["path"], scope["query_string"].decode()]))
        pieces: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            seen.update(pieces[-1])
            more = message.get("more_body", False)
        return cls(b"".join(pieces), seen.digest(), receive)

    async def receive(self) -> Message:
        if self._whole is None:
            return await self._receive()
        whole, self._whole = self._whole, None
        return {"type": "http.request", "body": whole, "more_body": False}


class _Recorder:
    """Passes an answer on, and has it kept before its last piece. The head waits for the first piece."""

    def __init__(self, keeper: Idempotency, key: str, scope: Scope, send: Send) -> None:
        self._keeper, self._key, self._scope, self._send = keeper, key, scope, send
        self._head: Message | None = None
        self._head_sent = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._settled = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            if (place := self._scope["state"].get("place")) is not None and message["status"] == 200:
                await self._settle(StoredAnswer(SEE_OTHER, msgspec.json.encode([("location", place)]), b""))
            return
        self._record(message.get("body", b""))
        if not message.get("more_body", False) and not self._settled:
            await self._settle(self._answer())
        if self._head is not None and not self._head_sent:
            self._head_sent = True
            await self._send(self._head)
        await self._send(message)

    async def end(self) -> None:
        """Nothing more comes: an answer that is not whole by now never will be."""
        await self._settle(None)

    async def _settle(self, answer: StoredAnswer | None) -> None:
        if not self._settled:
            self._settled = True
            await self._keeper.keep(self._key, _holder(self._scope), answer)

    def _record(self, piece: bytes) -> None:
        if self._settled:
            return
        self._size += len(piece)
        if self._size <= MAX_ANSWER_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def _answer(self) -> StoredAnswer | None:
        """What is to be kept, if this is."""
        assert self._head is not None  # noqa: S101
        status: int = self._head["status"]
        if self._size > MAX_ANSWER_BYTES or 400 <= status < 500 or status == 503:
            return None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head["headers"]]
        return StoredAnswer(status, msgspec.json.encode(headers), b"".join(self._pieces))


def _to_follow(scope: Scope, answer: StoredAnswer) -> Scope:
    """A GET of the place where the answer is; the body of the request it stands for has been read."""
    ((_, place),) = msgspec.json.decode(answer.headers, type=list[tuple[str, str]])
    path, _, query = place.partition("?")
    headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type", HEADER)]
    asked = {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    return {**scope, **asked, "headers": headers}


def _marked(send: Send) -> Send:
    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], REPLAYED]}
        await send(message)

    return send_marked


async def _replay(answer: StoredAnswer, send: Send) -> None:
    pairs = msgspec.json.decode(answer.headers, type=list[tuple[str, str]])
    headers = [*((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs), REPLAYED]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def _key(scope: Scope) -> bytes | None:
    """The header, on requests that it means something to."""
    if scope["type"] != "http" or scope["method"] != "POST" or not PATHS.fullmatch(scope["path"]):
        return None
    return next((value for name, value in scope["headers"] if name == HEADER), None)


def _holder(scope: Scope) -> str:
    """Who answers: the request's own id, which no other has."""
    return str(scope["state"]["request_id"])


def _checked(key: bytes) -> str:
    name = key.decode("latin-1")
    if not (1 <= len(name) <= MAX_KEY and name.isascii() and name.isprintable()):
        message = f"Invalid 'Idempotency-Key': expected 1 to {MAX_KEY} printable ASCII characters, such as a UUID."
        raise InvalidRequest(message, code="invalid_idempotency_key")
    return name


def _reused() -> InvalidRequest:
    message = (
        "This 'Idempotency-Key' belongs to another request: its method, path or body differ. Send this one with a new "
        "key, or exactly the first one again to get its answer."
    )
    return InvalidRequest(message, code="idempotency_key_reused", headers={"x-should-retry": "false"})


def _in_use() -> Conflict:
    message = "The first request with this 'Idempotency-Key' is still running. Send it again in a moment."
    headers = {"retry-after": "1", "x-should-retry": "true"}  # unlike other conflicts, this one mends itself
    return Conflict(message, code="idempotency_key_in_use", headers=headers)
