"""What every store promises. It knows no database: `conftest.KINDS` says which stores are asked."""

import asyncio
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import KINDS, Model, StoreFactory, conversation, items, response, running

from ore.errors import StorageFailed
from ore.stores.base import (
    Fenced,
    Lease,
    MissingAncestor,
    RunState,
    Store,
    StoredEvent,
    StoredItem,
    StoredResponse,
    StoredRun,
    TakenIds,
    UnknownCursor,
)

pytestmark = pytest.mark.anyio


async def listed(
    store: Store, id: str, order: Literal["asc", "desc"], limit: int = 100, after: str | None = None
) -> Any:
    page = await store.input_items("ada", id, limit=limit, order=order, after=after)
    return page if page is None else ([item.id for item in page.items], page.has_more)


class TestSaving:
    async def test_what_was_saved_is_loaded(self, store: Store) -> None:
        """A response comes back as it was, whatever bytes and whatever letters it is made of."""
        saved = StoredResponse(
            id="resp_ä\U0001f600",
            created_at=0,
            status="in_progress",
            previous_response_id="resp_elsewhere",
            envelope=bytes(range(256)),
            input=(StoredItem("", b""), StoredItem("same", b"1"), StoredItem("same", b"2")),
            output=(StoredItem("same", b"3" * 100_000),),
        )
        await store.save("ada", saved)
        assert await store.load("ada", "resp_ä\U0001f600") == saved

    async def test_a_response_may_have_no_items(self, store: Store) -> None:
        """Nothing was given and nothing was made: both lists are empty."""
        await store.save("ada", response("r", given=(), made=()))
        assert await store.load("ada", "r") == response("r", given=(), made=())

    @pytest.mark.parametrize("given", [(), ("a",), ("a", "b", "c"), ("c", "a")])
    async def test_saving_again_replaces(self, store: Store, given: tuple[str, ...]) -> None:
        """The second save wins in everything: status, envelope, predecessor, and the items, be they more or fewer."""
        await store.save("ada", response("r", given=("a", "b"), made=("x",), status="in_progress"))
        again = msgspec.structs.replace(
            response("r", "before", given=given, made=given, status="failed", mark="new"), created_at=7
        )
        await store.save("ada", again)
        assert await store.load("ada", "r") == again

    async def test_concurrent_saves_of_one_id_do_not_mix(self, store: Store) -> None:
        """Whichever save comes last, all of the response is of that one."""
        versions = [response("r", given=(f"i{n}",) * n, made=(f"o{n}",) * (20 - n), mark=str(n)) for n in range(20)]
        await asyncio.gather(*(store.save("ada", version) for version in versions))
        assert await store.load("ada", "r") in versions

    async def test_a_failed_save_fails_alone(self, store: Store) -> None:
        """A body that is no bytes fails its own save, leaves nothing of it behind, and harms no other caller."""
        text: Any = "text"
        wrong = msgspec.structs.replace(response("wrong"), output=(StoredItem("item", text),))
        saves = [store.save("ada", response(f"r{n}")) for n in range(10)]
        saves.insert(5, store.save("ada", wrong))
        results = await asyncio.gather(*saves, return_exceptions=True)
        assert [n for n, result in enumerate(results) if result is not None] == [5]
        assert await store.load("ada", "wrong") is None
        assert all([await store.load("ada", f"r{n}") for n in range(10)])

    async def test_a_cancelled_caller_does_not_undo_its_save(self, store: Store) -> None:
        """Once accepted, a response is kept, although nobody waits for it any more."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.save, "ada", response("left"))
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await store.save("ada", response("stayed"))
        assert await store.load("ada", "left") == response("left")
        assert await store.load("ada", "stayed") == response("stayed")


class TestDeleting:
    async def test_a_deleted_response_is_gone(self, store: Store) -> None:
        """Deleting says whether there was something; afterwards nobody finds it, by any method."""
        await store.save("ada", response("r"))
        assert await store.delete("ada", "r") is True
        assert await store.delete("ada", "r") is False
        assert await store.load("ada", "r") is None
        assert await store.chain("ada", "r") is None
        assert await listed(store, "r", "asc") is None

    async def test_a_deleted_id_can_be_saved_anew(self, store: Store) -> None:
        """Nothing of the old items is left under the id."""
        await store.save("ada", response("r", given=("a", "b", "c")))
        await store.delete("ada", "r")
        await store.save("ada", response("r", given=("d",)))
        assert await store.load("ada", "r") == response("r", given=("d",))


class TestOwners:
    async def test_another_owner_sees_nothing(self, store: Store) -> None:
        """A response of somebody else is simply not there, and cannot be deleted or continued."""
        await store.save("ada", response("r"))
        assert await store.load("bob", "r") is None
        assert await store.chain("bob", "r") is None
        assert await store.input_items("bob", "r", limit=1, order="asc", after=None) is None
        assert await store.delete("bob", "r") is False
        await store.save("bob", response("child", "r"))
        with pytest.raises(MissingAncestor, match=r"^r$"):
            await store.chain("bob", "child")
        assert await store.load("ada", "r") == response("r")

    async def test_one_id_of_two_owners_is_two_responses(self, store: Store) -> None:
        """Saving and deleting under an id touches one owner's response only."""
        await store.save("ada", response("r", mark="of ada"))
        await store.save("bob", response("r", mark="of bob"))
        assert await store.load("ada", "r") == response("r", mark="of ada")
        assert await store.delete("ada", "r") is True
        assert await store.load("bob", "r") == response("r", mark="of bob")


