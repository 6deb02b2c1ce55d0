"""In which order the targets of a route are asked, and why some are passed over. Pure: loads and times are handed in.

A target that cannot do what a request needs is not asked at all; one that is busy, or that is to be left alone, comes
after those that are not. If none can do it, all are asked all the same, and say themselves what is wrong.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import BYTES_PER_TOKEN, Backend, Capabilities, Load, Model, ModelRequest
from ore.core.callable_tools import skipped
from ore.protocol.decoding import JsonObject

TOKENS_PER_IMAGE: Final = 1000


class Target(Struct, frozen=True, kw_only=True):
    """A backend, and the model there. `name` is how clients could ask for it alone."""

    name: str
    backend: Backend
    model: Model
    local: bool = True
    """Whether it runs on this machine: then only its own queue bounds it."""

    @property
    def label(self) -> str:
        """Its name for metrics: an engine's, or the provider's, whatever model of it a client made up."""
        return self.name if self.local else self.name.partition("/")[0]


class Rule(Struct, frozen=True, kw_only=True):
    """How an alias chooses among its targets. Times are in seconds; None: no such bound."""

    order: Literal["ordered", "weighted", "least_busy"] = "ordered"
    weights: tuple[float, ...] = ()
    spill_waiting: int | None = None
    """A target with so many requests in its queue is passed over."""
    spill_seconds: float | None = None
    """A target that would take longer to its first word is passed over."""
    spill_tokens: int | None = None
    """Targets on this machine are passed over for requests that are longer."""
    after_output: Literal["fail", "continue"] = "fail"
    """What happens when a target fails after clients have seen some of its answer."""
    retries: int = 2
    """How often all targets are tried again when each of them failed."""


class Needs(Struct, frozen=True, kw_only=True):
    """What a request asks of a model."""

    embeddings: bool = False
    """Whether it wants vectors instead of an answer."""
    images: bool = False
    files: bool = False
    tools: tuple[JsonObject, ...] = ()
    json_schema: bool = False
    logprobs: bool = False
    tokens: int = 0
    """About how long it is."""


class Choice(Struct, frozen=True):
    """A target, and what speaks against it; the worse, the later it is asked."""

    target: Target
    against: str = ""
    rank: int = 0


FREE: Final = 0
BUSY: Final = 1
RESTING: Final = 2
UNABLE: Final = 3
RANKS: Final = ("free", "busy", "resting", "unable")
"""The words for them."""


def needs_of(request: ModelRequest) -> Needs:
    """What a request asks of a model. Linear in the length of the request."""
    kinds, length = set[object](), len(request.instructions or "")
    for item in request.items:
        for part in _parts(item):
            kinds.add(part.get("type"))
            length += len(part.get("text") or "") if isinstance(part.get("text"), str) else 0
        said = item.get("arguments") or item.get("input") or item.get("output")
        length += len(said) if isinstance(said, str) else 0
    length += len(msgspec.json.encode(request.tools)) if request.tools else 0
    images = sum(1 for item in request.items for part in _parts(item) if part.get("type") == "input_image")
    return Needs(
        images="input_image" in kinds,
        files="input_file" in kinds,
        tools=request.tools,
        json_schema=request.text_format["type"] == "json_schema",
        logprobs=request.top_logprobs is not None,
        tokens=length // BYTES_PER_TOKEN + images * TOKENS_PER_IMAGE,
    )


def _parts(item: JsonObject) -> Iterable[JsonObject]:
    for key in ("content", "output"):
        value = item.get(key)
        if isinstance(value, list):
            yield from (part for part in value if isinstance(part, dict))


def unable(capabilities: Capabilities, needs: Needs) -> str:
    """Why a model cannot do what is needed; empty when it can."""
    window = capabilities.context_window
    if needs.embeddings and capabilities.embeddings is None:
        return "it makes no embeddings"
    if not needs.embeddings and not capabilities.responses:
        return "it only makes embeddings"
    if needs.images and not capabilities.images:
        return "it cannot see images"
    if needs.tools and not capabilities.tools:
        return "it cannot call tools"
    if types := skipped(needs.tools, capabilities.tool_types):
        return f"it has no use for tools of type {types[0]}"
    if needs.json_schema and not capabilities.json_schema:
        return "it cannot be held to a schema"
    if needs.logprobs and not capabilities.logprobs:
        return "it gives no logprobs"
    if window is not None and needs.tokens > window:
        return f"its context holds {window} tokens, and the request has about {needs.tokens}"
    return ""


def busy(rule: Rule, target: Target, load: Load, first_delta_seconds: float, tokens: int) -> str:
    """Why a target that could is passed over for now; empty when it is not."""
    seconds = load.wait_seconds + first_delta_seconds
    if rule.spill_waiting is not None and load.waiting >= rule.spill_waiting and _is_full(load):
        return f"{load.running} requests run there and {load.waiting} wait"
    if rule.spill_seconds is not None and seconds > rule.spill_seconds:
        return f"its first word would take about {seconds:.1f} s"
    if rule.spill_tokens is not None and target.local and tokens > rule.spill_tokens:
        return f"the request has about {tokens} tokens"
    return ""


def _is_full(load: Load) -> bool:
    return load.slots is not None and load.running >= load.slots


class Seen(Struct, frozen=True):
    """How a target stands right now."""

    load: Load = Load()
    rests: float = 0.0
    """Seconds that it is to be left alone."""
    first_delta_seconds: float = 0.0


def choices(
    targets: Sequence[Target],
    rule: Rule,
    needs: Needs,
    seen: Mapping[str, Seen],
    chance: Callable[[], float] = random.random,
    *,
    begun: str = "",
) -> list[Choice]:
    """Every target, in the order in which they are to be asked; those that cannot come last.

    `begun` names the target that has begun this answer: it comes first, whatever speaks against it.
    """
    ordered = _ordered(targets, rule, seen, chance)
    judged = [_judged(target, rule, needs, seen[target.name]) for target in ordered]
    return sorted(judged, key=lambda choice: (choice.target.name != begun, choice.rank))


def _judged(target: Target, rule: Rule, needs: Needs, seen: Seen) -> Choice:
    if why := unable(target.model.capabilities, needs):
        return Choice(target, why, UNABLE)
    if seen.rests > 0:
        return Choice(target, f"it has failed, and is left alone for {seen.rests:.0f} s", RESTING)
    if why := busy(rule, target, seen.load, seen.first_delta_seconds, needs.tokens):
        return Choice(target, why, BUSY)
    return Choice(target)


def _ordered(
    targets: Sequence[Target], rule: Rule, seen: Mapping[str, Seen], chance: Callable[[], float]
) -> list[Target]:
    if rule.order == "least_busy":
        return sorted(targets, key=lambda target: (_fullness(seen[target.name].load), chance()))  # ties are shared
    if rule.order == "weighted":
        # Efraimidis and Spirakis (2006): a random order in which each comes first as often as its weight says
        keys = {target.name: chance() ** (1 / weight) for target, weight in zip(targets, rule.weights, strict=True)}
        return sorted(targets, key=lambda target: -keys[target.name])
    return list(targets)


def _fullness(load: Load) -> float:
    """How much of a target is taken; a target without a known bound counts its requests."""
    taken = load.running + load.waiting
    return taken / load.slots if load.slots else float(taken)
