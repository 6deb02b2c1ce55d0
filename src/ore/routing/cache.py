"""The response cache: the answer to a request that was asked before, without asking a model.

Exact match only: a request is known by a hash of all that can change its answer, its owner included, so that no owner
is told what another asked. An answer is replayed as the deltas that it was made of, on the path of a fresh one. Equal
requests that come while the first is being answered wait for its end: one asks the model, however many they are.

Kept are only whole answers: those that were cut or filtered might end otherwise the next time. Never kept are answers
with items that the upstream made by itself. Such an item is the trace of something that was done (a search, a program
that ran, a call to somebody's server): a replay would tell of it without doing it, and twice under one id.

It refuses to guess which requests mean the same, to outlive its process, and to know where answers come from.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

import anyio
import msgspec
from msgspec import Struct, structs

from ore.backends.base import JsonObject, ModelRequest
from ore.core.deltas import Delta, Finish, ItemBegun, ItemEvent, ToolCall, WholeItem
from ore.ids import NewId
from ore.protocol.items import CALL_OUTPUTS, TOOL_ITEMS

logger = logging.getLogger("ore.routing")

ENTRY_BYTES: Final = 320
"""What an entry takes beside its encoded answer (measured): the key, the checksum, its place in the table."""

KEPT_REASONS: Final = ("stop", "tool_calls")
"""How an answer must have ended to be kept."""

_UNSEEN: Final = ("places", "prompt_cache_key", "safety_identifier")
"""Fields of a request that change no answer."""

_RESULTS: Final = frozenset(CALL_OUTPUTS.values())
"""Items whose `status` a model sees: whether what it called went well."""

_NAMELESS: Final = frozenset({"message", "reasoning", *CALL_OUTPUTS, *TOOL_ITEMS}) | _RESULTS
"""Items whose `id` means nothing to a model. Others may stand for what an upstream keeps under it, such as an image."""

_DECODER: Final = msgspec.json.Decoder(tuple[Delta, ...])


class Hit(Struct, frozen=True):
    """An answer that is known: `deltas`, the last one a `Finish`. Its usage is what it cost when it was made."""

    deltas: tuple[Delta, ...]


class Lead:
    """An answer that is not known: whoever holds this asks the model, and ends it with `keep`, `fail` or `give_up`."""

    def __init__(self, cache: "ResponseCache", key: bytes, flight: "_Flight | None") -> None:
        self._cache = cache
        self._key = key
        self._flight = flight

    def keep(self, deltas: Sequence[Delta]) -> bool:
        """Keep a finished answer, for those who wait too; whether it may be kept.

        When not, those who wait need not hope for another leader: each of them asks the model, all at the same time.
        """
        body = msgspec.json.encode(deltas) if may_be_kept(deltas) else None
        if body is not None:
            self._cache._put(self._key, body)
        self._land(body, shared=False)
        return body is not None

    def give_up(self) -> None:
        """Nobody wants the answer here any more: one of those who wait leads. Idle after another end."""
        self._land(None, shared=True)

    def fail(self) -> None:
        """The model gave no answer. Each of those who wait asks, at the same time: in turn they would wait too long."""
        self._land(None, shared=False)

    def _land(self, body: bytes | None, *, shared: bool) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.body, flight.shared = body, shared
            del self._cache._flights[self._key]
            flight.over.set()


class _Flight:
    """A request that is being answered, for equal ones to wait for. When it is over, `body` is the answer to it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.body: bytes | None = None
        self.shared = True
        """Whether, without an answer, only one of those who wait leads."""


class _Entry(Struct, frozen=True):
    expires_at: float
    checksum: bytes
    body: bytes


