"""What every store promises about conversations. It knows no database: `conftest.KINDS` says which stores are asked."""

import asyncio
from typing import Any, Literal

import pytest
from store_kit import StoreFactory, conversation, items, response, running

from ore.errors import StorageFailed
from ore.stores.base import Store, StoredConversation, StoredItem, TakenIds, UnknownCursor

pytestmark = pytest.mark.anyio


async def ids(store: Store, id: str = "c", owner: str = "ada") -> list[str] | None:
    found = await store.conversation_items(owner, id)
    return None if found is None else [item.id for item in found]


async def listed(
    store: Store, order: Literal["asc", "desc"], limit: int = 100, after: str | None = None, id: str = "c"
) -> Any:
    page = await store.list_conversation_items("ada", id, limit=limit, order=order, after=after)
    return page if page is None else ([item.id for item in page.items], page.has_more)


async def given(store: Store, id: str, order: Literal["asc", "desc"] = "asc") -> list[str]:
    """The ids of what a response was given."""
    page = await store.input_items("ada", id, limit=1000, order=order, after=None)
    assert page is not None
    return [item.id for item in page.items]


async def turns(store: Store, id: str) -> list[tuple[str, list[str], list[str]]]:
    return [
        (turn.id, [item.id for item in turn.input], [item.id for item in turn.output])
        for turn in await store.chain("ada", id) or ()
    ]


class TestKeeping:
    async def test_what_was_created_is_there(self, store: Store) -> None:
        """A conversation and its items come back as they were, whatever bytes and letters they are made of."""
        about = StoredConversation(id="conv_ä\U0001f600", created_at=0, metadata=bytes(range(256)))
        first = (StoredItem("", b""), StoredItem("a\0b", b"1" * 100_000), StoredItem("a", b"2"))
        await store.create_conversation("ada", about, first)
        assert await store.load_conversation("ada", about.id) == about
        assert await store.conversation_items("ada", about.id) == first
        assert [await store.conversation_item("ada", about.id, item.id) for item in first] == list(first)

    async def test_metadata_is_replaced(self, store: Store) -> None:
        """An update touches the metadata and nothing else."""
        await store.create_conversation("ada", conversation("c", "old"), items("i"))
        assert await store.update_conversation("ada", "c", b"new") == StoredConversation(
            id="c", created_at=conversation("c").created_at, metadata=b"new"
        )
        assert await store.load_conversation("ada", "c") == await store.update_conversation("ada", "c", b"new")
        assert await ids(store) == ["i"]

    async def test_what_is_not_there(self, store: Store) -> None:
        """Every method says so when there is no such conversation, or no such item in one."""
        assert await store.load_conversation("ada", "c") is None
        assert await store.update_conversation("ada", "c", b"{}") is None
        assert await store.delete_conversation("ada", "c") is False
        assert await store.add_conversation_items("ada", "c", items("i")) is False
        assert await store.conversation_items("ada", "c") is None
        assert await listed(store, "asc") is None
        assert await store.lock_conversation("ada", "c", "r", 60) is None
        await store.unlock_conversation("ada", "c", "r")
        await store.create_conversation("ada", conversation("c"))
        await store.create_conversation("ada", conversation("other"), items("i"))
        assert await store.conversation_item("ada", "c", "i") is None
        assert await store.delete_conversation_item("ada", "c", "i") is False

    async def test_a_deleted_conversation_is_gone(self, store: Store) -> None:
        """With its items; a new one of that id, if there ever were one, has none of them."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        assert await store.delete_conversation("ada", "c") is True
        assert await store.delete_conversation("ada", "c") is False
        assert await store.load_conversation("ada", "c") is None
        assert await store.conversation_item("ada", "c", "i") is None
        await store.create_conversation("ada", conversation("c"))
        assert await ids(store) == []

    async def test_an_id_is_created_once(self, store: Store) -> None:
        """A second conversation of that id, and first items that share an id, are refused with nothing left behind."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        with pytest.raises(StorageFailed):
            await store.create_conversation("ada", conversation("c"), items("j"))
        with pytest.raises(StorageFailed):
            await store.create_conversation("ada", conversation("d"), items("i", "i"))
        assert await ids(store) == ["i"]
        assert await store.load_conversation("ada", "d") is None

    async def test_another_owner_sees_nothing(self, store: Store) -> None:
        """Somebody else's conversation is simply not there; one id of two owners is two conversations."""
        await store.create_conversation("ada", conversation("c", "of ada"), items("i"))
        assert await store.load_conversation("bob", "c") is None
        assert await store.update_conversation("bob", "c", b"{}") is None
        assert await store.delete_conversation("bob", "c") is False
        assert await store.add_conversation_items("bob", "c", items("j")) is False
        assert await store.conversation_items("bob", "c") is None
        assert await store.list_conversation_items("bob", "c", limit=1, order="asc", after=None) is None
        assert await store.conversation_item("bob", "c", "i") is None
        assert await store.delete_conversation_item("bob", "c", "i") is False
        assert await store.lock_conversation("bob", "c", "r", 60) is None
        await store.save("bob", response("r", conversation="c"))
        assert await ids(store) == ["i"]
        await store.create_conversation("bob", conversation("c", "of bob"), items("i"))
        await store.delete_conversation("bob", "c")
        assert await store.load_conversation("ada", "c") == conversation("c", "of ada")
        assert [turn.id for turn in await store.chain("bob", "r") or ()] == ["r"]

    async def test_a_restart_keeps_everything(self, make_store: StoreFactory) -> None:
        """Conversation, items, lock and history are there after the next start."""
        async with running(make_store()) as store:
            await store.create_conversation("ada", conversation("c"), items("i"))
            await store.save("ada", response("r", conversation="c"))
            await store.lock_conversation("ada", "c", "s", 3600)
        async with running(make_store()) as store:
            assert await store.load_conversation("ada", "c") == conversation("c")
            assert await ids(store) == ["i", "r_in", "r_out"]
            assert await turns(store, "r") == [("c", ["i"], []), ("r", ["r_in"], ["r_out"])]
            assert await store.lock_conversation("ada", "c", "t", 3600) is False
            assert await store.lock_conversation("ada", "c", "s", 3600) is True


