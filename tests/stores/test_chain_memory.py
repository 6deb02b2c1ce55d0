"""What the SQLite store remembers of chains: it saves reading, is bounded, and is never out of date."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from store_kit import items, response, running

from ore.stores import sqlite_responses
from ore.stores.base import MissingAncestor, Turn
from ore.stores.chain_memory import ChainMemory
from ore.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many responses had their items read, for each time that any were read."""
    counted: list[int] = []
    plain = sqlite_responses._items

    def counting(db: Any, seqs: list[int]) -> Any:
        counted.append(len(seqs))
        return plain(db, seqs)

    monkeypatch.setattr(sqlite_responses, "_items", counting)
    yield counted


async def grown(store: SQLiteStore, *names: str) -> None:
    """A chain, asked for after each turn, as a conversation does."""
    for name, previous in zip(names, [None, *names], strict=False):
        await store.save("ada", response(name, previous))
        assert await store.chain("ada", name) is not None


async def ids(store: SQLiteStore, name: str) -> list[str]:
    return [turn.id for turn in await store.chain("ada", name) or ()]


async def test_a_chain_that_goes_on_reads_its_newest_turn(path: Path, read: list[int]) -> None:
    """However long it is; and asking for the same again reads nothing."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"abcdef")
        assert read == [1] * 6
        assert await ids(store, "f") == list("abcdef")
        assert read == [1] * 6


async def test_a_branch_reads_all_and_is_right(path: Path, read: list[int]) -> None:
    """What continues an older turn has the turns up to that one, whatever is remembered."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"abcd")
        await store.save("ada", response("x", "b"))
        assert await ids(store, "x") == ["a", "b", "x"]
        assert await ids(store, "d") == list("abcd")


@pytest.mark.parametrize("gone", ["a", "b", "c"])
async def test_a_deleted_ancestor_is_missed_at_once(path: Path, gone: str) -> None:
    """What is remembered does not bring it back, neither for the response that was asked for nor for the next."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"abcd")
        await store.save("ada", response("e", "d"))
        await store.delete("ada", gone)
        for name in ("d", "e"):
            with pytest.raises(MissingAncestor, match=f"^{gone}$"):
                await store.chain("ada", name)


async def test_pruned_responses_are_missed_at_once(path: Path) -> None:
    """As those that were deleted by their id."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"ab")
        await store.save("ada", msgspec.structs.replace(response("c", "b"), created_at=1_800_000_000))
        await store.prune(events_before=None, responses_before=1_750_000_000, limit=9)
        with pytest.raises(MissingAncestor, match=r"^b$"):
            await store.chain("ada", "c")


async def test_a_response_that_is_saved_again_is_read_again(path: Path) -> None:
    """Also in the middle of a chain."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"abc")
        await store.save("ada", response("b", "a", made=("other",)))
        turns = await store.chain("ada", "c")
        assert turns is not None
        assert turns[1].output == items("other")


async def test_a_response_that_runs_is_not_remembered(path: Path) -> None:
    """Its end is seen, and does not cost the chains that others go on with."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"ab")
        await store.save("ada", response("c", "b", made=(), status="in_progress"))
        assert await ids(store, "c") == list("abc")
        await store.save("ada", response("c", "b"))
        turns = await store.chain("ada", "c")
        assert turns is not None
        assert (turns[-1].status, turns[-1].output) == ("completed", items("c_out"))


async def test_what_ends_elsewhere_costs_no_chain(path: Path, read: list[int]) -> None:
    """A background response that ends, and a new one, leave what is remembered as true as it was."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"ab")
        await store.save("ada", response("other", status="queued"))
        await store.save("ada", response("other"))
        assert await ids(store, "b") == ["a", "b"]
        assert read == [1, 1]


async def test_a_chain_is_its_owners(path: Path) -> None:
    """The same ids of somebody else are another chain, or none."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"ab")
        assert await store.chain("bob", "b") is None
        await store.save("bob", response("c", "b"))
        with pytest.raises(MissingAncestor, match=r"^b$"):
            await store.chain("bob", "c")


