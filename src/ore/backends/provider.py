"""One provider as a `Backend`: a dialect that translates, an `Upstream` that carries, profiles that know its models.

It words no error (`provider_faults` does), tries nothing twice (`ore.routing` does), keeps no answer, and sends
nobody's key but its own.
"""

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import msgspec
from msgspec import Struct

from ore.backends.admission import Admission
from ore.backends.base import BYTES_PER_TOKEN, Embedded, EmbeddingRequest, Health, Load, Model, ModelRequest
from ore.backends.dialect import Decoder, Dialect, Listed, UpstreamError
from ore.backends.embeddings import makes_no_embeddings
from ore.backends.profiles import Profile, profile_of
from ore.backends.provider_embeddings import embedding_body, joined, portions, read_embeddings
from ore.backends.provider_faults import GARBAGE, ProviderFaults
from ore.backends.upstream import Answer, Refused, Upstream
from ore.core.deltas import Delta, Finish
from ore.errors import HTTPFault, ServerFault

logger = logging.getLogger("ore.backends")

DISCOVERY_SECONDS: Final = 5.0
"""How long a listing of models may take; then what was known before is shown."""

RELIST_SECONDS: Final = 15.0
"""After which a provider that did not list its models is asked again: it may have been starting."""

END_MARK: Final = b"[DONE]"
"""What OpenAI and its likes send as the last event of a stream."""


class ProviderOptions(Struct, frozen=True, kw_only=True):
    """What a provider is configured with beside its address. Times are in seconds."""

    kind: str
    """`openai`, `anthropic`, ...: which rows of the profiles are meant for it."""
    models: tuple[str, ...] = ()
    """The only models that may be asked for; empty: all that it has."""
    discover: bool = True
    discovery_ttl: float = 300.0
    max_concurrent: int = 256
    queue: int = 1024


