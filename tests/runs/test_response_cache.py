"""The response cache: which requests are one, which answers are kept, and who asks the model."""

from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.writing import RICH
from ore.backends.base import ModelRequest, Sampling
from ore.core import deltas as d
from ore.ids import new_id
from ore.routing.cache import ENTRY_BYTES, Hit, Lead, ResponseCache, may_be_kept

WORDS = st.sampled_from(["", "a", "b", "call_1", "é", '"', "\u2028"])
ANSWER: tuple[d.Delta, ...] = (d.Text("Hel"), d.Text("lo."), d.Finish("stop", d.Usage(input_tokens=3, output_tokens=2)))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def cache(*, ttl: float = 60.0, max_bytes: int = 1 << 20, clock: Callable[[], float] = lambda: 0.0) -> ResponseCache:
    return ResponseCache(ttl=ttl, max_bytes=max_bytes, new_id=new_id, clock=clock)


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "id": new_id("message"), "role": "user", "content": [_text(text)], **more}


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def asking(*items: dict[str, Any], **fields: Any) -> ModelRequest:
    given = {"model": "m", "sampling": Sampling(temperature=0.0), "owner": "me", **fields}
    return ModelRequest(items=items or (user("Hi"),), **given)


def key_of(request: ModelRequest, target: str = "t") -> bytes:
    key = cache().key(target, request)
    assert key is not None
    return key


async def led(here: ResponseCache, key: bytes) -> Lead:
    found = await here.lookup(key)
    assert isinstance(found, Lead)
    return found


async def put(here: ResponseCache, key: bytes, answer: tuple[d.Delta, ...] = ANSWER) -> None:
    assert (await led(here, key)).keep(answer)


async def has(here: ResponseCache, key: bytes) -> bool:
    found = await here.lookup(key)
    if isinstance(found, Lead):
        found.give_up()
    return isinstance(found, Hit)


Said = tuple[Any, ...]
"""A conversation without ids: texts, calls in their order, and outputs with the number of the call they answer."""

TURN: st.SearchStrategy[Said] = st.one_of(
    st.tuples(st.just("user"), WORDS),
    st.tuples(st.just("call"), WORDS, WORDS),
    st.tuples(st.just("output"), st.integers(0, 2), WORDS, st.sampled_from(["completed", "incomplete"])),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Said, ...]:
    said, calls = [], 0
    for turn in draw(st.lists(TURN, max_size=6)):
        if turn[0] == "output" and turn[1] >= calls:
            continue
        calls += turn[0] == "call"
        said.append(turn)
    return tuple(said)


def with_ids(said: tuple[Said, ...]) -> tuple[dict[str, Any], ...]:
    """The conversation as items, with ids and states like no other time."""
    items: list[dict[str, Any]] = []
    calls: list[str] = []
    for turn in said:
        if turn[0] == "user":
            items.append(user(turn[1], status="completed" if len(items) % 2 else "incomplete"))
        elif turn[0] == "call":
            calls.append(new_id("call"))
            call = {"type": "function_call", "id": new_id("function_call"), "call_id": calls[-1]}
            items.append({**call, "name": turn[1], "arguments": turn[2], "status": "completed"})
        else:
            output = {"type": "function_call_output", "id": new_id("item"), "call_id": calls[turn[1]]}
            items.append({**output, "output": turn[2], "status": turn[3]})
    return tuple(items)


@given(conversations(), conversations())
def test_conversations_are_one_exactly_when_all_but_their_ids_is_equal(one: Any, other: Any) -> None:
    """Random ids of equal conversations do not miss; any difference in what was said, or in what pairs, does."""
    assert key_of(asking(*with_ids(one))) == key_of(asking(*with_ids(one)))
    assert (key_of(asking(*with_ids(one))) == key_of(asking(*with_ids(other)))) == (one == other)


