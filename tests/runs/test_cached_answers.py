"""The response cache on the path of a run: what is answered from it, and what is asked again."""

from typing import Any

import anyio
import pytest
from run_kit import FINISH, HOLD, OWNER, HeldBackend, Played, World, check_run, world

from ore.core import deltas as d
from ore.core.deltas import Finish
from ore.errors import DeadlineExceeded, ModelFailed, TooManyRequests, Unavailable
from ore.ids import new_id
from ore.routing.cache import ResponseCache
from ore.routing.router import Router

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

SAYS = (d.Text("4"), d.Text("2."), d.ToolCall("call_1", "f"), d.ToolArguments("{}"), FINISH)


class Place:
    """A router with a cache over one backend that counts what it is asked."""

    def __init__(self, *steps: Any) -> None:
        self.backend = HeldBackend({"m": steps or SAYS})
        self.router = Router({"held": self.backend}, cache=ResponseCache(ttl=60, max_bytes=2**20, new_id=new_id))

    @property
    def asked(self) -> int:
        return len(self.backend.requests)


async def played(here: World, owner: str = OWNER, **fields: Any) -> Played:
    found = await here.play(owner=owner, **{"temperature": 0, **fields})
    check_run(found, here)
    return found


def bare(found: Played) -> Any:
    """An answer without ids."""
    return [
        {key: value for key, value in item.items() if key not in ("id", "call_id")} for item in found.final["output"]
    ]


async def test_the_same_request_is_answered_once() -> None:
    """The second client gets the same events, under ids of its own, and no model is asked."""
    place = Place()
    async with world(router=place.router) as here:
        first, second = await played(here), await played(here)
    assert place.asked == 1
    assert first.types == second.types
    assert bare(first) == bare(second)
    assert first.final["usage"] == second.final["usage"]
    calls = [item["call_id"] for found in (first, second) for item in found.final["output"] if "call_id" in item]
    assert len(set(calls)) == 2


@pytest.mark.parametrize(
    "other", [{"input": "Ho"}, {"owner": "you"}, {"temperature": 0.1}, {"metadata": {"ore.cache": "off"}}], ids=str
)
async def test_another_request_is_asked(other: dict[str, Any]) -> None:
    """Whatever can change the answer, and whoever asks for a fresh one."""
    place = Place()
    async with world(router=place.router) as here:
        await played(here)
        await played(here, **other)
    assert place.asked == 2


async def test_who_asks_for_it_gets_it_and_is_told() -> None:
    """Also for requests that are not repeatable; the metadata says what came of it."""
    place, told = Place(), []
    async with world(router=place.router) as here:
        for _ in range(2):
            found = await played(here, temperature=1, metadata={"ore.cache": "on"})
            told.append(found.final["metadata"])
    assert told == [{"ore.cache": "miss"}, {"ore.cache": "hit"}]
    assert place.asked == 1


async def test_a_crowd_asks_once() -> None:
    """Two hundred equal requests at the same moment are one request of the model (F36)."""
    place = Place()
    place.backend.hold_entering = True
    async with world(router=place.router) as here:
        runs = [here.supervisor.start(OWNER, here.create(temperature=0)) for _ in range(200)]
        await place.backend.reached.wait()
        place.backend.release.set()
        for run in runs:
            await run.ended()
    assert {run.status for run in runs} == {"completed"}
    assert place.asked == 1


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
async def test_what_was_cut_off_is_not_kept(reason: Any) -> None:
    """It might end otherwise the next time."""
    place = Place(d.Text("4"), Finish(reason))
    async with world(router=place.router) as here:
        await played(here)
        await played(here)
    assert place.asked == 2


async def test_a_failure_is_not_kept() -> None:
    """Whoever waited for it asks for itself."""
    place = Place(d.Text("4"), ModelFailed("It broke."))
    async with world(router=place.router) as here:
        for _ in range(2):
            assert (await played(here)).final["status"] == "failed"
    assert place.asked == 2


async def test_a_crowd_does_not_fail_one_after_the_other() -> None:
    """When the one that asked for all hits a time limit, the others ask at once, and each has a limit of its own."""
    told = iter([[HOLD, DeadlineExceeded("Too slow.")]])
    place = Place()
    place.backend._scripts["m"] = lambda _: next(told, [HOLD, *SAYS])
    async with world(router=place.router) as here:
        runs = [here.supervisor.start(OWNER, here.create(temperature=0)) for _ in range(5)]
        await place.backend.reached.wait()
        await anyio.wait_all_tasks_blocked()
        assert place.asked == 1
        first, place.backend.release = place.backend.release, anyio.Event()
        first.set()
        await anyio.wait_all_tasks_blocked()
        assert place.asked == 5
        place.backend.release.set()
        for run in runs:
            await run.ended()
    assert sorted(run.status for run in runs) == ["completed"] * 4 + ["failed"]


async def test_a_known_answer_is_given_while_its_target_rests() -> None:
    """A replay asks nobody; what is not known still has to wait."""
    limited = TooManyRequests("Too much.", retry_after=30)
    backend = HeldBackend({"m": lambda _: SAYS if len(backend.requests) == 1 else [limited]})
    router = Router({}, {"p": backend}, cache=ResponseCache(ttl=60, max_bytes=2**20, new_id=new_id))
    async with world(router=router) as here:
        first = await played(here, model="p/m")
        assert (await here.play(model="p/m", temperature=0, input="Ho")).run.fault is limited
        assert bare(await played(here, model="p/m")) == bare(first)
        assert isinstance((await here.play(model="p/m", temperature=0, input="Ho")).run.fault, Unavailable)
    assert len(backend.requests) == 2


async def test_a_client_that_leaves_hands_the_question_on() -> None:
    """The next one who waits for the same answer asks for it."""
    place = Place()
    place.backend.hold_entering = True
    async with world(router=place.router) as here:
        first, second = (here.supervisor.start(OWNER, here.create(temperature=0)) for _ in range(2))
        await place.backend.reached.wait()
        first.stop("disconnected")
        await first.ended()
        place.backend.release.set()
        await second.ended()
    assert second.status == "completed"


async def test_a_seed_that_is_ours_makes_no_entry() -> None:
    """Background runs are given one, so that they can be taken up again; it is another one each time."""
    place = Place()
    async with world(router=place.router) as here:
        run = here.supervisor.start(OWNER, here.create(background=True, store=True))
        await run.ended()
    assert run.status == "completed"
    assert run.passage.cached == "off"