class Provider:
    """A `Backend` in front of one provider's API."""

    def __init__(
        self,
        dialect: Dialect,
        upstream: Upstream,
        options: ProviderOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = upstream.name
        self._dialect = dialect
        self._upstream = upstream
        self._faults = ProviderFaults(upstream, dialect.name)
        self._options = options
        self._clock = clock
        self._admission = Admission(options.max_concurrent, options.queue, clock)
        self._listed: dict[str, Listed] = {}
        self._list_at: float | None = None
        """When it is asked again; None: it has not been asked yet."""
        self._listing = anyio.Lock()

    async def start(self) -> None:
        """Asks nobody: a provider that is away must not keep the others from being served."""
        await self._upstream.start()

    async def stop(self) -> None:
        await self._upstream.stop()

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `Backend.stream`. A full queue is a 429; the wait for a place happens on entering."""
        asked = self._dialect.ask(request, self._profile(request.model), self.name)
        ticket = self._admission.enter(request.owner)
        try:
            await ticket.wait()
            async with self._upstream.stream(self._dialect.path, asked.body, asked.headers) as answer:
                yield _Deltas(answer, asked.decoder, self._faults, request.model)
        except Refused as refused:
            raise self._faults.refusal(refused, request.model) from None
        finally:
            ticket.release()

    async def count_tokens(self, request: ModelRequest) -> int:
        """As the provider counts; where it cannot, an estimate by the length of the request."""
        profile = self._profile(request.model)
        counting = self._dialect.counting(request, profile, self.name)
        if counting is None:
            body = self._dialect.ask(request, profile, self.name).body
            return len(msgspec.json.encode(body)) // BYTES_PER_TOKEN
        try:
            return self._dialect.counted(await self._upstream.call("POST", *counting))
        except Refused as refused:
            raise self._faults.refusal(refused, request.model) from None
        except GARBAGE:
            raise self._faults.garbage() from None

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """See `Backend.embed`. As many inputs at a time as its answer can be read of as a whole."""
        if not self._dialect.embeddings_path:
            raise makes_no_embeddings(f"{self.name}/{request.model}")
        ticket = self._admission.enter(request.owner)
        try:
            await ticket.wait()
            return joined([await self._portion(portion) for portion in portions(request)])
        finally:
            ticket.release()

    async def _portion(self, request: EmbeddingRequest) -> Embedded:
        try:
            body = await self._upstream.call("POST", self._dialect.embeddings_path, embedding_body(request))
            return read_embeddings(body, len(request.inputs))
        except Refused as refused:
            raise self._faults.refusal(refused, request.model) from None
        except GARBAGE:
            raise self._faults.garbage() from None

    async def models(self) -> list[Model]:
        """Those it lists, as last heard; asked again when that is long ago. Raises nothing."""
        if self._options.models:
            return [self._model(name) for name in self._options.models]
        if self._options.discover:
            await self._discover()
        return [self._model(name) for name in self._listed]

    def model(self, name: str) -> Model | None:
        """Any name will do, for a provider may have models that it does not list, unless some were configured."""
        if self._options.models and name not in self._options.models:
            return None
        return self._model(name)

    def load(self) -> Load:
        return self._admission.load()

    async def health(self) -> Health:
        """A provider is not for this server's readiness to judge: what fails goes elsewhere."""
        load = self.load()
        return Health(ok=True, detail={"running": load.running, "waiting": load.waiting, "models": len(self._listed)})

    def _model(self, name: str) -> Model:
        listed = self._listed.get(name)
        owned_by = (listed and listed.owned_by) or self.name
        created = listed.created if listed is not None else 0
        return Model(id=name, created=created, owned_by=owned_by, capabilities=self._profile(name).capabilities())

    def _profile(self, name: str) -> Profile:
        """The family's profile, and what the provider told about this model."""
        profile, listed = profile_of(self._options.kind, name), self._listed.get(name)
        return msgspec.structs.replace(profile, **listed.facts) if listed is not None and listed.facts else profile

    async def _discover(self) -> None:
        async with self._listing:
            if self._list_at is not None and self._clock() < self._list_at:
                return
            ttl = min(RELIST_SECONDS, self._options.discovery_ttl)
            try:
                with anyio.fail_after(DISCOVERY_SECONDS):
                    body = await self._upstream.call("GET", self._dialect.models_path)
                self._listed = {listed.id: listed for listed in self._dialect.models(body)}
                ttl = self._options.discovery_ttl
            except Refused as refused:
                logger.warning("%s does not list its models: HTTP %d", self.name, refused.status)
            except (ServerFault, TimeoutError, *GARBAGE) as error:
                logger.warning("%s does not list its models: %s", self.name, _said(error))
            self._list_at = self._clock() + ttl  # not when whoever wanted to know has left


def _said(error: Exception) -> str:
    return error.message if isinstance(error, HTTPFault) else type(error).__name__


class _Deltas:
    """The deltas of one answer. What was said before a fault is given first."""

    def __init__(self, answer: Answer, decoder: Decoder, faults: ProviderFaults, model: str) -> None:
        self._answer = answer
        self._decoder = decoder
        self._faults = faults
        self._model = model
        self._ready: deque[Delta] = deque()
        self._fault: HTTPFault | None = None
        self._over = False
        """Whether nothing more is read of it."""
        self._finished = False

    def __aiter__(self) -> "_Deltas":
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._fault is not None:
                raise self._fault
            if self._over:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def _read(self) -> None:
        """Take what has come. An answer is over with its `Finish`, with the mark of an end, or with its stream."""
        events = await self._answer.read()
        try:
            for data in events:
                self._over = data == END_MARK
                self._take(self._decoder.end() if self._over else self._decoder.feed(data))
                if self._over:
                    self._answer.ended = True
                    break
            if not events:
                self._over = True
                self._take(self._decoder.end())
        except UpstreamError as error:
            self._fault = self._faults.told(error, self._model)
        except GARBAGE:
            self._fault = self._faults.garbage()
        else:
            if self._over and not self._finished:
                self._fault = self._faults.unfinished(senseless=self._answer.senseless)

    def _take(self, deltas: Sequence[Delta]) -> None:
        self._ready.extend(deltas)
        if deltas and isinstance(deltas[-1], Finish):
            self._finished = self._over = True