TOOL = {"type": "function", "name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["m", "n"]),
    "owner": st.sampled_from(["me", "you", ""]),
    "instructions": st.none() | WORDS,
    "tools": st.sampled_from([(), (TOOL,), ({**TOOL, "name": "g"},), ({**TOOL, "parameters": {}},), (TOOL, TOOL)]),
    "tool_choice": st.sampled_from(["auto", "none", {"type": "function", "name": "f"}]),
    "parallel_tool_calls": st.booleans(),
    "text_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    "verbosity": st.sampled_from([None, "low"]),
    "reasoning": st.sampled_from([None, {}, {"effort": "low"}, {"effort": None}]),
    "sampling": st.builds(
        Sampling,
        temperature=st.sampled_from([None, 0.0, 0.1, 0.10000000000000002]),
        top_p=st.sampled_from([None, 1.0]),
        presence_penalty=st.sampled_from([None, 0.5]),
        frequency_penalty=st.sampled_from([None, 0.5]),
        seed=st.sampled_from([0, 1, -1]),
        stop=st.sampled_from([(), ("a",), ("a", "b"), ("a,b",)]),
    ),
    "max_output_tokens": st.sampled_from([None, 1]),
    "top_logprobs": st.sampled_from([None, 0]),
    "include": st.sampled_from([(), ("reasoning.encrypted_content",)]),
    "max_tool_calls": st.sampled_from([None, 1]),
    "passed_on": st.sampled_from([{}, {"service_tier": "flex"}]),
}


@given(st.fixed_dictionaries(FIELDS), st.sampled_from(sorted(FIELDS)), st.data())
def test_any_other_field_makes_another_request(fields: dict[str, Any], name: str, data: st.DataObject) -> None:
    """The owner is one of them: no owner is told what another asked."""
    other = {**fields, name: data.draw(FIELDS[name])}
    assert (key_of(asking(**fields)) == key_of(asking(**other))) == (fields == other)


def test_every_field_of_a_request_counts_but_three() -> None:
    """A new field is part of the key unless somebody says otherwise; the three say nothing to a model."""
    unseen = {"places": (1,), "prompt_cache_key": "p", "safety_identifier": "s"}
    assert {*FIELDS, *unseen, "items"} == {*ModelRequest.__struct_fields__}
    assert key_of(asking(**unseen)) == key_of(asking())


def test_another_target_is_another_request() -> None:
    """The same model may be offered by more than one."""
    assert key_of(asking(), "a") != key_of(asking(), "b")


def test_the_order_of_keys_does_not_count() -> None:
    """JSON objects have none."""
    assert key_of(asking(tools=(TOOL,))) == key_of(asking(tools=(dict(reversed(TOOL.items())),)))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
    ],
)
def test_images_and_files_count_in_full(part: dict[str, Any]) -> None:
    """One character of their data, or of anything beside it, is another request."""
    whole = key_of(asking(user("", content=[part])))
    assert whole == key_of(asking(user("", content=[dict(part)])))
    for name in part:
        assert whole != key_of(asking(user("", content=[{**part, name: part[name] + "B"}])))


def test_ids_that_stand_for_something_count() -> None:
    """An image that the upstream keeps is known to it by nothing but its id."""
    one, other = ({"type": "image_generation_call", "id": f"ig_{number}", "status": "completed"} for number in (1, 2))
    assert key_of(asking(one)) != key_of(asking(other))


def test_sealed_reasoning_counts_by_what_is_in_it() -> None:
    """The same reasoning is sealed differently each time; what is sealed by others is all there is of it."""
    item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    ours = {**item, "id": "rs_1", "encrypted_content": "x", "state": "s"}
    assert key_of(asking(ours)) == key_of(asking({**ours, "id": "rs_2", "encrypted_content": "y"}))
    assert key_of(asking(ours)) != key_of(asking({**ours, "state": "t"}))
    theirs = {**item, "id": "rs_1", "encrypted_content": "x"}
    assert key_of(asking(theirs)) != key_of(asking({**theirs, "encrypted_content": "y"}))


def test_callers_pair_with_calls() -> None:
    """A program that makes calls is named by them by its call id."""

    def programs(first: str, second: str, caller: str) -> bytes:
        made = [{"type": "program", "id": "p", "call_id": call, "code": ""} for call in (first, second)]
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        return key_of(asking(*made, {**call, "caller": {"type": "program", "caller_id": caller}}))

    assert programs("a", "b", "a") == programs("x", "y", "x")
    assert programs("a", "b", "a") != programs("b", "a", "a")