class TestItems:
    async def test_items_are_added_at_the_end(self, store: Store) -> None:
        """In the order in which they came, also behind one that was deleted."""
        await store.create_conversation("ada", conversation("c"), items("z", "y"))
        assert await store.add_conversation_items("ada", "c", items("x", "w")) is True
        assert await store.delete_conversation_item("ada", "c", "w") is True
        assert await store.add_conversation_items("ada", "c", items("w", "a")) is True
        assert await ids(store) == ["z", "y", "x", "w", "a"]

    @pytest.mark.parametrize("added", [("new", "i"), ("new", "new", "j"), ("i", "j")])
    async def test_ids_that_are_taken_are_named(self, store: Store, added: tuple[str, ...]) -> None:
        """Nothing is added when an id is there already or comes twice, and all such ids are told."""
        await store.create_conversation("ada", conversation("c"), items("i", "j"))
        with pytest.raises(TakenIds) as caught:
            await store.add_conversation_items("ada", "c", items(*added))
        assert caught.value.args[0] == {one for one in added if one in ("i", "j") or added.count(one) > 1}
        assert await ids(store) == ["i", "j"]

    async def test_concurrent_additions_do_not_mix(self, store: Store) -> None:
        """Of many callers at once each has its items side by side, and of those with one id one wins."""
        await store.create_conversation("ada", conversation("c"))
        adding = [store.add_conversation_items("ada", "c", items(f"{n}a", f"{n}b", "same")) for n in range(20)]
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert sorted(map(str, results)) == sorted(["True"] + ["frozenset({'same'})"] * 19)
        (won,) = [n for n, result in enumerate(results) if result is True]
        assert await ids(store) == [f"{won}a", f"{won}b", "same"]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("limit", range(1, 9))
    async def test_pages_make_up_the_list(self, store: Store, order: Literal["asc", "desc"], limit: int) -> None:
        """Following `after` to the end shows each item once, in order, for every size of page, and no other's."""
        await store.create_conversation("ada", conversation("c"), items(*"1234"))
        await store.create_conversation("ada", conversation("other"), items(*"123"))
        await store.add_conversation_items("ada", "c", items(*"567"))
        shown: list[str] = []
        more = True
        while more:
            page, more = await listed(store, order, limit, shown[-1] if shown else None)
            assert len(page) == limit or not more
            shown += page
        assert shown == (list("1234567") if order == "asc" else list("7654321"))

    async def test_a_cursor_must_be_in_the_list(self, store: Store) -> None:
        """An item of another conversation, or one that was deleted, is none of this list."""
        await store.create_conversation("ada", conversation("c"), items("i", "gone"))
        await store.create_conversation("ada", conversation("other"), items("j"))
        await store.delete_conversation_item("ada", "c", "gone")
        for cursor in ("j", "gone", ""):
            with pytest.raises(UnknownCursor) as caught:
                await listed(store, "asc", after=cursor)
            assert caught.value.args == (cursor,)
        assert await listed(store, "asc", after="i") == ([], False)


