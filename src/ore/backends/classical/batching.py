"""Rows of many requests, predicted together on one thread beside the event loop.

While the thread works, what arrives is collected; then all of it is predicted at once, and split again. Nobody waits
for company: a row that comes to an idle thread is predicted at once. Rows whose request has gone are dropped.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ore.backends.base import JsonObject
from ore.backends.classical.predictor import Row
from ore.errors import HTTPFault, InvalidRequest, ModelFailed, Unavailable

logger = logging.getLogger("ore.classical")

MOST_ROWS: Final = 2048
"""Rows that are predicted at once, about: more would keep others waiting, and gain nothing."""

Predict = Callable[[Sequence[Row]], list[JsonObject]]
_Outcome = list[JsonObject] | HTTPFault


class _Job:
    """Rows of one request, and where their answers are awaited."""

    __slots__ = ("future", "rows")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.future: asyncio.Future[list[JsonObject]] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: _Outcome) -> None:
        if self.future.done():
            return
        if isinstance(outcome, HTTPFault):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Batching:
    """One thread for one model. `batches` counts how often the model was asked."""

    def __init__(self, name: str, predict: Predict) -> None:
        self._predict = predict
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"classical {name}", initializer=_alone)
        self._waiting: deque[_Job] = deque()
        self._working = False
        self._stopped = False
        self.batches = 0

    async def predict(self, rows: Sequence[Row]) -> list[JsonObject]:
        """An answer for each row. Raises `InvalidRequest` for values that the model cannot work with."""
        if self._stopped:
            raise _stopping()
        job = _Job(rows)
        self._waiting.append(job)
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._next)  # after all that is ready to run: they come along
        return await job.future

    def stop(self) -> None:
        """End the thread, when it is done with what it has. What waits is refused."""
        self._stopped = True
        while self._waiting:
            self._waiting.popleft().settle(_stopping())
        self._pool.shutdown(wait=False)

    def _next(self) -> None:
        jobs = self._taken()
        self._working = bool(jobs)
        if jobs:
            self.batches += 1
            asked = asyncio.get_running_loop().run_in_executor(self._pool, _outcomes, self._predict, jobs)
            asked.add_done_callback(lambda done: self._settle(jobs, done.result()))

    def _taken(self) -> list[_Job]:
        """Those who wait, up to a number of rows; never half of one."""
        jobs: list[_Job] = []
        rows = 0
        while self._waiting and rows < MOST_ROWS:
            job = self._waiting.popleft()
            if not job.future.done():
                jobs.append(job)
                rows += len(job.rows)
        return jobs

    def _settle(self, jobs: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.settle(outcome)
        self._next()


def _outcomes(predict: Predict, jobs: Sequence[_Job]) -> list[_Outcome]:
    """What comes of each job. Where one spoils it for all, each is asked for alone."""
    outcome = _outcome(predict, [row for job in jobs for row in job.rows])
    if len(jobs) == 1:
        return [outcome]
    if isinstance(outcome, HTTPFault):
        return [_outcome(predict, job.rows) for job in jobs]
    found = iter(outcome)
    return [[next(found) for _ in job.rows] for job in jobs]


def _outcome(predict: Predict, rows: Sequence[Row]) -> _Outcome:
    try:
        return predict(rows)
    except (ValueError, TypeError) as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        message = f"The model cannot work with these values: {lines[0][:300].rstrip('.')}."
        return InvalidRequest(message, param="input")
    except Exception:
        logger.exception("a classical model broke")
        return ModelFailed("The model broke on these values. The operator's log has the reason.")


def _alone() -> None:
    """One thread of arithmetic: small batches are slower on many, which spin while they wait for more."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # onnxruntime alone has options of its own
        return
    threadpool_limits(1)


def _stopping() -> Unavailable:
    return Unavailable("The model is being stopped. Send the request again in a moment.")
