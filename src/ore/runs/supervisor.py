"""The supervisor: owns every run, so that no task is without an owner.

It starts runs, finds them, takes up background runs whose process died, and drains them all when the server stops. It
does not look into them.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from ore.core.sealing import Sealer
from ore.errors import StorageFailed, Unavailable
from ore.ids import NewId
from ore.protocol.events import Event, decode
from ore.protocol.responses import Create
from ore.protocol.wire import BOTH, Wire
from ore.routing.router import Router
from ore.runs import context, counting
from ore.runs.durable import DurableLog, StoredFollower
from ore.runs.guard import Guard
from ore.runs.judge import Judge
from ore.runs.loop import execute
from ore.runs.run import Remembered, Run, StopReason
from ore.runs.shapes import unreadable
from ore.runs.turns import Shared
from ore.stores.base import ClaimedRun, Fenced, Lease, Store, StoredEvent
from ore.tools.base import Tool

logger = logging.getLogger("ore.runs")

CLAIMED_AT_ONCE: Final = 8
"""Background runs that are taken over in one go."""

PRUNED_AT_ONCE: Final = 500
"""Rows of either kind that go in one transaction, which keeps others from writing."""

PRUNE_SECONDS: Final = 3600.0
"""How often what need not be kept any longer is removed."""


class BackgroundLimits(msgspec.Struct, frozen=True, kw_only=True):
    """For background runs. Times are in seconds; None keeps for ever."""

    lease: float = 30.0
    run: float = 3600.0
    attempts: int = 3
    """Processes that may work on one run: a run that ends its process each time must not do so for ever."""
    keep_events: float | None = None
    keep_responses: float | None = None


class Supervisor:
    """`async with Supervisor(...) as supervisor: run = supervisor.start(owner, create)`.

    `now` gives seconds since 1970; `run_seconds` bounds a foreground run.
    """

    def __init__(
        self,
        router: Router,
        store: Store,
        sealer: Sealer,
        *,
        new_id: NewId,
        now: Callable[[], int],
        run_seconds: float,
        background: BackgroundLimits = BackgroundLimits(),  # noqa: B008 - frozen
        wire: Wire = BOTH,
        tools: Mapping[str, Tool] | None = None,
        guard: Guard | None = None,
    ) -> None:
        lease = Lease(new_id("process"), background.lease)
        self._shared = Shared(router, store, sealer, Judge(), tools or {}, lease, now, guard)
        self._new_id = new_id
        self._run_seconds = run_seconds
        self._background = background
        self._wire = wire
        self._runs: dict[str, Run] = {}
        self._idle = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._upkeep = anyio.CancelScope()
        self.draining = False

    async def __aenter__(self) -> "Supervisor":
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._keep_up)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None  # noqa: S101
        self.draining = True
        self._upkeep.cancel()
        for run in self._runs.values():
            run.stop("shutdown")
        try:
            return await self._tasks.__aexit__(kind, error, traceback)
        finally:
            await self._shared.judge.stop()

    @property
    def active(self) -> int:
        """Runs that have not ended."""
        return len(self._runs)

    def start(self, owner: str, create: Create, *, remembered: Remembered | None = None) -> Run:
        """Start a run; earlier responses are looked up in `remembered` first. Raises `Unavailable` while draining."""
        if self.draining or self._tasks is None:
            raise Unavailable("The server is shutting down. Send the request again in a moment.")
        if create.background and create.seed is None:  # an answer that is taken up again has to be the same again
            create = msgspec.structs.replace(create, seed=secrets.randbelow(2**31))
        return self._drive(self._new(owner, create, remembered=remembered))

    def _new(
        self,
        owner: str,
        create: Create,
        *,
        remembered: Remembered | None = None,
        claimed: ClaimedRun | None = None,
        seen: Sequence[Event] = (),
    ) -> Run:
        return Run(
            owner,
            create,
            new_id=self._new_id,
            created_at=claimed.response.created_at if claimed is not None else self._shared.now(),
            seconds=self._background.run if create.background else self._run_seconds,
            wire=self._wire,
            seal=partial(context.sealed_reasoning, self._shared.sealer, owner),
            remembered=remembered,
            claimed=claimed,
            seen=seen,
        )

    def _drive(self, run: Run) -> Run:
        assert self._tasks is not None  # noqa: S101
        self._runs[run.id] = run
        self._tasks.start_soon(self._supervise, run, name=run.id)
        if run.durable is not None:
            self._tasks.start_soon(self._keep, run, run.durable, name=f"{run.id} events")
        return run

    def find(self, owner: str, response_id: str) -> Run | None:
        """A run that has not ended, if this owner has one of that id."""
        run = self._runs.get(response_id)
        return run if run is not None and run.owner == owner and run.has_response else None

    async def count(self, owner: str, create: Create) -> int:
        """The tokens that the model would be given for a request."""
        return await counting.input_tokens(self._new(owner, create), self._shared)

    def follow(self, owner: str, response_id: str, *, after: int = -1) -> StoredFollower:
        """A follower of a background run, from the event after number `after`, whoever drives it."""
        run = self.find(owner, response_id)
        log = run.durable if run is not None else None
        return StoredFollower(self._shared.store, owner, response_id, after=after, log=log)

    async def cancel(self, owner: str, response_id: str) -> None:
        """End a background run as cancelled, wherever it is driven; nothing happens to one that has ended."""
        run = self.find(owner, response_id)
        if run is None:
            claimed = await self._shared.store.take(owner, response_id, self._shared.lease)
            run = await self._take_up(claimed, stop="cancelled") if claimed is not None else None
        if run is not None:
            run.stop("cancelled")
            await run.ended()

    async def drain(self, grace: float) -> None:
        """Take no more runs, let those there finish for `grace` seconds, then end them as failed.

        Background runs are let go of, so that the next process goes on with them.
        """
        self.draining = True
        with anyio.move_on_after(grace):
            await self._until_idle()
        for run in self._runs.values():
            run.stop("shutdown")
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._runs:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def _supervise(self, run: Run) -> None:
        run.scope.deadline = anyio.current_time() + run.seconds
        try:
            await execute(run, self._shared)
        except Exception:
            logger.exception("run %s ended badly", run.id)
        finally:
            if self._runs.get(run.id) is run:
                del self._runs[run.id]
            if not self._runs:
                self._idle.set()

    async def _keep(self, run: Run, log: DurableLog) -> None:
        """Have a background run's events kept, until it ends or is in other hands."""

        async def keep(events: Sequence[StoredEvent], progress: bytes | None) -> None:
            await self._shared.store.append(run.owner, run.id, run.fence, events, progress)

        try:
            await log.pump(keep)
        except Fenced:
            logger.warning("background response %s is driven by another process now", run.id)
            run.stop("fenced")
        except Exception:
            logger.exception("events of background response %s cannot be kept", run.id)
            run.stop("fenced")

    async def _keep_up(self) -> None:
        with self._upkeep:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_leases)
                tasks.start_soon(self._prune)

    async def _keep_leases(self) -> None:
        """Keep what is ours, and take up what nobody drives any more."""
        while True:
            try:
                await self._renew()
                while not self.draining and await self._claim():
                    await anyio.lowlevel.checkpoint()
            except StorageFailed as failure:
                logger.warning("leases of background responses could not be kept up: %s", failure)
            except Exception:
                logger.exception("leases of background responses could not be kept up")
            await anyio.sleep(self._background.lease / 3)

    async def _renew(self) -> None:
        """Prolong the leases of runs that go on here, and of no other: what nobody drives has to be claimed again."""
        runs = [run for run in self._runs.values() if run.durable is not None and not run.durable.closed and run.fence]
        if runs:
            await self._shared.store.renew([(run.owner, run.id) for run in runs], self._shared.lease)

    async def _claim(self) -> bool:
        """Take up a few runs that nobody drives. Whether there may be more."""
        claimed = await self._shared.store.claim(self._shared.lease, limit=CLAIMED_AT_ONCE)
        for run in claimed:
            await self._take_up(run)
        return len(claimed) == CLAIMED_AT_ONCE

    async def _take_up(self, claimed: ClaimedRun, *, stop: StopReason | None = None) -> Run | None:
        """Go on with a run that another process began. One that cannot be read ends here, or nobody ever could."""
        store, response_id = self._shared.store, claimed.response.id
        kept: list[StoredEvent] = []
        try:
            kept = await store.events(claimed.owner, response_id, after=-1, limit=-1)
            create = msgspec.json.decode(claimed.run.request, type=Create)
            seen = await anyio.to_thread.run_sync(_decoded, kept)
            run = self._new(claimed.owner, create, claimed=claimed, seen=seen)
        except StorageFailed:
            raise
        except Exception:
            logger.exception("background response %s cannot be taken up", response_id)
            ended, events = unreadable(claimed, kept)
            with suppress(Fenced):  # somebody else has it by now
                await store.save(claimed.owner, ended, fence=claimed.fence, events=events)
            return None
        logger.info("taking up background response %s, attempt %d", response_id, claimed.attempt)
        if stop is None and claimed.attempt > self._background.attempts:
            stop = "given up"
        if stop is not None:
            run.stop(stop)
        return self._drive(run)

    async def _prune(self) -> None:
        limits = self._background
        if limits.keep_events is None and limits.keep_responses is None:
            return
        while True:
            now = self._shared.now()
            try:
                while await self._shared.store.prune(
                    events_before=None if limits.keep_events is None else now - limits.keep_events,
                    responses_before=None if limits.keep_responses is None else now - limits.keep_responses,
                    limit=PRUNED_AT_ONCE,
                ):
                    await anyio.lowlevel.checkpoint()
            except StorageFailed as failure:
                logger.warning("what was kept long enough could not be removed: %s", failure)
            await anyio.sleep(PRUNE_SECONDS)


def _decoded(kept: Sequence[StoredEvent]) -> list[Event]:
    return [decode(event.body) for event in kept]
