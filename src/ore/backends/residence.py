"""Which models are in memory: loaded at their first use, unloaded when others need the room or nobody asks for long.

`Residence` keeps a budget of bytes for all of them; `OnDemand` is a backend that lives in it. Loads happen one after
the other. When room is needed, the model that was used least recently goes, as soon as its last answer is over; whoever
asks for it meanwhile stands in line for its next life, so that no model can keep another one out. It refuses to look at
GPU memory, which engines bound themselves, and to end a running answer for the sake of room.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol

import anyio
from msgspec import structs

from ore.backends.base import Backend, Health, Load, Model, ModelRequest
from ore.core.deltas import Delta
from ore.errors import StartupError, Unavailable

log = logging.getLogger(__name__)

State = Literal["unloaded", "loading", "loaded", "leaving"]
FOREVER: Final = -1.0
FAILED_RETRY: Final = 10.0
"""Seconds after which a client may ask again for a model that could not be loaded."""


class Loadable(Backend, Protocol):
    """A backend that can be started and stopped again and again."""

    def memory(self) -> int | None:
        """Bytes of memory that it takes now; None where that cannot be told."""


class Resident:
    """One model and its place in memory. `needs` are the bytes that it is expected to take, before it ever did."""

    def __init__(
        self, name: str, backend: Loadable, *, engine: str = "", needs: int = 0, keep_alive: float = FOREVER
    ) -> None:
        self.name = name
        self.engine = engine
        self.backend = backend
        self.keep_alive = keep_alive
        self.state: State = "unloaded"
        self.last_used = 0.0
        self.load_seconds = 0.0
        self.loads = 0
        self.claims: set[object] = set()
        """Of whoever uses it in this life."""
        self.waiting: set[object] = set()
        """Of whoever waits for its next one."""
        self.left = asyncio.Event()
        """Set while nobody uses it."""
        self.loading: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._needs = needs

    @property
    def memory(self) -> int:
        """Bytes that it takes, or would take."""
        if self.state in ("loaded", "leaving"):
            self._needs = self.backend.memory() or self._needs
        return self._needs

    @property
    def here(self) -> bool:
        return self.state in ("loaded", "leaving")


class Residence:
    """The memory for models. `budget` is in bytes, None for no bound; `clock` in seconds."""

    def __init__(self, budget: int | None = None, clock: Callable[[], float] = anyio.current_time) -> None:
        self.budget = budget
        self.clock = clock
        self._residents: list[Resident] = []
        self._turn = asyncio.Lock()
        self._unloading: set[asyncio.Task[None]] = set()

    def add(self, resident: Resident) -> None:
        self._residents.append(resident)

    @asynccontextmanager
    async def using(self, resident: Resident) -> AsyncIterator[None]:
        """The model is in memory and stays there. Raises `StartupError` when it cannot be loaded."""
        claim = object()
        try:
            if resident.state == "loaded":
                self._claimed(resident, claim)
            else:
                resident.waiting.add(claim)
                await self._next_life(resident)
            yield
        finally:
            self._release(resident, claim)

    async def unload(self, resident: Resident) -> None:
        """Take it out of memory for good: at shutdown. Idempotent."""
        if (loading := resident.loading) is not None:
            loading.cancel()
            await asyncio.wait([loading])
        _stop_timer(resident)
        async with self._turn:
            await self._end(resident)

    async def _next_life(self, resident: Resident) -> None:
        """Wait until it is loaded. The load goes on when whoever waits for it leaves: others may wait too."""
        if resident.loading is None:
            task = resident.loading = asyncio.create_task(self._load(resident))
            task.add_done_callback(lambda _: setattr(resident, "loading", None))
            task.add_done_callback(_seen)
        await asyncio.shield(resident.loading)

    async def _load(self, resident: Resident) -> None:
        try:
            async with self._turn:
                await self._make_room(resident)
                resident.state = "loading"
                began = self.clock()
                await resident.backend.start()
                resident.load_seconds = self.clock() - began
        except BaseException:
            resident.state = "unloaded"
            resident.waiting.clear()
            raise
        resident.state, resident.loads = "loaded", resident.loads + 1
        for claim in resident.waiting:
            self._claimed(resident, claim)
        resident.waiting.clear()
        if not resident.claims:
            self._rest(resident)
        log.info("model %s is in memory: %d MiB", resident.name, resident.memory >> 20)

    async def _make_room(self, resident: Resident) -> None:
        while self.budget is not None and self._used() + resident.memory > self.budget:
            victims = [other for other in self._residents if other.state == "loaded" and other is not resident]
            if not victims:
                log.warning("model %s needs more than the memory for models; it is loaded all the same", resident.name)
                return
            victim = min(victims, key=lambda other: (bool(other.claims), other.last_used))
            log.info("model %s makes room for %s", victim.name, resident.name)
            victim.state = "leaving"
            _stop_timer(victim)
            try:
                await _nobody(victim)
            except BaseException:
                victim.state = "loaded"
                raise
            await self._end(victim)

    def _used(self) -> int:
        return sum(resident.memory for resident in self._residents if resident.here)

    async def _end(self, resident: Resident) -> None:
        with anyio.CancelScope(shield=True):
            await resident.backend.stop()
        resident.state = "unloaded"

    def _claimed(self, resident: Resident, claim: object) -> None:
        resident.claims.add(claim)
        resident.left.clear()
        _stop_timer(resident)

    def _release(self, resident: Resident, claim: object) -> None:
        resident.waiting.discard(claim)
        if claim in resident.claims:
            resident.claims.discard(claim)
            resident.last_used = self.clock()
            if not resident.claims:
                self._rest(resident)

    def _rest(self, resident: Resident) -> None:
        """Nobody uses it any more: it may go after a while."""
        resident.left.set()
        if resident.keep_alive >= 0 and resident.state == "loaded":
            loop = asyncio.get_running_loop()
            resident.timer = loop.call_later(resident.keep_alive, self._begin_unloading, resident)

    def _begin_unloading(self, resident: Resident) -> None:
        task = asyncio.create_task(self._unload_idle(resident))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _unload_idle(self, resident: Resident) -> None:
        async with self._turn:
            if resident.state == "loaded" and not resident.claims:
                resident.state = "leaving"  # whoever comes now waits for its next life
                log.info("model %s was not used for %g s and leaves memory", resident.name, resident.keep_alive)
                await self._end(resident)


async def _nobody(resident: Resident) -> None:
    if resident.claims:
        await resident.left.wait()


def _stop_timer(resident: Resident) -> None:
    timer, resident.timer = resident.timer, None
    if timer is not None:
        timer.cancel()


def _seen(task: "asyncio.Task[None]") -> None:
    """Whoever waited for it has its error; when nobody does any more, the log has it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s", error)