class TestChains:
    async def test_turns_come_oldest_first(self, store: Store) -> None:
        """A chain has each ancestor with its items, and nothing that came later."""
        for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "c")):
            await store.save("ada", response(name, previous))
        turns = await store.chain("ada", "c")
        assert turns is not None
        assert [turn.id for turn in turns] == ["a", "b", "c"]
        assert turns[1].input == items("b_in")
        assert turns[1].output == items("b_out")
        assert turns[1].status == "completed"

    async def test_a_thousand_turns(self, store: Store) -> None:
        """A chain has no length at which it is cut."""
        ids = [f"r{n}" for n in range(1000)]
        saves = [store.save("ada", response(name, previous)) for name, previous in zip(ids, [None, *ids], strict=False)]
        await asyncio.gather(*saves)
        turns = await store.chain("ada", ids[-1])
        assert turns is not None
        assert [turn.id for turn in turns] == ids
        assert await listed(store, ids[-1], "desc", 2) == (["r999_in", "r998_out"], True)

    async def test_a_deleted_ancestor_is_named(self, store: Store) -> None:
        """A chain with a hole is refused with the id that is missing, not shortened."""
        for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "c")):
            await store.save("ada", response(name, previous))
        await store.delete("ada", "b")
        with pytest.raises(MissingAncestor, match=r"^b$"):
            await store.chain("ada", "d")

    async def test_a_circle_ends_where_it_closes(self, store: Store) -> None:
        """Responses that follow each other in a circle are each visited once."""
        for name, previous in (("a", "c"), ("b", "a"), ("c", "b"), ("self", "self")):
            await store.save("ada", response(name, previous))
        turns = await store.chain("ada", "b")
        assert turns is not None
        assert [turn.id for turn in turns] == ["c", "a", "b"]
        assert len(await store.chain("ada", "self") or ()) == 1


class TestInputItems:
    async def test_the_whole_chain_without_the_own_output(self, store: Store) -> None:
        """The list has what the model was given: earlier input and output, then this input."""
        for name, previous in (("a", None), ("b", "a"), ("c", "b")):
            await store.save("ada", response(name, previous))
        expected = ["a_in", "a_out", "b_in", "b_out", "c_in"]
        assert await listed(store, "c", "asc") == (expected, False)
        assert await listed(store, "c", "desc") == (expected[::-1], False)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("limit", range(1, 9))
    async def test_pages_make_up_the_list(self, store: Store, order: Literal["asc", "desc"], limit: int) -> None:
        """Following `after` to the end shows each item once, in order, for every size of page."""
        await store.save("ada", response("a", given=("1", "2", "3"), made=("4", "5")))
        await store.save("ada", response("b", "a", given=("6", "7"), made=("8",)))
        shown: list[str] = []
        more = True
        while more:
            page, more = await listed(store, "b", order, limit, shown[-1] if shown else None)
            assert len(page) == limit or not more
            shown += page
        assert shown == (list("1234567") if order == "asc" else list("7654321"))

    async def test_a_repeated_id_means_its_first_match(self, store: Store) -> None:
        """Clients choose ids, so one may be there twice; `after` takes the first in the order asked for."""
        await store.save("ada", response("a", given=("x", "1"), made=("2",)))
        await store.save("ada", response("b", "a", given=("x", "3"), made=()))
        assert await listed(store, "b", "asc", 2, "x") == (["1", "2"], True)
        assert await listed(store, "b", "desc", 2, "x") == (["2", "1"], True)

    async def test_a_cursor_must_be_in_the_list(self, store: Store) -> None:
        """The own output is not in the list, and neither is the item of another response."""
        await store.save("ada", response("a"))
        await store.save("ada", response("b"))
        for cursor in ("a_out", "b_in", "nowhere"):
            with pytest.raises(UnknownCursor, match=cursor):
                await listed(store, "a", "asc", after=cursor)
        assert await listed(store, "a", "asc", after="a_in") == ([], False)

    async def test_deleted_ancestors_are_left_out(self, store: Store) -> None:
        """A listing goes back as far as the chain holds."""
        for name, previous in (("a", None), ("b", "a"), ("c", "b"), ("d", "c")):
            await store.save("ada", response(name, previous))
        await store.delete("ada", "b")
        assert await listed(store, "d", "asc") == (["c_in", "c_out", "d_in"], False)


