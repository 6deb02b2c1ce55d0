"""The supervisor: owns every run, so that no task is without an owner.

It starts runs, finds them, and drains them when the server stops. It does not look into them.
"""

import logging
from collections.abc import Callable
from types import TracebackType

import anyio
from anyio.abc import TaskGroup

from ore.core.sealing import Sealer
from ore.errors import Unavailable
from ore.ids import NewId
from ore.protocol.responses import Create
from ore.routing.router import Router
from ore.runs.judge import Judge
from ore.runs.loop import Shared, execute
from ore.runs.run import Remembered, Run
from ore.stores.base import Store

logger = logging.getLogger("ore.runs")


class Supervisor:
    """`async with Supervisor(...) as supervisor: run = supervisor.start(owner, create)`.

    `now` gives seconds since 1970; `run_seconds` bounds a run.
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
    ) -> None:
        self._shared = Shared(router, store, sealer, Judge(), now)
        self._new_id = new_id
        self._now = now
        self._run_seconds = run_seconds
        self._runs: dict[str, Run] = {}
        self._idle = anyio.Event()
        self._tasks: TaskGroup | None = None
        self.draining = False

    async def __aenter__(self) -> "Supervisor":
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None  # noqa: S101
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
        run = Run(owner, create, new_id=self._new_id, created_at=self._now(), remembered=remembered)
        self._runs[run.id] = run
        self._tasks.start_soon(self._supervise, run, name=run.id)
        return run

    def find(self, owner: str, response_id: str) -> Run | None:
        """A run that has not ended, if this owner has one of that id."""
        run = self._runs.get(response_id)
        return run if run is not None and run.owner == owner and run.has_response else None

    async def drain(self, grace: float) -> None:
        """Take no more runs, let those there finish for `grace` seconds, then end them as failed."""
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
        run.scope.deadline = anyio.current_time() + self._run_seconds
        try:
            await execute(run, self._shared)
        except Exception:
            logger.exception("run %s ended badly", run.id)
        finally:
            self._runs.pop(run.id, None)
            if not self._runs:
                self._idle.set()
