"""Which models are in memory: the budget, who makes room, who waits, and when a model leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from ore.backends.base import ModelRequest
from ore.backends.residence import OnDemand, Residence, Resident
from ore.backends.scripted import ScriptedBackend, says
from ore.errors import StartupError, Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Weights(ScriptedBackend):
    """A scripted model that takes 10 bytes while it is loaded."""

    def __init__(self, name: str, history: list[str]) -> None:
        super().__init__({name: says("hello")})
        self.name = name
        self.history = history
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.fails = False

    async def start(self) -> None:
        await self.may_load.wait()
        if self.fails:
            raise StartupError("the weights are spoilt")
        self.history.append(f"+{self.name}")

    async def stop(self) -> None:
        self.history.append(f"-{self.name}")

    def memory(self) -> int | None:
        return 10


class Machine:
    """Models with room for `room` of them."""

    def __init__(self, room: int, names: str = "abc", keep_alive: float = -1, at_start: bool = False) -> None:
        self.history: list[str] = []
        self.now = 0.0
        self.weights = {name: Weights(name, self.history) for name in names}
        residence = Residence(room * 10, lambda: self.now)
        self.models = {
            name: OnDemand(Resident(name, weights, needs=10, keep_alive=keep_alive), residence, at_start=at_start)
            for name, weights in self.weights.items()
        }

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[Any]:
        self.now += 1
        async with self.models[name].stream(ModelRequest(model=name, items=())) as deltas:
            yield deltas

    async def use(self, name: str) -> None:
        async with self.using(name) as deltas:
            assert [delta async for delta in deltas]

    def state(self, name: str) -> str:
        return self.models[name].resident.state


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_model_is_loaded_at_its_first_use_and_stays() -> None:
    machine = Machine(room=3)
    await machine.models["a"].start()
    assert machine.history == []
    await machine.use("a")
    await machine.use("a")
    assert machine.history == ["+a"]


async def test_at_start_means_at_start() -> None:
    machine = Machine(room=3, at_start=True)
    await machine.models["a"].start()
    assert machine.history == ["+a"]
    machine.weights["b"].fails = True
    with pytest.raises(StartupError, match="spoilt"):
        await machine.models["b"].start()


async def test_the_least_recently_used_makes_room() -> None:
    machine = Machine(room=2)
    for name in "abac":
        await machine.use(name)
    assert machine.history == ["+a", "+b", "-b", "+c"]


async def test_nobody_is_put_out_in_the_middle_of_an_answer() -> None:
    """A busy model makes room when its answer is over; who asks for it meanwhile waits for its next life."""
    machine = Machine(room=1)
    async with asyncio.TaskGroup() as tasks, machine.using("a"):
        tasks.create_task(machine.use("b"))
        await settled()
        again = tasks.create_task(machine.use("a"))
        await settled()
        assert machine.history == ["+a"]
        assert machine.state("a") == "leaving"
        assert not again.done()
    assert machine.history == ["+a", "-a", "+b", "-b", "+a"]


async def test_an_idle_model_goes_before_a_busy_one() -> None:
    machine = Machine(room=2)
    async with machine.using("a"):
        await machine.use("b")
        await machine.use("c")
    assert machine.history == ["+a", "+b", "-b", "+c"]


async def test_many_wait_for_one_load() -> None:
    """Ten requests at once load a model once, and all of them are answered before it may go."""
    machine = Machine(room=1)
    machine.weights["a"].may_load.clear()
    async with asyncio.TaskGroup() as tasks:
        for name in "aaaaabaaaaa":
            tasks.create_task(machine.use(name))
        await settled()
        machine.weights["a"].may_load.set()
    assert machine.history == ["+a", "-a", "+b"]


async def test_who_leaves_while_it_loads_holds_nothing() -> None:
    """A client that goes away ends its own waiting only: the load goes on, and nothing keeps the model in memory."""
    machine = Machine(room=1)
    machine.weights["a"].may_load.clear()
    gone = asyncio.create_task(machine.use("a"))
    await settled()
    gone.cancel()
    await asyncio.wait([gone])
    machine.weights["a"].may_load.set()
    await machine.use("b")
    assert machine.history == ["+a", "-a", "+b"]


async def test_a_load_that_fails_is_a_503_and_may_be_tried_again() -> None:
    machine = Machine(room=1)
    await machine.use("b")
    machine.weights["a"].fails = True
    for _ in range(2):
        with pytest.raises(Unavailable, match="could not be loaded"):
            await machine.use("a")
    machine.weights["a"].fails = False
    await machine.use("a")
    assert machine.history == ["+b", "-b", "+a"]


async def test_too_large_a_model_is_loaded_alone() -> None:
    """A model that needs more than there is may still run, when no other does."""
    machine = Machine(room=0)
    await machine.use("a")
    await machine.use("b")
    assert machine.history == ["+a", "-a", "+b"]


async def test_an_unused_model_leaves_memory() -> None:
    """`keep_alive` 0: as soon as nobody uses it; a use in between keeps it."""
    machine = Machine(room=3, keep_alive=0)
    async with AsyncExitStack() as first:
        await first.enter_async_context(machine.using("a"))
        await machine.use("a")
        await settled()
        assert machine.state("a") == "loaded"
    await settled()
    assert machine.history == ["+a", "-a"]


async def test_health_tells_where_it_is() -> None:
    """A model that is not in memory is ready; its detail says so, and what it takes when it is there."""
    machine = Machine(room=1)
    model = machine.models["a"]
    assert (await model.health()).detail["state"] == "unloaded"
    async with machine.using("a"):
        health = await model.health()
        assert (health.detail["state"], health.detail["in_use"], health.detail["memory_bytes"]) == ("loaded", 1, 10)
    machine.now += 7
    assert (await model.health()).detail["idle_seconds"] == 7
    await machine.use("b")
    health = await model.health()
    assert (health.ok, health.detail["state"], health.detail["memory_bytes"]) == (True, "unloaded", 0)


async def test_stopping_unloads() -> None:
    machine = Machine(room=2)
    await machine.use("a")
    await machine.models["a"].stop()
    assert machine.history == ["+a", "-a"]