class TestListing:
    async def test_heads_have_the_last_input_and_no_output(self, store: Store) -> None:
        """A head says all about a response but its items, of which only the last that was given is there."""
        await store.save("ada", response("a", given=("x", "y"), mark="é"))
        await store.save("ada", response("b", "a", given=(), status="failed"))
        page = await store.list_responses("ada", limit=10, order="desc", after=None)
        assert page.responses == (
            response("b", "a", given=(), made=(), status="failed"),
            response("a", given=("y",), made=(), mark="é"),
        )

    async def test_the_conversation_is_told(self, store: Store) -> None:
        """As `load` tells it."""
        await store.create_conversation("ada", conversation("c"))
        await store.save("ada", response("a", conversation="c"))
        page = await store.list_responses("ada", limit=1, order="desc", after=None)
        assert page.responses[0].conversation == "c"

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("limit", range(1, 6))
    async def test_pages_make_up_the_list_of_one_owner(
        self, store: Store, order: Literal["asc", "desc"], limit: int
    ) -> None:
        """Each response of the owner once, in the order of first saves, for every size of page."""
        for name in ("a", "b", "c", "d"):
            await store.save("ada", response(name))
            await store.save("bob", response(f"of bob {name}"))
        await store.save("ada", response("a", status="failed"))
        await store.delete("ada", "c")
        shown: list[str] = []
        more = True
        while more:
            page = await store.list_responses("ada", limit=limit, order=order, after=shown[-1] if shown else None)
            more = page.has_more
            assert len(page.responses) == limit or not more
            shown += [one.id for one in page.responses]
        assert shown == (["a", "b", "d"] if order == "asc" else ["d", "b", "a"])

    async def test_a_response_of_somebody_else_is_no_cursor(self, store: Store) -> None:
        """Nor is one that was deleted."""
        await store.save("bob", response("r"))
        with pytest.raises(UnknownCursor, match="r"):
            await store.list_responses("ada", limit=1, order="asc", after="r")


class TestLife:
    async def test_a_restart_keeps_everything(self, make_store: StoreFactory) -> None:
        """What was saved before `stop` is there after the next `start`."""
        async with running(make_store()) as store:
            await store.save("ada", response("a"))
            await store.save("ada", response("b", "a"))
        async with running(make_store()) as store:
            assert await store.load("ada", "b") == response("b", "a")
            assert len(await store.chain("ada", "b") or ()) == 2

    async def test_stop_finishes_what_was_accepted(self, make_store: StoreFactory) -> None:
        """A save that was under way when `stop` began is not lost."""
        store = make_store()
        await store.start()
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(store.save, "ada", response(f"r{n}"))
            await anyio.lowlevel.checkpoint()
            await store.stop()
        async with running(make_store()) as store:
            assert all([await store.load("ada", f"r{n}") for n in range(50)])

    async def test_stop_may_be_called_again(self, make_store: StoreFactory) -> None:
        """Stopping before the start, twice, and at the same time does no harm."""
        await make_store().stop()
        store = make_store()
        await store.start()
        await asyncio.gather(store.stop(), store.stop())
        await store.stop()

    async def test_nothing_works_but_while_running(self, make_store: StoreFactory) -> None:
        """Before `start` and after `stop` every call is refused, and the store is not healthy."""
        store = make_store()
        await refuses_everything(store)
        async with running(store):
            assert await store.health() is True
        await refuses_everything(store)


