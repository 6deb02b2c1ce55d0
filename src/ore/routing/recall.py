"""A sampling's part in the response cache: it looks its answer up, and keeps the one that it had to get for others.

It asks no model, and does not know which target comes next.
"""

from collections.abc import Sequence
from typing import Literal

from ore.backends.base import ModelRequest
from ore.core.deltas import Delta, Finish
from ore.routing.cache import Hit, Lead, ResponseCache
from ore.routing.route import Passage
from ore.routing.rules import Target
from ore.telemetry import Metrics


class Recall:
    """The cache as one sampling sees it. `wanted`: whether its client asked for it, or asked not to have it."""

    def __init__(self, cache: ResponseCache | None, wanted: bool | None, passage: Passage, metrics: Metrics) -> None:
        self._cache = cache
        self._wanted = wanted
        self._passage = passage
        self._metrics = metrics
        self._lead: Lead | None = None
        self._said: list[Delta] = []

    @property
    def leads(self) -> bool:
        """Whether others may wait for the answer that is being got."""
        return self._lead is not None

    async def answer(self, target: Target, request: ModelRequest) -> Sequence[Delta] | None:
        """The answer, if it is known; if not, it is for us to get it. Waits while another is getting it."""
        key = self._key(target, request)
        if self._cache is None or key is None:
            return None
        found = await self._cache.lookup(key)
        if isinstance(found, Hit):
            return self._hit(found)
        self._note("miss")
        self._lead, self._said = found, []
        return None

    def known(self, target: Target, request: ModelRequest) -> Sequence[Delta] | None:
        """The answer, if it is known. Waits for nobody, and promises nothing to others."""
        key = self._key(target, request)
        found = self._cache.known(key) if self._cache is not None and key is not None else None
        return None if found is None else self._hit(found)

    def hear(self, delta: Delta) -> None:
        """Collect the answer; at its end those who wait for it have it too."""
        if self._lead is None:
            return
        self._said.append(delta)
        if isinstance(delta, Finish):
            self._lead.keep(self._said)
            self._lead = None

    def fail(self) -> None:
        """The target failed: those who wait for its answer ask for themselves."""
        if self._lead is not None:
            self._lead.fail()
            self._lead = None

    def leave(self) -> None:
        """The client is gone: one of those who wait gets the answer for all. Idempotent."""
        if self._lead is not None:
            self._lead.give_up()
            self._lead = None

    def _key(self, target: Target, request: ModelRequest) -> bytes | None:
        return self._cache.key(target.name, request, asked=self._wanted) if self._cache is not None else None

    def _hit(self, found: Hit) -> Sequence[Delta]:
        self._note("hit")
        return found.deltas

    def _note(self, outcome: Literal["hit", "miss"]) -> None:
        self._passage.cached = outcome
        self._metrics.cache_lookups.labels(outcome).inc()
