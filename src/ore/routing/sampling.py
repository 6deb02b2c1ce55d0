"""One sampling over the targets of a route: whoever fails before a client has seen anything is replaced.

A target is asked, and if it refuses, fails or falls silent, the next one; when all have failed, all are tried again,
within a budget and with growing pauses. Afterwards, when clients have seen some of the answer, the route's rule says
whether another target goes on with it. It looks like one backend's stream to the run, and knows no response, no event
and no wire.
"""

import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Final

import anyio
from msgspec import Struct

from ore.backends.base import ModelRequest
from ore.core.deltas import Begin, Delta, Finish
from ore.errors import HTTPFault, ModelFailed, RequestError
from ore.routing.breaker import Breaker, Breakers
from ore.routing.cache import ResponseCache
from ore.routing.faults import code_of, is_mendable, is_passing, remember, resting
from ore.routing.recall import Recall
from ore.routing.route import Passage, Route
from ore.routing.rules import FREE, RANKS, RESTING, UNABLE, Choice, Seen, Target, choices, needs_of
from ore.routing.told import Told, is_visible
from ore.telemetry import Metrics

logger = logging.getLogger("ore.routing")

FIRST_BACKOFF: Final = 0.25
"""Seconds before all targets are tried again, at most; twice as long each time."""

PATIENCE: Final = 5.0
"""Seconds that a request waits for a target that is to be left alone; those that take longer are told to the client."""

GLANCE: Final = 0.25
"""Seconds after which a request that waits looks again: of many that wait, one probes the target for all."""

Build = Callable[[Target], ModelRequest]
"""What a target is asked. Raises `InvalidRequest` when it cannot be asked that."""


class _Failure(Struct, frozen=True):
    """What came of a target. `request` is None when it could not be asked that."""

    target: Target
    request: ModelRequest | None
    fault: HTTPFault