async def refuses_everything(store: Store) -> None:
    assert await store.health() is False
    for call in (
        store.save("ada", response("r")),
        store.load("ada", "r"),
        store.delete("ada", "r"),
        store.chain("ada", "r"),
        store.input_items("ada", "r", limit=1, order="asc", after=None),
        store.list_responses("ada", limit=1, order="asc", after=None),
        store.create_conversation("ada", conversation("c")),
        store.load_conversation("ada", "c"),
        store.update_conversation("ada", "c", b"{}"),
        store.delete_conversation("ada", "c"),
        store.add_conversation_items("ada", "c", items("i")),
        store.conversation_items("ada", "c"),
        store.list_conversation_items("ada", "c", limit=1, order="asc", after=None),
        store.conversation_item("ada", "c", "i"),
        store.delete_conversation_item("ada", "c", "i"),
        store.lock_conversation("ada", "c", "r", 1),
        store.unlock_conversation("ada", "c", "r"),
    ):
        with pytest.raises(StorageFailed):
            await call


IDS = st.sampled_from(["a", "b", "c", "d"])
ITEM_IDS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3).map(tuple)
TALKS = st.sampled_from(["talk", "chat"])
STATUSES = st.sampled_from(["in_progress", "completed", "completed", "incomplete", "failed", "cancelled"])
CURSOR = (st.integers(1, 4), st.sampled_from(["asc", "desc"]), st.none() | st.sampled_from(["x", "y", "z"]))
OPERATIONS = st.one_of(
    st.tuples(
        st.just("save"),
        st.builds(
            response,
            IDS,
            st.none() | IDS,
            conversation=st.none() | TALKS,
            given=ITEM_IDS,
            made=ITEM_IDS,
            status=STATUSES,
            mark=st.sampled_from(["1", "2"]),
        ),
    ),
    st.tuples(st.sampled_from(["load", "delete", "chain"]), IDS),
    st.tuples(st.just("input_items"), IDS, *CURSOR),
    st.tuples(st.just("list_responses"), st.integers(1, 4), st.sampled_from(["asc", "desc"]), st.none() | IDS),
    st.tuples(
        st.just("create_conversation"),
        st.builds(conversation, TALKS),
        st.lists(st.sampled_from(["x", "y", "z"]), max_size=3, unique=True).map(lambda ids: items(*ids)),
    ),
    st.tuples(st.sampled_from(["load_conversation", "delete_conversation"]), TALKS),
    st.tuples(st.just("conversation_items"), TALKS, st.none() | IDS),
    st.tuples(st.just("update_conversation"), TALKS, st.binary(max_size=3)),
    st.tuples(st.just("add_conversation_items"), TALKS, ITEM_IDS.map(lambda ids: items(*ids))),
    st.tuples(st.just("list_conversation_items"), TALKS, *CURSOR),
    st.tuples(
        st.sampled_from(["conversation_item", "delete_conversation_item"]), TALKS, st.sampled_from(["x", "y", "z"])
    ),
    st.tuples(st.just("lock_conversation"), TALKS, IDS, st.sampled_from([0, 3600])),
    st.tuples(st.just("unlock_conversation"), TALKS, IDS),
)


