"""Embeddings over the targets of a route: who cannot make them is left out, who fails is replaced by the next.

Nothing is tried twice, for clients do that, and nobody has seen any of the answer. Vectors of different models cannot
be compared: that an alias names targets of one and the same model is for the operator to see to.
"""

import logging
from collections.abc import Sequence

import anyio
from msgspec import structs

from ore.backends.base import BYTES_PER_TOKEN, Embedded, EmbeddingRequest
from ore.errors import HTTPFault
from ore.routing.breaker import Breakers
from ore.routing.faults import code_of, is_mendable, remember, resting
from ore.routing.route import Route
from ore.routing.rules import RANKS, RESTING, UNABLE, Choice, Needs, Seen, Target, choices
from ore.telemetry import Metrics

logger = logging.getLogger("ore.routing")


async def embedded(route: Route, request: EmbeddingRequest, breakers: Breakers, metrics: Metrics) -> Embedded:
    """The vectors of the first target that makes them. Raises the most telling of the faults when none does."""
    faults: list[HTTPFault] = []
    for target in _targets(route, request, breakers, metrics):
        try:
            made = await _asked(target, request, breakers)
        except HTTPFault as fault:
            faults.append(fault)
            metrics.failures.labels(route.alias, target.label, code_of(fault)).inc()
            logger.info("%s: %s failed, %s (%s)", route.name, target.name, type(fault).__name__, fault.code)
        else:
            metrics.answers.labels(route.alias, target.label).inc()
            metrics.embedded_inputs.labels(target.label).inc(len(request.inputs))
            metrics.embedded_tokens.labels(target.label).inc(made.input_tokens)
            return made
    mendable = (fault for fault in faults if is_mendable(fault, alias=bool(route.alias)))
    raise next(mendable, faults[-1])


def _targets(route: Route, request: EmbeddingRequest, breakers: Breakers, metrics: Metrics) -> Sequence[Target]:
    """Whom to ask, in order. Raises `Unavailable` when all of them are to be left alone."""
    seen = {target.name: _seen(target, breakers) for target in route.targets}
    if len(route.targets) == 1 and route.first.local:
        return route.targets
    found = choices(route.targets, route.rule, needs_of(request), seen)
    able = [choice for choice in found if choice.rank < UNABLE] or found
    if all(choice.rank == RESTING for choice in able):
        raise resting(route.name, min(seen[choice.target.name].rests for choice in able))
    for choice in found:
        _note(route, choice, found[0], metrics)
    return [choice.target for choice in able]


def _note(route: Route, choice: Choice, first: Choice, metrics: Metrics) -> None:
    if choice.rank > first.rank:
        metrics.passed_over.labels(route.alias, choice.target.label, RANKS[choice.rank]).inc()


def needs_of(request: EmbeddingRequest) -> Needs:
    """What a request asks of a model: that it embeds, and takes the longest input."""
    longest = max(len(given) // (BYTES_PER_TOKEN if isinstance(given, str) else 1) for given in request.inputs)
    return Needs(embeddings=True, tokens=longest)


def _seen(target: Target, breakers: Breakers) -> Seen:
    rests = breakers(target.name, target.label).seconds_left(anyio.current_time())
    return Seen(load=target.backend.load(), rests=rests)


async def _asked(target: Target, request: EmbeddingRequest, breakers: Breakers) -> Embedded:
    """One target's vectors; what came of it is remembered."""
    breaker = breakers(target.name, target.label)
    breaker.asked(anyio.current_time())
    try:
        made = await target.backend.embed(structs.replace(request, model=target.model.id))
    except HTTPFault as fault:
        remember(breaker, fault, anyio.current_time(), local=target.local)
        raise
    except BaseException:
        breaker.left_unknown()
        raise
    breaker.answered()
    return made