class Sampling:
    """An answer in the making. Enter it, iterate over it once, leave it.

    Entering asks targets until one takes the request; when none does, it raises the most telling of their faults.
    Iterating gives deltas up to the `Finish`, from whichever targets it takes. `target` and `request` are those that
    the deltas, or the fault, are of.
    """

    def __init__(
        self,
        route: Route,
        build: Build,
        breakers: Breakers,
        passage: Passage,
        metrics: Metrics,
        *,
        cache: ResponseCache | None = None,
        wants_cache: bool | None = None,
        begun: str = "",
        hidden: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`wants_cache`: whether the client asked for the response cache, or asked not to have it.

        `begun`: the target that another process had this answer begun by; it is asked first.
        `hidden`: no client sees anything of it, so that a target can be replaced whatever it has said.
        """
        self._route = route
        self._build = build
        self._breakers = breakers
        self._passage = passage
        self._metrics = metrics
        self._recall = Recall(cache, wants_cache, passage, metrics)
        self._begun = begun
        self._chance = chance
        self._stack = AsyncExitStack()
        self._deltas: AsyncIterator[Delta]
        self._left: list[Choice] = []
        self._failures: dict[str, _Failure] = {}
        self._rounds = 0
        self._due_at = 0.0
        self._answering = False
        self._breaker: Breaker | None = None
        """That of the target that was asked; None while nobody is, and for an answer from the cache."""
        self._told = Told()
        self._hidden = hidden
        self._visible = False
        self._settled = False
        """Whether a delta can tell nothing more but that it is the last: so it is for nearly all."""
        self._eventful = False
        """Whether there is anything to tell but that the first target answers."""
        self._continues = route.rule.after_output == "continue" and not hidden
        self.restarts = 0
        """How often the answer has begun anew: what was said before that is no part of it."""
        self.target = route.first
        self.request: ModelRequest | None = None

    @property
    def asked(self) -> ModelRequest:
        """What the target that took the request was asked."""
        assert self.request is not None  # noqa: S101
        return self.request

    async def __aenter__(self) -> "Sampling":
        try:
            self._left = self._choices()
            if not await self._is_remembered():
                await self._rested()
                await self._enter_next()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    def __aiter__(self) -> "Sampling":
        return self

    async def __anext__(self) -> Delta:
        while True:
            try:
                delta = await anext(self._deltas)
            except StopAsyncIteration:
                fault: HTTPFault = _ended_early()
            except HTTPFault as raised:
                fault = raised
            else:
                if not self._settled or type(delta) is Finish:
                    self._hear(delta)
                return delta
            if (seam := await self._replace(fault)) is not None:
                return seam

    def _hear(self, delta: Delta) -> None:
        """Note what a delta says about the answer, and about who gives it."""
        if not self._answering:
            self._begins_to_answer()
        self._visible = self._visible or (not self._hidden and is_visible(delta))
        if self._continues:
            self._told.hear(delta)
        self._recall.hear(delta)
        if self._breaker is not None and isinstance(delta, Finish):
            self._breaker.answered()
        self._settled = (self._visible or self._hidden) and not self._continues and not self._recall.leads

    def _choices(self) -> list[Choice]:
        """The targets in their order. What speaks against one is only asked where there are others."""
        route = self._route
        if len(route.targets) == 1:
            rests = not route.first.local and self._seen(route.first).rests > 0
            return [Choice(route.first, rank=RESTING if rests else FREE)]
        request = self._buildable()
        seen = {target.name: self._seen(target) for target in route.targets}
        found = choices(route.targets, route.rule, needs_of(request), seen, self._chance, begun=self._begun)
        for choice in found:
            if choice.rank > found[0].rank:
                self._eventful = True
                self._passage.note(choice.target.name, f"passed over, for {choice.against}")
                self._metrics.passed_over.labels(route.alias, choice.target.label, RANKS[choice.rank]).inc()
        return [choice for choice in found if choice.rank < UNABLE] or found

    def _all_rest(self) -> bool:
        return all(choice.rank == RESTING for choice in self._left)

    async def _is_remembered(self) -> bool:
        """Whether the answer of a target is in the cache where nobody may be asked: a replay disturbs no target."""
        if not self._all_rest():
            return False
        for choice in self._left:
            try:
                request = self._build(choice.target)
            except RequestError:
                continue
            if (known := self._recall.known(choice.target, request)) is not None:
                self.target, self.request = choice.target, request
                await self._replay(known)
                return True
        return False

    async def _rested(self) -> None:
        """Wait until at least one may be asked; a pause that is too long is the client's to wait."""
        if not self._all_rest():
            return
        until: float | None = None
        while (rests := min(self._seen(choice.target).rests for choice in self._left)) > 0:
            now = anyio.current_time()
            until = until or now + rests + PATIENCE  # as long again for the probe of another request
            if rests > PATIENCE or now > until:
                raise resting(self._route.name, rests)
            await anyio.sleep(min(rests, GLANCE))

    def _buildable(self) -> ModelRequest:
        """The request as the first target that can be asked it would get it: what all of them need to do."""
        for target in self._route.targets[:-1]:
            try:
                return self._build(target)
            except RequestError:
                continue
        return self._build(self._route.targets[-1])

    def _seen(self, target: Target) -> Seen:
        breaker, now = self._breaker_of(target), anyio.current_time()
        return Seen(
            load=target.backend.load(),
            rests=breaker.seconds_left(now),
            first_delta_seconds=breaker.first_delta_seconds(now),
        )

    def _breaker_of(self, target: Target) -> Breaker:
        return self._breakers(target.name, target.label)

    async def _enter_next(self) -> None:
        """Have the next target take the request. Raises the most telling fault when none is left."""
        while True:
            while self._left:
                target = self._left.pop(0).target
                if self._is_affordable(target) and await self._entered(target):
                    return
            if not await self._another_round():
                raise self._most_telling()

    def _is_affordable(self, target: Target) -> bool:
        """Whether it may be asked: once always, and again within its budget."""
        return target.name not in self._failures or self._breaker_of(target).may_retry

    async def _entered(self, target: Target) -> bool:
        self.target, self.request, self._breaker = target, None, None
        self._answering = self._settled = False
        try:
            self.request = self._build(target)
            if await self._is_known(target, self.request):
                return True
            self._breaker = self._breaker_of(target)
            self._breaker.asked(anyio.current_time(), again=target.name in self._failures)
            self._due_at = anyio.current_time() + target.backend.load().wait_seconds
            stream = target.backend.stream(self._told.continued(self.request))
            self._deltas = await self._stack.enter_async_context(stream)
        except HTTPFault as fault:
            self._failed(fault)
            return False
        return True

    async def _is_known(self, target: Target, request: ModelRequest) -> bool:
        """Whether the answer is in the cache, or another request has just got it."""
        known = None if self._visible else await self._recall.answer(target, request)
        if known is not None:
            await self._replay(known)
        return known is not None

    async def _replay(self, known: Sequence[Delta]) -> None:
        self._passage.note(self.target.name, "answered before, from the cache")
        self._answering = True
        self._deltas = await self._stack.enter_async_context(aclosing(_replayed(known)))

    def _begins_to_answer(self) -> None:
        self._answering, now = True, anyio.current_time()
        seconds = max(0.0, now - self._due_at)
        if self._breaker is not None:
            self._breaker.began(now, seconds)
        self._metrics.answers.labels(self._route.alias, self.target.label).inc()
        self._metrics.first_delta.labels(self.target.label).observe(seconds)
        self._passage.note(self.target.name, "answers")
        if self._eventful:
            logger.info("%s: %s", self._route.name, self._passage.said)

    def _failed(self, fault: HTTPFault) -> None:
        """Note what came of the target that was asked."""
        self._recall.fail()
        target = self.target
        self._failures[target.name] = _Failure(target, self.request, fault)
        self._eventful = True
        self._passage.note(target.name, f"failed, {type(fault).__name__} ({fault.code})")
        if self._breaker is not None:
            remember(self._breaker, fault, anyio.current_time(), local=target.local)
            self._breaker = None
        self._metrics.failures.labels(self._route.alias, target.label, code_of(fault)).inc()

    async def _another_round(self) -> bool:
        """Wait, and fill the list again, if trying again may help and there is a budget for it."""
        again = [(self._seen(target).rests, target) for target in self._route.targets if self._may_pass(target)]
        soonest = min((rests for rests, _ in again), default=0.0)
        if self._rounds >= self._route.rule.retries or soonest > PATIENCE:
            return False
        pause = soonest + FIRST_BACKOFF * 2**self._rounds * self._chance()
        due = [target for rests, target in again if rests <= pause]
        self._left = [Choice(target) for target in due if self._is_affordable(target)]
        self._rounds += 1
        if self._left:
            await anyio.sleep(pause)
        return bool(self._left)

    def _may_pass(self, target: Target) -> bool:
        """Whether a target's failure may pass. An engine on this machine that is full says so: it has a queue."""
        failure = self._failures.get(target.name)
        alone = target.local and len(self._route.targets) == 1
        return failure is not None and is_passing(failure.fault) and not alone

    def _most_telling(self) -> HTTPFault:
        """What a client can mend comes first, then what was said last. `target` is then the one that said it."""
        said = list(self._failures.values())
        mendable = (failure for failure in said if is_mendable(failure.fault, alias=bool(self._route.alias)))
        telling = next(mendable, said[-1])
        self.target, self.request = telling.target, telling.request
        logger.info("%s: %s", self._route.name, self._passage.said)
        return telling.fault

    async def _replace(self, fault: HTTPFault) -> Delta | None:
        """Put another target in the place of the one that failed while it answered; raises when that cannot be.

        Gives a delta that ends what the failed one had begun, where clients have seen some of it.
        """
        had_begun = self._answering
        self._failed(fault)
        await self._stack.aclose()
        if not self._visible:
            await self._enter_next()
            self.restarts += had_begun
            return Begin("message") if had_begun else None
        if not (self._continues and self._told.may_be_continued(self.asked)):
            raise fault
        self._left = [choice for choice in self._choices() if choice.target is not self.target]
        try:
            await self._enter_next()
        except HTTPFault:
            raise fault from None
        return None if self._told.text else Begin("message")

    async def _leave(self) -> None:
        self._recall.leave()
        if self._breaker is not None and not self._answering:
            self._breaker.left_unknown()
        await self._stack.aclose()


def _ended_early() -> HTTPFault:
    return ModelFailed(
        "The model's stream ended before it said why. Send the request again.", code="upstream_incomplete"
    )


async def _replayed(deltas: Sequence[Delta]) -> AsyncGenerator[Delta]:
    for delta in deltas:
        yield delta