@pytest.mark.parametrize(
    ("sampling", "asked", "cached"),
    [
        (Sampling(temperature=0.0), None, True),
        (Sampling(temperature=0.0), False, False),
        (Sampling(temperature=1.0, seed=0), None, True),
        (Sampling(temperature=1.0), None, False),
        (Sampling(), None, False),
        (Sampling(temperature=1.0), True, True),
    ],
)
def test_a_request_is_cached_when_it_is_repeatable_or_asks_for_it(
    sampling: Sampling, asked: bool | None, cached: bool
) -> None:
    """No chance or a seed; what the client asks for goes before."""
    assert (cache().key("t", asking(sampling=sampling), asked=asked) is not None) == cached


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "max_output_tokens", "content_filter"])
def test_only_whole_answers_are_kept(reason: Any) -> None:
    """One that was cut or filtered might end otherwise the next time; one without an end is none."""
    assert may_be_kept([d.Text("a"), d.Finish(reason)]) == (reason in ("stop", "tool_calls"))
    assert not may_be_kept([d.Text("a")])
    assert not may_be_kept([])


@pytest.mark.parametrize(
    "delta",
    [
        d.WholeItem({"type": "web_search_call", "id": "ws_1"}),
        d.ItemBegun({"type": "mcp_call", "id": "mcp_1"}),
        d.ItemEvent("response.mcp_call.in_progress", {}),
    ],
)
def test_answers_with_items_of_the_upstream_are_not_kept(delta: d.Delta) -> None:
    """They tell of something that was done, which a replay would not do."""
    assert not may_be_kept([delta, d.Text("a"), d.Finish("stop")])


@pytest.mark.anyio
async def test_an_answer_is_replayed_delta_by_delta() -> None:
    """All kinds of deltas come back as they were, but for the ids of calls, which are new each time."""
    here, key = cache(), key_of(asking())
    answer = (*(delta for delta in RICH if may_be_kept([delta, d.Finish("stop")])), *ANSWER)
    assert any(isinstance(delta, d.ToolCall) for delta in answer)
    await put(here, key, answer)
    first, second = await here.lookup(key), await here.lookup(key)
    assert isinstance(first, Hit)
    assert isinstance(second, Hit)
    ids = [[each.call_id for each in hit.deltas if isinstance(each, d.ToolCall)] for hit in (first, second)]
    of_answer = [each.call_id for each in answer if isinstance(each, d.ToolCall)]
    assert len({*ids[0], *ids[1], *of_answer}) == 3 * len(of_answer)
    assert without_ids(first.deltas) == without_ids(second.deltas) == without_ids(answer)


def without_ids(answer: tuple[d.Delta, ...]) -> list[d.Delta]:
    return [msgspec.structs.replace(each, call_id="") if isinstance(each, d.ToolCall) else each for each in answer]


@pytest.mark.anyio
async def test_an_entry_lives_as_long_as_it_was_given() -> None:
    """And not a moment longer."""
    clock = Clock()
    here, key = cache(ttl=60, clock=clock), key_of(asking())
    await put(here, key)
    clock.now += 59.9
    assert await has(here, key)
    clock.now += 0.1
    assert not await has(here, key)
    assert here._bytes == 0


@pytest.mark.anyio
async def test_the_least_recently_used_goes_first() -> None:
    """When the bytes of all entries are more than the budget."""
    size = ENTRY_BYTES + len(msgspec.json.encode(ANSWER))
    here = cache(max_bytes=3 * size)
    keys = [key_of(asking(user(text))) for text in "abcd"]
    for key in keys[:3]:
        await put(here, key)
    assert await has(here, keys[0])
    await put(here, keys[3])
    assert [await has(here, key) for key in keys] == [True, False, True, True]
    assert here._bytes == 3 * size


@pytest.mark.anyio
async def test_what_is_larger_than_the_budget_pushes_nothing_out() -> None:
    """Those who wait for it are given it all the same."""
    here, keys = cache(max_bytes=2 * ENTRY_BYTES), [key_of(asking(user(text))) for text in "ab"]
    await put(here, keys[0])
    lead = await led(here, keys[1])
    found: list[Hit | Lead] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_look, here, keys[1], found)
        await anyio.wait_all_tasks_blocked()
        assert lead.keep((d.Text("a" * 2 * ENTRY_BYTES), d.Finish("stop")))
    assert isinstance(found[0], Hit)
    assert [await has(here, key) for key in keys] == [True, False]


