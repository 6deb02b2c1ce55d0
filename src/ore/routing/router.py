"""From the name a client asks for to the backend that answers, and the model's name there.

One target per name for now; the order of targets, fallback and hybrid rules have their place here. The router opens no
connection and knows no wire.
"""

import difflib
from collections.abc import Mapping

from msgspec import Struct

from ore.backends.base import Backend, Health, Model
from ore.errors import InvalidRequest, NotFound
from ore.protocol.decoding import MAX_QUOTED, quoted, quoted_all


class Target(Struct, frozen=True):
    """A backend, and the model there."""

    backend: Backend
    model: Model


class Router:
    """Models by the names that clients use."""

    def __init__(self, backends: Mapping[str, Backend], *, default_model: str | None = None) -> None:
        """`backends` by a name for health pages; each offers what its `models()` says."""
        self._backends = dict(backends)
        self._default = default_model

    async def models(self) -> list[Model]:
        """Every model, in a stable order, as `GET /models` lists them."""
        return [model for backend in self._backends.values() for model in await backend.models()]

    async def choose(self, name: str | None) -> Target:
        """The target for a name. Raises `InvalidRequest` without one, `NotFound` for an unknown one."""
        name = name or self._default
        offered: dict[str, Target] = {}
        for backend in self._backends.values():
            for model in await backend.models():
                offered.setdefault(model.id, Target(backend, model))
        if name is None:
            raise InvalidRequest(
                f"Missing required parameter: 'model'. Configured: {quoted_all(offered)}.",
                code="missing_required_parameter",
                param="model",
            )
        if name not in offered:
            raise unknown_model(name, list(offered))
        return offered[name]

    async def start(self) -> None:
        for backend in self._backends.values():
            await backend.start()

    async def stop(self) -> None:
        for backend in self._backends.values():
            await backend.stop()

    async def health(self) -> dict[str, Health]:
        """By the backend's name."""
        return {name: await backend.health() for name, backend in self._backends.items()}


def unknown_model(name: str, offered: list[str]) -> NotFound:
    """404 that names what there is, and the nearest."""
    near = difflib.get_close_matches(name[:MAX_QUOTED], offered, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return NotFound(
        f"The requested model {quoted(name)} does not exist.{hint} Configured: {quoted_all(offered)}. "
        "Add it as [models.NAME] in the configuration, or run `ore models`.",
        code="model_not_found",
        param="model",
    )