async def outcome(call: Any, *arguments: Any, **named: Any) -> Any:
    """What a call returns, or what it raises, as something that can be compared."""
    try:
        result = call(*arguments, **named)
        return await result if asyncio.iscoroutine(result) else result
    except (MissingAncestor, UnknownCursor, TakenIds) as failure:
        return type(failure), failure.args


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(operations=st.lists(st.tuples(st.sampled_from(["ada", "bob"]), OPERATIONS), max_size=60))
async def test_two_owners_are_each_alone(kind: str, operations: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Each of two owners gets, operation by operation, what a store of its own would have answered."""
    alone = {"ada": Model(), "bob": Model()}
    with TemporaryDirectory() as folder:
        async with running(KINDS[kind](Path(folder))()) as store:
            for owner, (method, *arguments) in operations:
                if method == "create_conversation" and arguments[0].id in alone[owner].conversations:
                    continue  # ids are made at random
                expected = await outcome(getattr(alone[owner], method), *arguments)
                call = partial(getattr(store, method), owner)
                if method in ("input_items", "list_conversation_items"):
                    name, limit, order, after = arguments
                    got = await outcome(call, name, limit=limit, order=order, after=after)
                elif method == "list_responses":
                    limit, order, after = arguments
                    got = await outcome(call, limit=limit, order=order, after=after)
                elif method == "conversation_items":
                    got = await outcome(call, arguments[0], holder=arguments[1])
                else:
                    got = await outcome(call, *arguments)
                assert got == expected


HOUR = Lease("process_a", 3600.0)
OTHER = Lease("process_b", 3600.0)
RUN = StoredRun(request=b'{"input":[]}', progress=b"", streamed=True)


def events(*numbers: int) -> tuple[StoredEvent, ...]:
    return tuple(StoredEvent(number, f"response.kind_{number}", f'{{"n":{number}}}'.encode()) for number in numbers)


async def begun(store: Store, id: str = "r", owner: str = "ada", lease: Lease = HOUR) -> int:
    return await store.begin(owner, response(id, status="queued", made=()), RUN, lease)


class TestBackgroundRuns:
    async def test_a_run_is_kept_with_its_events_and_its_end(self, store: Store) -> None:
        """Response, events and progress are there once they were acknowledged; the end comes with the last events."""
        fence = await begun(store)
        assert await store.load("ada", "r") == response("r", status="queued", made=())
        assert await store.run_state("ada", "r") == RunState(streamed=True, ended=False, events=0)
        await store.append("ada", "r", fence, events(0, 1), b"first")
        await store.append("ada", "r", fence, events(2), None)
        assert await store.events("ada", "r", after=-1, limit=100) == list(events(0, 1, 2))
        assert await store.events("ada", "r", after=0, limit=1) == list(events(1))
        assert await store.events("ada", "r", after=2, limit=100) == []
        await store.save("ada", response("r"), fence=fence, events=events(3))
        assert await store.run_state("ada", "r") == RunState(streamed=True, ended=True, events=4)
        assert await store.load("ada", "r") == response("r")

    async def test_only_background_responses_have_a_run(self, store: Store) -> None:
        """An ordinary response has none, and neither has one that is not there, or is somebody else's."""
        await store.save("ada", response("plain"))
        await begun(store)
        assert await store.run_state("ada", "plain") is None
        assert await store.run_state("ada", "none") is None
        assert await store.run_state("bob", "r") is None
        assert await store.events("bob", "r", after=-1, limit=100) == []

    async def test_nobody_claims_what_is_driven(self, store: Store) -> None:
        """A lease that has not run out keeps others away; one that was given back or has run out does not."""
        held = await begun(store, "held")
        await begun(store, "over", lease=Lease("process_a", -1.0))
        released = await begun(store, "released")
        await store.release("ada", "released", released)
        await store.release("ada", "held", held + 1)  # somebody else's fence
        claimed = await store.claim(OTHER, limit=10)
        assert sorted(run.response.id for run in claimed) == ["over", "released"]
        assert await store.claim(HOUR, limit=10) == []

    async def test_a_claim_gives_all_it_takes_to_go_on(self, store: Store) -> None:
        """The response as it was kept, the request and what was noted last; and a new fence. Its events are there."""
        fence = await begun(store, lease=Lease("process_a", -1.0))
        await store.append("ada", "r", fence, events(0, 1), b"noted")
        (claimed,) = await store.claim(OTHER, limit=10)
        assert (claimed.owner, claimed.attempt) == ("ada", 2)
        assert await store.events("ada", "r", after=-1, limit=-1) == list(events(0, 1))
        assert claimed.fence > fence
        assert claimed.response == response("r", status="queued", made=())
        assert claimed.run == StoredRun(request=RUN.request, progress=b"noted", streamed=True)

    async def test_the_oldest_are_claimed_first(self, store: Store) -> None:
        """No more than asked for, in the order in which they were begun."""
        for n in range(4):
            await begun(store, f"r{n}", lease=Lease("process_a", -1.0))
        assert [run.response.id for run in await store.claim(OTHER, limit=2)] == ["r0", "r1"]
        assert [run.response.id for run in await store.claim(OTHER, limit=9)] == ["r2", "r3"]

    async def test_whoever_lost_a_run_cannot_write_to_it(self, store: Store) -> None:
        """Events, progress and the end are refused with the old fence, and nothing of them is kept."""
        old = await begun(store)
        await store.append("ada", "r", old, events(0), None)
        taken = await store.take("ada", "r", OTHER)
        assert taken is not None
        with pytest.raises(Fenced):
            await store.append("ada", "r", old, events(1), b"late")
        with pytest.raises(Fenced):
            await store.save("ada", response("r", mark="late"), fence=old, events=events(1))
        assert await store.events("ada", "r", after=-1, limit=100) == list(events(0))
        await store.save("ada", response("r"), fence=taken.fence, events=events(1))
        assert await store.load("ada", "r") == response("r")

    async def test_what_has_ended_is_nobody_s_any_more(self, store: Store) -> None:
        """It cannot be claimed, taken, or written to."""
        fence = await begun(store, lease=Lease("process_a", -1.0))
        await store.save("ada", response("r"), fence=fence)
        assert await store.claim(OTHER, limit=10) == []
        assert await store.take("ada", "r", OTHER) is None
        with pytest.raises(Fenced):
            await store.append("ada", "r", fence, events(0), None)

    async def test_renewing_keeps_what_is_named_and_held(self, store: Store) -> None:
        """Not another's, and not a run of ours that nobody drives any more."""
        for run, holder in (("driven", "process_a"), ("left", "process_a"), ("theirs", "process_b")):
            await begun(store, run, lease=Lease(holder, -1.0))
        await store.renew([("ada", "driven"), ("ada", "theirs"), ("bob", "left")], HOUR)
        claimed = await store.claim(Lease("process_c", 1.0), limit=10)
        assert [run.response.id for run in claimed] == ["left", "theirs"]

    async def test_letting_go_is_no_attempt(self, store: Store) -> None:
        """A run that was given back as it should be has used up nothing, however often."""
        fence = await begun(store)
        for _ in range(3):
            await store.release("ada", "r", fence)
            (claimed,) = await store.claim(OTHER, limit=10)
            assert claimed.attempt == 1
            fence = claimed.fence

    async def test_deleting_takes_the_run_along(self, store: Store) -> None:
        """Its events and its state go with the response."""
        fence = await begun(store)
        await store.save("ada", response("r"), fence=fence, events=events(0))
        assert await store.delete("ada", "r")
        assert await store.run_state("ada", "r") is None
        assert await store.events("ada", "r", after=-1, limit=100) == []

    async def test_a_run_of_the_same_id_is_each_owner_s_own(self, store: Store) -> None:
        """Two owners may have runs of one id, and write each to their own."""
        ada, bob = await begun(store), await begun(store, owner="bob")
        await store.append("ada", "r", ada, events(0), None)
        await store.append("bob", "r", bob, events(0, 1), None)
        assert len(await store.events("ada", "r", after=-1, limit=100)) == 1
        assert await store.take("carl", "r", OTHER) is None


class TestPruning:
    async def test_old_events_and_old_responses_go(self, store: Store) -> None:
        """Events of runs that ended before, and responses made before; not those of runs that go on."""
        ended, going = await begun(store, "ended"), await begun(store, "going")
        await store.append("ada", "going", going, events(0), None)
        await store.save("ada", response("ended"), fence=ended, events=events(0))
        await store.save("ada", response("plain"))
        future, past = 4e9, 1e9
        assert await store.prune(events_before=past, responses_before=past, limit=9) == 0
        assert await store.run_state("ada", "ended") == RunState(streamed=True, ended=True, events=1)
        assert await store.prune(events_before=future, responses_before=None, limit=9) == 1
        assert await store.prune(events_before=future, responses_before=None, limit=9) == 0
        assert await store.run_state("ada", "ended") == RunState(streamed=True, ended=True, events=0)
        assert await store.prune(events_before=None, responses_before=future, limit=1) == 1
        assert await store.prune(events_before=None, responses_before=future, limit=9) == 1
        assert await store.load("ada", "plain") is None
        assert await store.events("ada", "going", after=-1, limit=9) == list(events(0))


class TestFindingItems:
    async def test_an_item_is_found_by_its_id(self, store: Store) -> None:
        """Given or made, of any response of this owner; the newest where several have the id."""
        await store.save("ada", response("r1", given=("i",), made=("o",), mark="old"))
        await store.save("ada", response("r2", given=("i",), made=("p",), mark="new"))
        assert await store.find_item("ada", "i") == items("i", mark="new")[0]
        assert await store.find_item("ada", "o") == items("o", mark="old")[0]
        assert await store.find_item("ada", "x") is None
        assert await store.find_item("bob", "i") is None
