"""What every store promises about idempotency keys."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import KINDS, Model, StoreFactory, running

from ore.stores.base import Store, StoredAnswer

pytestmark = pytest.mark.anyio

ANSWER = StoredAnswer(201, b'[["content-type","a"]]', bytes(range(256)))
LONG = 1000.0
OVER = -1.0
"""A time that has passed already."""


async def reserve(
    store: Store, holder: str, *, owner: str = "ada", fingerprint: bytes = b"f", seconds: float = LONG
) -> Any:
    return await store.reserve(owner, "key", fingerprint, holder=holder, seconds=seconds)


async def test_the_first_reserves_and_the_next_ones_get_its_answer(store: Store) -> None:
    """In use until it is complete, then the very bytes, for as many as ask."""
    assert await reserve(store, "a") == "reserved"
    assert await reserve(store, "b") == "in use"
    await store.complete("ada", "key", "a", ANSWER, seconds=LONG)
    assert await reserve(store, "b") == ANSWER
    assert await reserve(store, "c") == ANSWER


async def test_another_request_does_not_get_the_key(store: Store) -> None:
    """Neither while the first is under way, nor afterwards; and it does not harm the first."""
    await reserve(store, "a")
    assert await reserve(store, "b", fingerprint=b"g") == "other request"
    await store.complete("ada", "key", "a", ANSWER, seconds=LONG)
    assert await reserve(store, "b", fingerprint=b"g") == "other request"
    assert await reserve(store, "b") == ANSWER


async def test_a_freed_key_is_new(store: Store) -> None:
    """Whatever request comes next may have it."""
    await reserve(store, "a")
    await store.free("ada", "key", "a")
    assert await reserve(store, "b", fingerprint=b"g") == "reserved"


async def test_owners_do_not_share_keys(store: Store) -> None:
    """The same key of another owner is another key: not seen, not completed, not freed."""
    await reserve(store, "a")
    assert await reserve(store, "a", owner="bob", fingerprint=b"g") == "reserved"
    await store.complete("ada", "key", "a", ANSWER, seconds=LONG)
    await store.free("bob", "key", "a")
    assert await reserve(store, "b", owner="bob") == "reserved"
    assert await reserve(store, "b") == ANSWER


@pytest.mark.parametrize("completed", [True, False])
async def test_what_expired_is_not_there(store: Store, completed: bool) -> None:
    """A reservation that was never completed, and an answer that was kept long enough: the key is new."""
    await reserve(store, "a", seconds=LONG if completed else OVER)
    if completed:
        await store.complete("ada", "key", "a", ANSWER, seconds=OVER)
    assert await reserve(store, "b", fingerprint=b"g") == "reserved"
    await store.complete("ada", "key", "b", ANSWER, seconds=LONG)
    assert await reserve(store, "c", fingerprint=b"g") == ANSWER


async def test_who_lost_a_reservation_can_do_nothing(store: Store) -> None:
    """After another holder took the key over, the first neither answers in its place nor frees it."""
    await reserve(store, "a", seconds=OVER)
    await reserve(store, "b")
    await store.complete("ada", "key", "a", ANSWER, seconds=LONG)
    await store.free("ada", "key", "a")
    assert await reserve(store, "c") == "in use"


async def test_an_answer_is_not_freed(store: Store) -> None:
    """Once complete, it stays."""
    await reserve(store, "a")
    await store.complete("ada", "key", "a", ANSWER, seconds=LONG)
    await store.free("ada", "key", "a")
    assert await reserve(store, "b") == ANSWER


async def test_answers_survive_a_restart_and_reservations_do_not(make_store: StoreFactory) -> None:
    """The holder of a reservation lived in the process that is gone."""
    async with running(make_store()) as store:
        await reserve(store, "a")
        await store.reserve("ada", "other", b"f", holder="b", seconds=LONG)
        await store.complete("ada", "other", "b", ANSWER, seconds=LONG)
    async with running(make_store()) as store:
        assert await reserve(store, "c", fingerprint=b"g") == "reserved"
        assert await store.reserve("ada", "other", b"f", holder="c", seconds=LONG) == ANSWER


NAMES = st.sampled_from("ab")
STEPS = st.one_of(
    st.tuples(st.just("reserve"), NAMES, NAMES.map(str.encode), NAMES, st.sampled_from([LONG, OVER])),
    st.tuples(st.just("complete"), NAMES, NAMES, st.just(ANSWER), st.sampled_from([LONG, OVER])),
    st.tuples(st.just("free"), NAMES, NAMES),
)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=st.lists(STEPS, max_size=12))
@settings(max_examples=50, deadline=None)
async def test_any_sequence_of_calls_agrees_with_the_model(
    kind: str, steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is done in whatever order, the store answers what the model of it answers."""
    model = Model()
    async with running(KINDS[kind](tmp_path_factory.mktemp("keys"))()) as store:
        for name, *arguments in steps:
            expected = getattr(model, name)(*arguments)
            assert await _call(store, name, *arguments) == expected


async def _call(store: Store, name: str, key: str, *rest: Any) -> Any:
    if name == "reserve":
        fingerprint, holder, seconds = rest
        return await store.reserve("ada", key, fingerprint, holder=holder, seconds=seconds)
    if name == "complete":
        holder, answer, seconds = rest
        return await store.complete("ada", key, holder, answer, seconds=seconds)
    return await store.free("ada", key, *rest)