async def test_a_caller_may_change_what_it_was_given(path: Path) -> None:
    """The list is its own."""
    async with running(SQLiteStore(path)) as store:
        await grown(store, *"ab")
        (await store.chain("ada", "b") or []).clear()
        assert await ids(store, "b") == ["a", "b"]


async def test_without_room_all_is_read_and_all_is_right(path: Path, read: list[int]) -> None:
    """A memory of no bytes remembers nothing."""
    async with running(SQLiteStore(path, chain_bytes=0)) as store:
        await grown(store, *"abc")
        assert read == [1, 2, 3]
        assert await ids(store, "c") == ["a", "b", "c"]


def turn(name: str, size: int = 0) -> Turn:
    return Turn(id=name, status="completed", input=items(name, mark="x" * size), output=())


def test_the_chains_used_least_are_forgotten_first() -> None:
    """All together weigh no more than allowed, by what their items weigh."""
    memory = ChainMemory(12_000)
    for name in "abcd":
        memory.keep("ada", [turn(name, 2_500)], 1)
    memory.find("ada", "a", 1)
    memory.keep("ada", [turn("e", 2_500)], 1)
    assert [name for name in "abcde" if memory.find("ada", name, 1)] == ["a", "c", "d", "e"]


def test_a_chain_takes_the_place_of_the_one_it_continues() -> None:
    """A conversation is there once, however many turns it has, and each turn is weighed once."""
    memory = ChainMemory(12_000)
    turns = [turn(str(n)) for n in range(8)]
    memory.keep("ada", turns[:1], 1)
    for before, after in pairwise(turns):
        memory.grow("ada", before.id, after, 1)
    assert memory.find("ada", "7", 1) == turns
    assert memory.find("ada", "6", 1) is None
    assert memory._bytes == sum(len(one.input[0].body) + 256 for one in turns)


def test_what_was_given_out_does_not_grow() -> None:
    """Nor does it change what is remembered."""
    memory = ChainMemory(12_000)
    memory.keep("ada", [turn("a")], 1)
    found = memory.find("ada", "a", 1)
    memory.grow("ada", "a", turn("b"), 1)
    assert found == [turn("a")]
    found.clear()
    assert memory.find("ada", "b", 1) == [turn("a"), turn("b")]


def test_another_version_remembers_nothing() -> None:
    """What was read from another history is neither given out nor continued; what is read anew takes its place."""
    memory = ChainMemory(12_000)
    memory.keep("ada", [turn("a")], 1)
    assert memory.find("ada", "a", 2) is None
    memory.grow("ada", "a", turn("b"), 2)
    assert memory.find("ada", "b", 2) is None
    memory.keep("ada", [turn("a"), turn("b")], 2)
    assert memory.find("ada", "b", 2) == [turn("a"), turn("b")]
    assert memory.find("ada", "b", 1) is None


def test_a_branch_of_what_has_gone_on_is_not_mixed_up() -> None:
    """Two that continue one response at the same time: the first is remembered, the second has to be read."""
    memory = ChainMemory(12_000)
    memory.keep("ada", [turn("a")], 1)
    memory.grow("ada", "a", turn("b"), 1)
    memory.grow("ada", "a", turn("x"), 1)
    assert memory.find("ada", "b", 1) == [turn("a"), turn("b")]
    assert memory.find("ada", "x", 1) is None


def test_a_chain_that_is_too_large_is_not_remembered() -> None:
    """One conversation does not take the room of all others."""
    memory = ChainMemory(12_000)
    memory.keep("ada", [turn("small")], 1)
    memory.keep("ada", [turn("large", 4_000)], 1)
    assert memory.find("ada", "large", 1) is None
    assert memory.find("ada", "small", 1) is not None