class OnDemand:
    """A `Backend` that is in memory only when it is used. With `at_start`, `start` loads it."""

    def __init__(self, resident: Resident, residence: Residence, *, at_start: bool) -> None:
        self.resident = resident
        self._backend = resident.backend
        self._residence = residence
        self._at_start = at_start
        self._known: dict[str, Model] = {}
        residence.add(resident)

    async def start(self) -> None:
        if self._at_start:
            async with self._residence.using(self.resident):
                pass

    async def stop(self) -> None:
        await self._residence.unload(self.resident)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `Backend.stream`. Entering loads the model when it is not in memory."""
        async with self._using(), self._backend.stream(request) as deltas:
            yield deltas

    async def count_tokens(self, request: ModelRequest) -> int:
        async with self._using():
            return await self._backend.count_tokens(request)

    async def models(self) -> list[Model]:
        return [self.model(model.id) or model for model in await self._backend.models()]

    def model(self, name: str) -> Model | None:
        """While it is not in memory: as it was when it last was."""
        model = self._backend.model(name)
        if model is None or not self.resident.here:
            return self._known.get(name, model)
        self._known[name] = model
        return model

    def load(self) -> Load:
        """While it is not in memory, a request waits as long as its last load took."""
        load = self._backend.load()
        missing = 0.0 if self.resident.here else self.resident.load_seconds
        return structs.replace(load, wait_seconds=load.wait_seconds + missing) if missing else load

    async def health(self) -> Health:
        """A model that is not in memory is ready: it comes when it is asked for."""
        resident = self.resident
        health = await self._backend.health()
        detail: dict[str, str | int | float | bool] = {
            **health.detail,
            "engine": resident.engine,
            "state": resident.state,
            "in_use": len(resident.claims),
            "memory_bytes": resident.memory if resident.here else 0,
            "keep_alive": resident.keep_alive,
        }
        if resident.loads:
            detail["idle_seconds"] = 0.0 if resident.claims else round(self._residence.clock() - resident.last_used, 1)
        return Health(ok=health.ok or not resident.here, detail=detail)

    @contextlib.asynccontextmanager
    async def _using(self) -> AsyncIterator[None]:
        try:
            async with self._residence.using(self.resident):
                yield
        except StartupError as error:
            raise Unavailable(
                f"The model {self.resident.name!r} could not be loaded; the operator's log says why. Use another one.",
                retry_after=FAILED_RETRY,
            ) from error
