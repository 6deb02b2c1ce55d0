"""One provider's HTTP: the pool, time limits, server-sent events. The hot path of every provider.

It refuses to know dialects, to try again what was taken, to follow redirects (a key would go along) and to say an
address or a key to anybody. Why aiohttp: `docs/adr/0013-what-a-gateway-costs.md`.
"""

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import aiohttp
import anyio
import msgspec
from msgspec import Struct
from yarl import URL

from ore import __version__
from ore.backends.base import JsonObject
from ore.backends.event_stream import BodyReader, EventReader, EventTooLong
from ore.errors import DeadlineExceeded, ModelFailed, ServerFault
from ore.hosts import is_loopback

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of an answer that is no stream; more is cut off."""

SHORTEST_SECRET: Final = 6
"""Characters; a shorter value of a header would be found in any text."""

DRAIN_SECONDS: Final = 2.0
"""How long a connection may take to end an answer that has said all; then it is not used again."""


class UpstreamOptions(Struct, frozen=True, kw_only=True):
    """Where a provider is, and how long it may take. Times are in seconds."""

    base_url: str
    headers: Mapping[str, str] = {}
    connect_timeout: float = 5.0
    first_byte_timeout: float = 120.0
    """From the request to the first event of its answer."""
    idle_timeout: float = 60.0
    """Between two events."""

    def __repr__(self) -> str:
        return f"UpstreamOptions(base_url={self.base_url!r}, ...)"  # a key among the headers is in no log


class Refused(Exception):
    """An answer without 2xx. `retry_after` is in seconds."""

    def __init__(self, status: int, body: bytes, retry_after: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class Unreachable(ModelFailed):
    """Nobody answered at all: the request was not taken."""


class Upstream:
    """HTTP to one provider, whose `name` its faults say. `start` it, and `stop` it."""

    def __init__(self, name: str, options: UpstreamOptions) -> None:
        self.name = name
        self.options = options
        self._base = options.base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._draining: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Opens no connection yet. Idempotent."""
        if self._session is not None:
            return
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.options.connect_timeout),
            headers={"User-Agent": f"ore/{__version__}", **self.options.headers, "Accept-Encoding": "gzip, deflate"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not is_loopback(URL(self._base).host or ""),  # proxies are for what is not on this machine
            read_bufsize=64 * 1024,
            trace_configs=[_noting_reuse()],
        )

    async def stop(self) -> None:
        """Close every connection. Idempotent."""
        session, self._session = self._session, None
        for task in self._draining:
            task.cancel()
        if session is not None:
            await session.close()

    async def call(self, method: str, path: str, body: JsonObject | None = None) -> bytes:
        """An answer as a whole, for small things. Raises `Refused` or `ServerFault`."""
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        with self._translated(), anyio.fail_after(self.options.connect_timeout + self.options.first_byte_timeout):
            response = await self._open(method, path, data, headers)
            try:
                return await _body(response)
            finally:
                response.release()

    def masked(self, text: str) -> str:
        """A text of the provider's without what it is sent in headers: it may repeat a key."""
        for value in self.options.headers.values():
            for secret in (value, value.rpartition(" ")[2]):
                if len(secret) >= SHORTEST_SECRET:
                    text = text.replace(secret, "***")
        return text

    @asynccontextmanager
    async def stream(self, path: str, body: JsonObject, headers: Mapping[str, str]) -> AsyncIterator["Answer"]:
        """Post, and read the events of the answer. Leaving disconnects at once, which frees the provider.

        Raises `Refused`, `Unreachable` or another `ServerFault` on entering.
        """
        sent = time.monotonic()
        whole = {"Content-Type": "application/json", "Accept": "text/event-stream", **headers}
        with self._translated():
            response = await self._open("POST", path, msgspec.json.encode(body), whole)
        left = self.options.first_byte_timeout - (time.monotonic() - sent)
        answer = Answer(self, response, max(left, 0.001))
        try:
            yield answer
        finally:
            answer.close()
            if answer.ended and not response.content.is_eof():
                self._drain(response)
            else:
                response.close()  # of one that is at its end, the connection has been given back

    async def _open(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise ModelFailed(f"The provider '{self.name}' is not started yet. Send the request again in a moment.")
        with anyio.fail_after(self.options.connect_timeout + self.options.first_byte_timeout):
            response = await self._request(self._session, method, path, data, headers)
            if 200 <= response.status < 300:
                return response
            try:
                raise Refused(response.status, await _body(response), _retry_after(response.headers))
            finally:
                response.release()

    async def _request(
        self, session: aiohttp.ClientSession, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Ask, on a fresh connection if need be: a kept one may have been closed, and nobody took the request then.

        llama-server closes every connection after it has streamed, and says that it will keep it.
        """
        while True:
            connection = _Connection()
            try:
                return await session.request(
                    method,
                    f"{self._base}/{path}",
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    trace_request_ctx=connection,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError):
                if not connection.kept:
                    raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """A block in which the client library's errors become ours."""
        name, options = self.name, self.options
        try:
            yield
        except aiohttp.ConnectionTimeoutError as error:
            raise self.too_slow("took no connection", options.connect_timeout, "connect_timeout") from error
        except TimeoutError as error:
            raise self.too_slow("did not answer", options.first_byte_timeout, "first_byte_timeout") from error
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            kind = "its certificate is not valid" if isinstance(error, aiohttp.ClientSSLError) else "it does not answer"
            raise Unreachable(
                f"The provider '{name}' cannot be reached: {kind}. Check [providers.{name}] base_url.",
                code="upstream_unreachable",
            ) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise Unreachable(
                f"The provider '{name}' closed the connection without an answer. Send the request again.",
                code="upstream_unreachable",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self.broken_off() from error

    def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the end of an answer that has said all, beside the run, so that its connection can be used again."""

        async def drain() -> None:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await response.content.readany()
                    while not response.content.at_eof():
                        await response.content.readany()
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass

        task = asyncio.create_task(drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
        task.add_done_callback(lambda _: response.close())  # also when it is cancelled before it begins

    def broken_off(self) -> ModelFailed:
        return ModelFailed(
            f"The provider '{self.name}' broke its answer off. Send the request again.", code="upstream_incomplete"
        )

    def too_slow(self, what: str, seconds: float, setting: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The provider '{self.name}' {what} within {seconds:g} s. Send the request again, or raise "
            f"[providers.{self.name}] {setting}.",
            code="upstream_timeout",
        )


class Answer:
    """The events of one answer, as they come. One timer watches over it.

    The time to the first event has one limit, however many comments come meanwhile; after it, anything that comes is a
    sign of life.
    """

    def __init__(self, upstream: Upstream, response: aiohttp.ClientResponse, first_byte_seconds: float) -> None:
        self._upstream = upstream
        self._response = response
        self._events: EventReader | BodyReader = EventReader()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._heard = False
        self._begun = False
        self._late: ServerFault | None = None
        self._seconds = first_byte_seconds
        self._timer = self._loop.call_later(first_byte_seconds, self._watch)
        self.ended = False
        """Whether its reader has heard all that it wanted."""
        self.whole = False
        """Whether it is a JSON object instead of a stream; its body is the only event then."""

    async def read(self) -> list[bytes]:
        """The data of the next events, at least one; none when the answer is over. Raises `ServerFault`."""
        while True:
            try:
                chunk = await self._response.content.readany()
                self._look_at(chunk)
                events = self._events.feed(chunk) if chunk else self._events.end()
            except (aiohttp.ClientError, OSError) as error:
                raise self._late or self._upstream.broken_off() from error
            except EventTooLong:
                raise ModelFailed(
                    f"The provider '{self._upstream.name}' sent an event that is too long to be one.",
                    code="upstream_garbage",
                ) from None
            self._heard = self._heard or bool(events)
            if self._heard:  # until the first event, comments are no answer
                self._heard_at = self._loop.time()
            if events or not chunk:
                if self._late is not None:
                    raise self._late
                return events

    @property
    def senseless(self) -> bool:
        """Whether something came, and nothing of it was an event: a page for people, say."""
        return self.whole or (self._begun and not self._heard)

    def close(self) -> None:
        self._timer.cancel()

    def _look_at(self, chunk: bytes) -> None:
        """Some servers stream nothing, whatever they are asked; others call a stream JSON, but none begins with `{`."""
        if not self._begun and chunk.strip():
            self._begun = True
            if self._response.content_type == "application/json" and chunk.lstrip().startswith(b"{"):
                self._events, self.whole = BodyReader(MAX_BODY_BYTES), True

    def _watch(self) -> None:
        """Silence that is too long ends the answer: closing the connection wakes its reader."""
        options = self._upstream.options
        silent = self._loop.time() - self._heard_at
        limit = options.idle_timeout if self._heard else self._seconds
        if silent < limit:
            self._timer = self._loop.call_later(limit - silent, self._watch)
        elif self._heard:
            self._late = self._upstream.too_slow("said nothing more", options.idle_timeout, "idle_timeout")
            self._response.close()
        else:
            limit = options.first_byte_timeout
            self._late = self._upstream.too_slow("did not begin to answer", limit, "first_byte_timeout")
            self._response.close()


class _Connection(Struct):
    """What is noted about the connection that a request went over."""

    kept: bool = False
    """Whether it had served another request before."""


def _noting_reuse() -> aiohttp.TraceConfig:
    async def note(
        _session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        context.trace_request_ctx.kept = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer, as much as is reasonable."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return body


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from whichever header there is (RFC 9110, 10.2.3; OpenAI adds `retry-after-ms`)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except ValueError:
        return None
