"""The event log: everyone who follows gets all of it, in order, and nobody keeps what everyone has."""

from contextlib import aclosing

import anyio
import pytest

from core.writing import begun
from ore.core.writer import ResponseWriter
from ore.protocol import events as e
from ore.runs.log import EventLog, Follower
from ore.stores.base import StoredEvent

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


def delta(number: int) -> e.Event:
    return e.RefusalDelta(sequence_number=number, item_id="m", output_index=0, content_index=0, delta="x")


async def all_of(follower: Follower, into: list[StoredEvent]) -> None:
    async for batch in follower.batches():
        into += batch


async def test_every_follower_gets_every_event_once() -> None:
    """Fast and slow followers see the same, and the log is empty when the slowest has taken it."""
    log = EventLog()
    taken: list[list[StoredEvent]] = [[], [], []]
    async with anyio.create_task_group() as tasks:
        for into in taken:
            tasks.start_soon(all_of, log.follow(), into)
        for number in range(50):
            log.append(delta(number))
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        log.close()
    assert [len(into) for into in taken] == [50, 50, 50]
    assert taken[0] == taken[1] == taken[2]
    assert [entry.body for entry in taken[0]] == [e.encode(delta(number)) for number in range(50)]
    assert not log._entries


async def test_a_follower_ends_when_the_log_is_closed_and_not_before() -> None:
    """No event type ends a stream; what waits when the log closes is still delivered."""
    log = EventLog()
    follower = log.follow()
    log.append(delta(0))
    log.close()
    log.close()
    taken: list[StoredEvent] = []
    await all_of(follower, taken)
    assert len(taken) == 1
    assert log.closed


async def test_a_follower_that_leaves_holds_nothing_up() -> None:
    """Leaving frees what only that follower had not taken; leaving twice is harmless."""
    log = EventLog()
    slow, fast = log.follow(), log.follow()
    for number in range(3):
        log.append(delta(number))
    async with aclosing(fast.batches()) as batches:  # type: ignore[type-var]
        assert len(await anext(batches)) == 3
    assert len(log._entries) == 3
    slow.leave()
    slow.leave()
    assert not log._entries


async def test_a_late_follower_starts_where_the_log_is() -> None:
    """Who comes later gets what comes later, with the right bytes."""
    log = EventLog()
    first = log.follow()
    log.append(delta(0))
    late = log.follow()
    log.append(delta(1))
    log.close()
    both: tuple[list[StoredEvent], list[StoredEvent]] = ([], [])
    await all_of(first, both[0])
    await all_of(late, both[1])
    assert [entry.body for entry in both[1]] == [e.encode(delta(1))]
    assert len(both[0]) == 2


async def test_without_followers_nothing_is_kept() -> None:
    """Nobody could ever ask for it, so it costs nothing."""
    log = EventLog()
    log.append(delta(0))
    assert not log._entries


async def test_an_event_is_encoded_once() -> None:
    """Two followers get the same bytes object."""
    log = EventLog()
    writer = ResponseWriter(lambda purpose: purpose, log.append)
    first, second = log.follow(), log.follow()
    writer.begin(begun())
    log.close()
    one: list[StoredEvent] = []
    two: list[StoredEvent] = []
    await all_of(first, one)
    await all_of(second, two)
    assert [entry.type for entry in one] == ["response.created", "response.in_progress"]
    assert all(a.body is b.body for a, b in zip(one, two, strict=True))