class TestResponses:
    @pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled", "in_progress", "queued"])
    async def test_items_are_appended_when_there_is_an_answer(self, store: Store, status: str) -> None:
        """What was said is appended when the response completed, whole or cut off, and never else."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        saved = response("r", conversation="c", status=status)
        await store.save("ada", saved)
        assert await store.load("ada", "r") == saved
        answered = status in ("completed", "incomplete")
        assert await ids(store) == (["i", "r_in", "r_out"] if answered else ["i"])
        assert await given(store, "r") == ["i", "r_in"]

    async def test_items_are_appended_once(self, store: Store) -> None:
        """However often a response is saved, and although an item of it was deleted from the conversation since."""
        await store.create_conversation("ada", conversation("c"))
        for status in ("queued", "in_progress", "completed", "completed"):
            await store.save("ada", response("r", conversation="c", status=status))
        await store.delete_conversation_item("ada", "c", "r_in")
        await store.save("ada", response("r", conversation="c", given=("r_in", "more")))
        assert await ids(store) == ["r_out"]

    async def test_an_id_that_is_taken_is_passed_over(self, store: Store) -> None:
        """An item that is there already under its id stays as it is, and the response keeps its own."""
        await store.create_conversation("ada", conversation("c"), items("i", mark="first"))
        await store.save("ada", response("r", conversation="c", given=("i", "j"), made=("j",), mark="second"))
        assert await ids(store) == ["i", "j"]
        assert await store.conversation_item("ada", "c", "i") == items("i", mark="first")[0]
        found = await store.load("ada", "r")
        assert found is not None
        assert found.input == items("i", "j", mark="second")

    async def test_concurrent_responses_do_not_mix(self, store: Store) -> None:
        """Without any lock each response still has its items side by side, and its history in front of them."""
        await store.create_conversation("ada", conversation("c"))
        await asyncio.gather(*(store.save("ada", response(f"r{n}", conversation="c")) for n in range(20)))
        order = await ids(store)
        assert order is not None
        assert len(order) == 40
        for n in range(20):
            at = order.index(f"r{n}_in")
            assert order[at + 1] == f"r{n}_out"
            assert await given(store, f"r{n}") == [*order[:at], f"r{n}_in"]

    async def test_a_conversation_that_is_gone_stops_no_save(self, store: Store) -> None:
        """The response is kept; a conversation that came to have the id later does not get its items."""
        saved = response("r", conversation="c")
        await store.save("ada", saved)
        await store.create_conversation("ada", conversation("c"), items("i"))
        await store.save("ada", saved)
        assert await store.load("ada", "r") == saved
        assert await ids(store) == ["i"]
        assert await turns(store, "r") == [("r", ["r_in"], ["r_out"])]

    async def test_saving_again_replaces_the_conversation(self, store: Store) -> None:
        """With another conversation, or with none, a response is of that one alone."""
        for name in ("c", "d"):
            await store.create_conversation("ada", conversation(name), items(f"of {name}"))
            await store.save("ada", response("r", conversation=name))
            assert await given(store, "r") == [f"of {name}", "r_in"]
        await store.save("ada", response("r"))
        assert await store.load("ada", "r") == response("r")
        assert await given(store, "r") == ["r_in"]

    async def test_deleting_a_response_leaves_the_conversation(self, store: Store) -> None:
        """What it added stays there."""
        await store.create_conversation("ada", conversation("c"))
        await store.save("ada", response("r", conversation="c"))
        assert await store.delete("ada", "r") is True
        assert await ids(store) == ["r_in", "r_out"]


class TestHistory:
    async def test_what_stood_before_comes_first(self, store: Store) -> None:
        """A response, and whatever continues it, begins with the conversation as it was, not as it became."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        await store.save("ada", response("a", conversation="c"))
        await store.save("ada", response("b", conversation="c"))
        await store.save("ada", response("branch", "a"))
        await store.add_conversation_items("ada", "c", items("late"))
        assert await turns(store, "a") == [("c", ["i"], []), ("a", ["a_in"], ["a_out"])]
        assert await turns(store, "b") == [("c", ["i", "a_in", "a_out"], []), ("b", ["b_in"], ["b_out"])]
        assert await turns(store, "branch") == [
            ("c", ["i"], []),
            ("a", ["a_in"], ["a_out"]),
            ("branch", ["branch_in"], ["branch_out"]),
        ]
        assert await given(store, "b") == ["i", "a_in", "a_out", "b_in"]
        assert await given(store, "branch", "desc") == ["branch_in", "a_out", "a_in", "i"]
        assert (await store.chain("ada", "branch") or [])[0].status == "completed"

    async def test_an_empty_conversation_is_no_turn(self, store: Store) -> None:
        """The first response of a conversation has nothing before it."""
        await store.create_conversation("ada", conversation("c"))
        await store.save("ada", response("a", conversation="c"))
        assert await turns(store, "a") == [("a", ["a_in"], ["a_out"])]

    async def test_deleted_items_are_left_out(self, store: Store) -> None:
        """Those of the conversation; the response's own are its own. A place is never given to another item."""
        await store.create_conversation("ada", conversation("c"), items("i", "j"))
        await store.save("ada", response("a", conversation="c", status="failed"))
        for gone in ("j", "i"):
            await store.delete_conversation_item("ada", "c", gone)
        await store.add_conversation_items("ada", "c", items("k", "l"))
        assert await given(store, "a") == ["a_in"]
        await store.save("ada", response("b", conversation="c"))
        await store.delete_conversation_item("ada", "c", "b_in")
        await store.delete_conversation_item("ada", "c", "k")
        assert await given(store, "b") == ["l", "b_in"]

    async def test_a_deleted_conversation_leaves_what_its_responses_were_given(self, store: Store) -> None:
        """It is gone for everybody else; a response that was made in it is continued as if it were there."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        await store.save("ada", response("a", conversation="c"))
        await store.delete_conversation("ada", "c")
        assert await store.load("ada", "a") == response("a", conversation="c")
        assert await turns(store, "a") == [("c", ["i"], []), ("a", ["a_in"], ["a_out"])]
        assert await given(store, "a") == ["i", "a_in"]
        assert await store.load_conversation("ada", "c") is None
        assert await store.conversation_items("ada", "c") is None
        await store.create_conversation("ada", conversation("c"))
        assert await store.conversation_items("ada", "c") == ()

    async def test_a_lost_root_takes_its_conversation_along(self, store: Store) -> None:
        """A listing goes back as far as the chain holds, and no further."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        await store.save("ada", response("a", conversation="c"))
        await store.save("ada", response("b", "a"))
        await store.delete("ada", "a")
        assert await given(store, "b") == ["b_in"]

    @pytest.mark.parametrize("statuses", [("completed",), ("in_progress", "completed")])
    async def test_the_lock_marks_the_place(self, store: Store, statuses: tuple[str, ...]) -> None:
        """What is added while a response runs is not what its model was given, however often it is saved or locks."""
        await store.create_conversation("ada", conversation("c"), items("i"))
        await store.lock_conversation("ada", "c", "r", 3600)
        await store.add_conversation_items("ada", "c", items("late"))
        for status in statuses:
            await store.lock_conversation("ada", "c", "r", 3600)
            seen = await store.conversation_items("ada", "c", holder="r")
            assert seen == items("i")
            await store.save("ada", response("r", conversation="c", status=status))
        assert await ids(store) == ["i", "late", "r_in", "r_out"]
        assert len(await store.conversation_items("ada", "c", holder="r") or ()) == 4
        assert await given(store, "r") == ["i", "r_in"]