class ResponseCache:
    """Answers of one process by the hash of their requests; for one event loop."""

    def __init__(
        self, *, ttl: float, max_bytes: int, new_id: NewId, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ttl` and `clock` are in seconds. `max_bytes` bounds all entries: the least recently used goes first.

        `new_id` gives the calls of a replayed answer ids of their own.
        """
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._new_id = new_id
        self._clock = clock
        self._bytes = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}

    def key(self, target_name: str, request: ModelRequest, *, asked: bool | None = None) -> bytes | None:
        """What a request to that target is known by; None when it may not be cached.

        `asked`: whether its client wants it cached; None leaves that to whether it is repeatable.
        """
        if not (is_repeatable(request) if asked is None else asked):
            return None
        seen = {name: value for name, value in structs.asdict(request).items() if name not in _UNSEEN}
        seen["items"] = list(_nameless(request.items))
        # sorted and without blanks there is one spelling of each value; JSON's values, so no NaN that would be a null
        canonical = msgspec.json.encode([target_name, seen], order="sorted")
        return blake2b(canonical, digest_size=32).digest()

    def known(self, key: bytes) -> Hit | None:
        """The answer, if there is one. Gives nobody a duty."""
        body = self._get(key)
        return None if body is None else Hit(self._replay(body))

    async def lookup(self, key: bytes) -> Hit | Lead:
        """The answer, or else the duty to get it. Waits while somebody else has that duty."""
        while True:
            if (hit := self.known(key)) is not None:
                return hit
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight()
                return Lead(self, key, flight)
            await flight.over.wait()
            if flight.body is not None:
                return Hit(self._replay(flight.body))
            if not flight.shared:
                return Lead(self, key, None)

    def _replay(self, body: bytes) -> tuple[Delta, ...]:
        """The deltas of an answer, with new ids for its calls: a client must be able to tell them from those it has."""
        return tuple(
            structs.replace(delta, call_id=self._new_id("call")) if isinstance(delta, ToolCall) else delta
            for delta in _DECODER.decode(body)
        )

    def _get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self._drop(key)
            return None
        if entry.checksum != _checksum(key, entry.body):
            logger.warning("an entry of the response cache was damaged, and is not used")
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.body

    def _put(self, key: bytes, body: bytes) -> None:
        self._drop(key)
        if ENTRY_BYTES + len(body) > self._max_bytes:  # it would push out all the others, and itself
            return
        self._entries[key] = _Entry(self._clock() + self._ttl, _checksum(key, body), body)
        self._bytes += ENTRY_BYTES + len(body)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes -= ENTRY_BYTES + len(entry.body)


def is_repeatable(request: ModelRequest) -> bool:
    """Whether its answer would be the same again, as far as sampling goes: no chance, or a seed."""
    return request.sampling.temperature == 0 or request.sampling.seed is not None


def may_be_kept(deltas: Sequence[Delta]) -> bool:
    """Whether an answer is whole, and all of it was said by the model."""
    finish = deltas[-1] if deltas else None
    if not isinstance(finish, Finish) or finish.reason not in KEPT_REASONS:
        return False
    return not any(isinstance(delta, ItemBegun | ItemEvent | WholeItem) for delta in deltas)


def _nameless(items: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """The items as a model sees them: without ids that mean nothing to it.

    Ids of calls pair things, and become numbers in the order in which they appear; no id is a number.
    """
    numbers: dict[str, int] = {}
    for item in items:
        kind = item["type"]
        seen = {name: value for name, value in item.items() if not _is_unseen(kind, name, item)}
        if isinstance(caller := seen.get("caller"), dict):
            seen["caller"] = _numbered(caller, "caller_id", numbers)
        yield _numbered(seen, "call_id", numbers)


def _numbered(holder: JsonObject, name: str, numbers: dict[str, int]) -> JsonObject:
    value = holder.get(name)
    return {**holder, name: numbers.setdefault(value, len(numbers))} if isinstance(value, str) else holder


def _is_unseen(kind: str, name: str, item: JsonObject) -> bool:
    if name == "encrypted_content":  # another seal each time; what was in it has been laid beside it
        return kind == "reasoning" and "state" in item
    return kind in _NAMELESS and (name == "id" or (name == "status" and kind not in _RESULTS))


def _checksum(key: bytes, body: bytes) -> bytes:
    """Over the key too: an answer must not turn up under another request."""
    return blake2b(body, digest_size=16, key=key).digest()