@pytest.mark.anyio
async def test_a_damaged_entry_is_a_miss() -> None:
    """F36: what was changed behind the cache's back, or stands under another request's key, is never told."""
    here, keys = cache(), [key_of(asking(user(text))) for text in "ab"]
    await put(here, keys[0])
    entry = here._entries[keys[0]]
    for key, damaged in (
        (keys[0], msgspec.structs.replace(entry, body=entry.body.replace(b"Hel", b"Bel"))),
        (keys[1], entry),
    ):
        here._entries[key] = damaged
        assert not await has(here, key)
        assert key not in here._entries


async def _look(here: ResponseCache, key: bytes, found: list[Hit | Lead]) -> None:
    found.append(await here.lookup(key))


@pytest.mark.anyio
async def test_200_equal_requests_ask_the_model_once() -> None:
    """F36: all others are given the answer of the first."""
    here, key, asked, answers = cache(), key_of(asking()), 0, []

    async def request() -> None:
        nonlocal asked
        found = await here.lookup(key)
        if isinstance(found, Lead):
            asked += 1
            await anyio.wait_all_tasks_blocked()
            assert found.keep(ANSWER)
            answers.append(ANSWER)
        else:
            answers.append(found.deltas)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(request)
    assert (asked, len(answers), set(answers)) == (1, 200, {ANSWER})


@pytest.mark.anyio
async def test_when_a_leader_gives_up_the_next_one_leads() -> None:
    """One at a time, however many fail; giving up twice, or after the end, does nothing."""
    here, key = cache(), key_of(asking())
    lead, found = await led(here, key), list[Hit | Lead]()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(_look, here, key, found)
        for waiting in (3, 2):
            await anyio.wait_all_tasks_blocked()
            assert len(found) == 3 - waiting
            lead.give_up()
            lead.give_up()
            await anyio.wait_all_tasks_blocked()
            assert isinstance(found[-1], Lead)
            lead = found[-1]
        assert lead.keep(ANSWER)
        lead.give_up()
    assert [type(each) for each in found] == [Lead, Lead, Hit]
    assert not here._flights


@pytest.mark.anyio
async def test_when_an_answer_may_not_be_kept_all_who_wait_ask_for_themselves() -> None:
    """One after the other they would wait for ever longer, and each in vain."""
    here, key = cache(), key_of(asking())
    lead, found = await led(here, key), list[Hit | Lead]()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(_look, here, key, found)
        await anyio.wait_all_tasks_blocked()
        assert not lead.keep([d.Text("a"), d.Finish("max_output_tokens")])
    assert [type(each) for each in found] == [Lead, Lead, Lead]
    assert not await has(here, key)
    for each in found:
        assert isinstance(each, Lead)
        assert each.keep(ANSWER)
    assert await has(here, key)


@pytest.mark.anyio
async def test_when_a_leader_fails_all_who_wait_ask_for_themselves() -> None:
    """At the same time: one after the other each would wait for the time limits of all before it."""
    here, key = cache(), key_of(asking())
    lead, found = await led(here, key), list[Hit | Lead]()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(_look, here, key, found)
        await anyio.wait_all_tasks_blocked()
        lead.fail()
    assert [type(each) for each in found] == [Lead, Lead, Lead]
    assert not here._flights


@pytest.mark.anyio
async def test_a_look_gives_no_duty() -> None:
    """Who only wants to know whether there is an answer keeps nobody waiting for it."""
    here, key = cache(), key_of(asking())
    assert here.known(key) is None
    assert not here._flights
    await put(here, key)
    assert here.known(key) == Hit(ANSWER)


@pytest.mark.anyio
async def test_one_who_waits_may_leave() -> None:
    """Whether before the leader ends or at the same moment, the others go on as if it had never been there."""
    here, key = cache(), key_of(asking())
    lead, found = await led(here, key), list[Hit | Lead]()
    async with anyio.create_task_group() as tasks:
        leaving = [anyio.CancelScope() for _ in range(2)]

        async def leaves(scope: anyio.CancelScope) -> None:
            with scope:
                await here.lookup(key)

        for scope in leaving:
            tasks.start_soon(leaves, scope)
        tasks.start_soon(_look, here, key, found)
        await anyio.wait_all_tasks_blocked()
        leaving[0].cancel()
        await anyio.wait_all_tasks_blocked()
        leaving[1].cancel()
        lead.give_up()
        await anyio.wait_all_tasks_blocked()
    assert [type(each) for each in found] == [Lead]
    assert here._flights
    for each in found:
        assert isinstance(each, Lead)
        each.give_up()
    assert not here._flights