class TestLocks:
    async def test_one_response_at_a_time(self, store: Store) -> None:
        """A lock keeps others away, not its own holder, until it is given back by its holder."""
        await store.create_conversation("ada", conversation("c"))
        assert await store.lock_conversation("ada", "c", "r", 3600) is True
        assert await store.lock_conversation("ada", "c", "s", 3600) is False
        assert await store.lock_conversation("ada", "c", "r", 3600) is True
        await store.unlock_conversation("ada", "c", "s")
        assert await store.lock_conversation("ada", "c", "s", 3600) is False
        await store.unlock_conversation("ada", "c", "r")
        assert await store.lock_conversation("ada", "c", "s", 3600) is True

    async def test_of_many_one_gets_it(self, store: Store) -> None:
        """Who asks at the same time is told apart."""
        await store.create_conversation("ada", conversation("c"))
        asked = [store.lock_conversation("ada", "c", f"r{n}", 3600) for n in range(20)]
        assert sorted(map(bool, await asyncio.gather(*asked))) == [False] * 19 + [True]

    async def test_a_lock_ends_by_itself(self, store: Store) -> None:
        """The next one gets it then, and the old holder neither keeps nor ends the new lock."""
        await store.create_conversation("ada", conversation("c"))
        assert await store.lock_conversation("ada", "c", "dead", 0) is True
        assert await store.lock_conversation("ada", "c", "next", 3600) is True
        await store.save("ada", response("dead", conversation="c"))
        await store.unlock_conversation("ada", "c", "dead")
        assert await store.lock_conversation("ada", "c", "dead", 3600) is False

    @pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
    async def test_the_end_gives_it_back(self, store: Store, status: str) -> None:
        """Together with the last save, and not before."""
        await store.create_conversation("ada", conversation("c"))
        await store.lock_conversation("ada", "c", "r", 3600)
        await store.save("ada", response("other", conversation="c", status=status))
        for running_status in ("queued", "in_progress"):
            await store.save("ada", response("r", conversation="c", status=running_status))
            assert await store.lock_conversation("ada", "c", "s", 3600) is False
        await store.save("ada", response("r", conversation="c", status=status))
        assert await store.lock_conversation("ada", "c", "s", 3600) is True
