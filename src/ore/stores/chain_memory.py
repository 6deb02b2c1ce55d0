"""Chains as they were read last, so that a conversation that goes on costs the database its newest turn alone.

A chain is remembered under the version of the history in whose snapshot it was read, and is not given out in another:
so nobody has to say what became untrue. It knows neither the database nor the wire. Safe for use from many threads.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ore.stores.base import Turn

MAX_BYTES: Final = 32 * 1024 * 1024
"""What all chains together may weigh. One that weighs more than a quarter of it is not remembered."""

_ITEM_OVERHEAD: Final = 256  # bytes that an item takes beside its body, about


@dataclass
class _Chain:
    version: int
    turns: list[Turn]
    size: int


class ChainMemory:
    """The chains used last, each by its owner and its newest response."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._chains: OrderedDict[tuple[str, str], _Chain] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, owner: str, response_id: str, version: int) -> list[Turn] | None:
        """The turns up to that response, if they are remembered in this version of the history."""
        with self._lock:
            chain = self._chains.get((owner, response_id))
            if chain is None or chain.version != version:
                return None
            self._chains.move_to_end((owner, response_id))
            return list(chain.turns)

    def keep(self, owner: str, turns: Sequence[Turn], version: int) -> None:
        """Remember a chain that was read whole."""
        with self._lock:
            self._put(owner, _Chain(version, list(turns), sum(map(_weight, turns))))

    def grow(self, owner: str, response_id: str, turn: Turn, version: int) -> None:
        """The chain up to that response goes on with `turn`: remember it in place of what it was, if it still is."""
        with self._lock:
            chain = self._pop((owner, response_id))
            if chain is not None and chain.version == version:
                chain.turns.append(turn)
                chain.size += _weight(turn)
                self._put(owner, chain)

    def _put(self, owner: str, chain: _Chain) -> None:
        key = owner, chain.turns[-1].id
        self._pop(key)
        if chain.size * 4 <= self._max_bytes:
            self._chains[key] = chain
            self._bytes += chain.size
        while self._bytes > self._max_bytes:
            self._pop(next(iter(self._chains)))

    def _pop(self, key: tuple[str, str]) -> _Chain | None:
        chain = self._chains.pop(key, None)
        self._bytes -= 0 if chain is None else chain.size
        return chain


def _weight(turn: Turn) -> int:
    return sum(len(item.body) + _ITEM_OVERHEAD for item in (*turn.input, *turn.output))
