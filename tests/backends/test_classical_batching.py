"""Rows of many requests are predicted together, on one thread, and nobody spoils it for others. No model is needed."""

import threading
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from ore.backends.classical.batching import MOST_ROWS, Batching
from ore.errors import InvalidRequest, ModelFailed, Unavailable

pytestmark = pytest.mark.anyio


class Model:
    """Answers with the row itself; waits while `gate` is closed, and breaks on some rows."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.asked: list[list[Any]] = []

    def __call__(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.asked.append(list(rows))
        self.entered.set()
        assert self.gate.wait(20)
        if "bad" in rows:
            raise ValueError("bad is no number.\nmore")
        if "broken" in rows:
            raise RuntimeError("a bug")
        return [{"row": row} for row in rows]


@pytest.fixture
def model() -> Model:
    return Model()


async def together(model: Model, *asked: list[Any]) -> tuple[list[Any], Batching]:
    """The outcome of each of these, all but the first of which come while the model works on the first."""
    batching, outcomes = Batching("m", model), [None] * len(asked)
    model.gate.clear()

    async def ask(at: int) -> None:
        try:
            outcomes[at] = await batching.predict(asked[at])  # type: ignore[call-overload]
        except Exception as error:
            outcomes[at] = error  # type: ignore[call-overload]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, 0)
        await anyio.to_thread.run_sync(model.entered.wait, 20)
        for at in range(1, len(asked)):
            tasks.start_soon(ask, at)
        await anyio.wait_all_tasks_blocked()
        model.gate.set()
    batching.stop()
    return outcomes, batching


async def test_what_arrives_meanwhile_is_predicted_at_once(model: Model) -> None:
    """And each gets its own answers, in its own order."""
    outcomes, batching = await together(model, ["a"], ["b"], ["c", "d"], ["e"])
    assert model.asked == [["a"], ["b", "c", "d", "e"]]
    assert outcomes == [[{"row": row} for row in rows] for rows in (["a"], ["b"], ["c", "d"], ["e"])]
    assert batching.batches == 2


async def test_those_that_come_together_go_together(model: Model) -> None:
    """Even to an idle model: it takes all that is ready to run."""
    batching = Batching("m", model)
    async with anyio.create_task_group() as tasks:
        for row in range(5):
            tasks.start_soon(batching.predict, [row])
    batching.stop()
    assert sorted(map(len, model.asked), reverse=True)[0] == 5


async def test_one_that_is_wrong_spoils_it_for_nobody(model: Model) -> None:
    """Values are the client's fault, anything else the model's."""
    outcomes, _ = await together(model, ["a"], ["bad"], ["b"], ["broken"])
    assert outcomes[0] == [{"row": "a"}]
    assert outcomes[2] == [{"row": "b"}]
    assert isinstance(outcomes[1], InvalidRequest)
    assert outcomes[1].message == "The model cannot work with these values: bad is no number."
    assert isinstance(outcomes[3], ModelFailed)
    assert "a bug" not in outcomes[3].message


async def test_rows_of_those_that_are_gone_are_not_predicted(model: Model) -> None:
    """A client that leaves costs nothing more."""
    batching = Batching("m", model)
    model.gate.clear()
    async with anyio.create_task_group() as staying:
        staying.start_soon(batching.predict, ["a"])
        await anyio.to_thread.run_sync(model.entered.wait, 20)
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(batching.predict, ["gone"])
            await anyio.wait_all_tasks_blocked()
            leaving.cancel_scope.cancel()
        staying.start_soon(batching.predict, ["b"])
        await anyio.wait_all_tasks_blocked()
        model.gate.set()
    batching.stop()
    assert model.asked == [["a"], ["b"]]


async def test_a_batch_is_bounded(model: Model) -> None:
    """Whoever brings the rest of a full batch waits for the next one."""
    _, batching = await together(model, ["a"], [0] * (MOST_ROWS - 1), [1], [2])
    assert [len(rows) for rows in model.asked] == [1, MOST_ROWS, 1]
    assert batching.batches == 3


async def test_a_stopped_model_refuses(model: Model) -> None:
    batching = Batching("m", model)
    batching.stop()
    with pytest.raises(Unavailable):
        await batching.predict(["a"])
