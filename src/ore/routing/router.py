"""From the name a client asks for to the targets that may answer.

    engines     what runs on this machine, by the names of its models
    providers   models elsewhere, as `PROVIDER/MODEL`; and by their own name, where a provider lists it
    aliases     names of the operator's for several of those, with a rule (`ore.routing.rules`)

The router opens no connection and knows no wire; how an answer comes about is `ore.routing.sampling`.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import anyio
from msgspec import Struct, structs

from ore.backends.base import Backend, Embedded, EmbeddingRequest, Health, Model
from ore.errors import HTTPFault, InvalidRequest, NotFound, StartupError
from ore.protocol.decoding import MAX_QUOTED, JsonObject, quoted, quoted_all
from ore.routing.breaker import Breakers
from ore.routing.cache import ResponseCache
from ore.routing.embedding import embedded
from ore.routing.route import Passage, Route
from ore.routing.rules import Rule, Target
from ore.routing.sampling import Build, Sampling
from ore.telemetry import Metrics

logger = logging.getLogger("ore.routing")


class Classifier(Protocol):
    """Picks among targets by what a request says: a classical text classifier, or any other."""

    async def classify(self, text: str) -> str:
        """A label for a text. Raises `HTTPFault`."""


class Alias(Struct, frozen=True, kw_only=True):
    """A name for several targets. With a classifier, `picks` says which target a label puts first."""

    targets: tuple[str, ...]
    rule: Rule = Rule()
    classifier: str | None = None
    picks: Mapping[str, str] = {}


class Router:
    """Models by the names that clients use."""

    def __init__(
        self,
        engines: Mapping[str, Backend],
        providers: Mapping[str, Backend] | None = None,
        aliases: Mapping[str, Alias] | None = None,
        *,
        default_model: str | None = None,
        classifiers: Mapping[str, Classifier] | None = None,
        cache: ResponseCache | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`engines` by a name for health pages; `providers` by the names that stand before their models'."""
        self._engines = dict(engines)
        self._providers = dict(providers or {})
        self._aliases = dict(aliases or {})
        self._default = default_model
        self._classifiers = dict(classifiers or {})
        self._cache = cache
        self._metrics = metrics or Metrics()
        self._breakers = Breakers()
        self._metrics.count_resting(lambda: self._breakers.resting(anyio.current_time()))
        self._owners: dict[str, str] = {}
        """The provider of a model by its own name, as last listed; of two that list it, the first."""

    async def models(self) -> list[Model]:
        """Every model, in a stable order, as `GET /models` lists them: aliases with what their first target can do."""
        engines = [model for backend in self._engines.values() for model in await backend.models()]
        aliases = [structs.replace(self._alias(name).first.model, id=name, owned_by="ore") for name in self._aliases]
        return [*engines, *aliases, *await self._elsewhere()]

    async def _elsewhere(self) -> list[Model]:
        """The models of all providers, which are asked at the same time."""
        found: dict[str, list[Model]] = {name: [] for name in self._providers}

        async def ask(name: str) -> None:
            models = await self._providers[name].models()
            found[name] = [structs.replace(model, id=f"{name}/{model.id}") for model in models]

        async with anyio.create_task_group() as tasks:
            for name in self._providers:
                tasks.start_soon(ask, name)
        for name in reversed(found):
            self._owners |= {model.id.removeprefix(f"{name}/"): name for model in found[name]}
        return [model for models in found.values() for model in models]

    async def served(self) -> list[str]:
        """What can be asked for, in short: engines' models, aliases, and `PROVIDER/*`. Asks no provider."""
        engines = [model.id for backend in self._engines.values() for model in await backend.models()]
        return [*engines, *self._aliases, *(f"{name}/*" for name in self._providers)]

    async def route(self, name: str | None, items: Sequence[JsonObject] = ()) -> Route:
        """What a name stands for. A classifier is shown what the user said last in `items`.

        Raises `InvalidRequest` without a name, `NotFound` for an unknown one.
        """
        name = name or self._default
        if name is None:
            raise InvalidRequest(
                f"Missing required parameter: 'model'. Configured: {quoted_all(await self.served())}.",
                code="missing_required_parameter",
                param="model",
            )
        if name in self._aliases:
            return await self._picked(name, items)
        target = self._target(name) or await self._listed(name)
        if target is None and name in self._providers:
            raise unknown_model(name, [f"{name}/MODEL"])
        if target is None:
            raise unknown_model(name, await self._names())
        return Route(name=name, targets=(target,))

    def sample(
        self,
        route: Route,
        build: Build,
        passage: Passage,
        *,
        wants_cache: bool | None = None,
        begun: str = "",
        hidden: bool = False,
    ) -> Sampling:
        """An answer of the route's targets, to be entered and iterated over. The options are those of `Sampling`."""
        return Sampling(
            route,
            build,
            self._breakers,
            passage,
            self._metrics,
            cache=self._cache,
            wants_cache=wants_cache,
            begun=begun,
            hidden=hidden,
        )

    async def embed(self, route: Route, request: EmbeddingRequest) -> Embedded:
        """The vectors of the route's first target that makes them. Raises `RequestError` or `ServerFault`."""
        return await embedded(route, request, self._breakers, self._metrics)

    async def start(self) -> None:
        """Bring everything up. Raises `StartupError`, also for an alias of what there is not."""
        for backend in (*self._engines.values(), *self._providers.values()):
            await backend.start()
        for name in self._aliases:
            self._alias(name)

    async def stop(self) -> None:
        """Take everything down, the last one first. Whatever one of them raises comes when all are stopped."""
        async with AsyncExitStack() as stack:
            for backend in (*self._engines.values(), *self._providers.values()):
                stack.push_async_callback(backend.stop)

    async def health(self) -> dict[str, Health]:
        """By the backend's name."""
        return {name: await backend.health() for name, backend in (self._engines | self._providers).items()}

    def _target(self, name: str) -> Target | None:
        """An engine's model, or `PROVIDER/MODEL`."""
        for backend in self._engines.values():
            if (model := backend.model(name)) is not None:
                return Target(name=name, backend=backend, model=model)
        provider, _, rest = name.partition("/")
        backend_of = self._providers.get(provider)
        found = backend_of.model(rest) if backend_of is not None and rest else None
        return (
            None
            if backend_of is None or found is None
            else Target(name=name, backend=backend_of, model=found, local=False)
        )

    async def _listed(self, name: str) -> Target | None:
        """A provider's model by its own name: what code that was written for that provider says.

        Providers are asked for their models only when none is known to have it: one that is slow keeps nobody waiting.
        """
        if name not in self._owners:
            await self._elsewhere()
        return self._target(f"{self._owners[name]}/{name}") if name in self._owners else None

    def _alias(self, name: str) -> Route:
        alias = self._aliases[name]
        found = [(wanted, self._target(wanted)) for wanted in alias.targets]
        if missing := [wanted for wanted, target in found if target is None]:
            raise StartupError(
                f"The model {name} has the target {missing[0]}, which nothing here serves; name another."
            )
        targets = tuple(target for _, target in found if target)
        return Route(name=name, targets=targets, rule=alias.rule, alias=name)

    async def _picked(self, name: str, items: Sequence[JsonObject]) -> Route:
        """An alias, the target that its classifier picks put first. One that cannot be asked picks none."""
        route, alias = self._alias(name), self._aliases[name]
        if alias.classifier is None or not items:
            return route
        try:
            picked = alias.picks.get(await self._classifiers[alias.classifier].classify(_said_last(items)))
        except HTTPFault as fault:
            logger.warning("%s: the classifier %s picks no target: %s", name, alias.classifier, fault.message)
            return route
        if picked is None:
            return route
        targets = sorted(route.targets, key=lambda target: target.name != picked)
        return structs.replace(route, targets=tuple(targets), rule=structs.replace(alias.rule, order="ordered"))

    async def _names(self) -> Sequence[str]:
        return [model.id for model in await self.models()]


def _said_last(items: Sequence[JsonObject]) -> str:
    """The text of the last message of the user."""
    said = [item for item in items if item.get("role") == "user"]
    return "\n".join(str(part["text"]) for part in said[-1]["content"] if "text" in part) if said else ""


def unknown_model(name: str, offered: Sequence[str]) -> NotFound:
    """404 that names what there is, and the nearest."""
    near = difflib.get_close_matches(name[:MAX_QUOTED], offered, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return NotFound(
        f"The requested model {quoted(name)} does not exist.{hint} Configured: {quoted_all(offered)}. "
        "Add it as [models.NAME] in the configuration, or run `ore models`.",
        code="model_not_found",
        param="model",
    )
