"""Admission: slots, a bounded queue, and fairness between owners."""

import asyncio

import pytest

from ore.backends.admission import Admission, Ticket
from ore.errors import TooManyRequests

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def admission(slots: int = 1, queue: int = 8) -> Admission:
    return Admission(slots, queue, lambda: 0.0)


async def test_slots_are_granted_at_once_and_the_rest_waits() -> None:
    gate = admission(slots=2)
    tickets = [gate.enter("a") for _ in range(3)]
    assert [ticket.granted for ticket in tickets] == [True, True, False]
    tickets[0].release()
    await tickets[2].wait()
    assert (gate.running, gate.waiting) == (2, 0)


async def test_a_full_queue_is_a_429_with_retry_after() -> None:
    gate = admission(queue=1)
    gate.enter("a"), gate.enter("a")
    with pytest.raises(TooManyRequests) as caught:
        gate.enter("b")
    assert int(caught.value.headers["retry-after"]) >= 1


async def test_owners_take_turns() -> None:
    gate = admission()
    running = gate.enter("z")
    line = [gate.enter(owner) for owner in "aaab"] + [gate.enter("c")]
    order = []
    for _ in line:
        running.release()
        running = next(ticket for ticket in line if ticket.granted and ticket not in order)
        order.append(running)
    assert [ticket.owner for ticket in order] == ["a", "b", "c", "a", "a"]


async def test_leaving_the_queue_frees_its_place() -> None:
    gate = admission(queue=1)
    running, waiting = gate.enter("a"), gate.enter("b")
    waiting.release()
    waiting.release()
    assert gate.waiting == 0
    third = gate.enter("c")
    running.release()
    assert third.granted
    assert not waiting.granted


async def test_a_cancelled_wait_does_not_lose_the_slot() -> None:
    gate = admission()
    running, waiting = gate.enter("a"), gate.enter("b")

    async def hold(ticket: Ticket) -> None:
        try:
            await ticket.wait()
        finally:
            ticket.release()

    task = asyncio.create_task(hold(waiting))
    await asyncio.sleep(0)
    running.release()
    task.cancel()
    await asyncio.wait([task])
    assert (gate.running, gate.waiting) == (0, 0)
    assert gate.enter("c").granted
