"""What every engine of language models keeps, whatever it is made of: one suite, on a model with random weights.

Here is what a client, an operator or the router relies on. What a model says is nobody's concern; what an engine says
that it lacks (`EngineRow.lacks`, `Capabilities.logprobs`) is left out, visibly.
"""

# ruff: noqa: ASYNC110, ASYNC240 -- what is waited for has no event, and these tests have the event loop to themselves

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from engines.asking import ENDLESS, HOT, ask, calls_of, finish_of, obj, run, said, text_of, thought_of
from engines.engine_rows import CONTEXT, ROWS, Wanted, row, running
from ore.backends.base import ModelRequest, Sampling
from ore.backends.local.local_model import LocalModel
from ore.core.deltas import Delta, Text
from ore.errors import InvalidRequest, ModelFailed, StartupError, TooManyRequests, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

COLD = Sampling(temperature=0.0)
LONG = "a b c d e " * 300
"""A prompt that takes a while to read."""

WORD = {"type": "string", "maxLength": 6}
BIT = {"enum": [0, 1]}
TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "name": "get_weather", "strict": True, "parameters": obj(city=WORD, days=BIT)},
    {"type": "custom", "name": "shout", "format": {"type": "grammar", "syntax": "regex", "definition": "[A-Z]{1,5}!"}},
)


@pytest.fixture(scope="module", params=ROWS)
def engine(request: pytest.FixtureRequest) -> str:
    row(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
async def model(engine: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalModel]:
    """One that the tests share."""
    async with running(engine, tmp_path_factory.mktemp(engine), Wanted(slots=4, queue=8)) as made:
        yield made


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def constant(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "name": "n", "schema": {"const": value}, "strict": True}


def endless(**fields: Any) -> ModelRequest:
    return ask(text_format=ENDLESS, max_output_tokens=None, **fields)


def lacks(engine: str, what: str) -> None:
    if what in ROWS[engine].lacks:
        pytest.skip(f"{engine} has no {what}, and says so")


async def first_text(deltas: AsyncIterator[Delta]) -> None:
    """Until something of the answer has come."""
    async for delta in deltas:
        if isinstance(delta, Text):
            return


async def test_tells_what_it_is(model: LocalModel) -> None:
    """Its context, its defaults, and that it is well."""
    (told,) = await model.models()
    assert (told.id, told.capabilities.context_window) == ("random", CONTEXT)
    assert told.defaults.temperature == 0.7
    assert (await model.health()).ok
    assert model.engine.pid is not None


async def test_starts_and_stops_as_often_as_one_likes(engine: str, tmp_path: Path) -> None:
    """Twice is once; one that is stopped answers nobody, leaves no process, and can be started again."""
    made = row(engine).make(tmp_path, Wanted(slots=1))
    try:
        for _ in range(2):
            await made.start()
            await made.start()
            pid = made.engine.pid
            assert pid is not None
            assert finish_of(await run(made, ask(max_output_tokens=2))).usage.output_tokens
            await made.stop()
            await made.stop()
            assert not Path(f"/proc/{pid}").exists()
            with pytest.raises(Unavailable):
                await run(made, ask())
    finally:
        await made.stop()


async def test_a_file_that_is_no_model_is_a_startup_error(engine: str, tmp_path: Path) -> None:
    """With the reason, and without a process left."""
    made = row(engine).make(tmp_path, Wanted())
    if made.options.path.is_dir():
        for file in made.options.path.iterdir():
            file.write_bytes(b"not a model")
    else:
        made.options.path.write_bytes(b"not a model")
    with pytest.raises(StartupError, match="could not be loaded"):
        await made.start()
    assert made.engine.pid is None


@pytest.mark.parametrize(
    "text", ["how many tokens?", "\u4f60\u597d \u00e9t\u00e9 \U0001f600", "<tool_call> <|im_end|>"]
)
async def test_counts_tokens_truly(model: LocalModel, text: str) -> None:
    """What is counted beforehand is what usage says, and a limit is kept to the token."""
    request = ask(text, instructions="Count.", max_output_tokens=5, text_format=ENDLESS)
    finish = finish_of(await run(model, request))
    assert finish.reason == "max_output_tokens"
    assert finish.usage.input_tokens == await model.count_tokens(request)
    assert finish.usage.output_tokens == 5


async def test_a_repeated_prefix_is_cached(engine: str, model: LocalModel) -> None:
    """The second time, usage tells of tokens that need not be read again."""
    lacks(engine, "cached tokens")
    same = "the same beginning " * 20
    await run(model, ask(f"{same} one", max_output_tokens=3))
    usage = finish_of(await run(model, ask(f"{same} two", max_output_tokens=3))).usage
    assert usage.input_tokens // 2 < usage.cached_tokens < usage.input_tokens


async def test_at_no_temperature_it_says_the_same(model: LocalModel) -> None:
    """Twice, alone."""
    texts = {text_of(await run(model, ask(sampling=COLD, max_output_tokens=40))) for _ in range(2)}
    assert len(texts) == 1


async def test_a_seed_repeats_an_answer(engine: str, model: LocalModel) -> None:
    """The same seed, the same text; another one, another text."""
    lacks(engine, "seeds")

    async def with_seed(seed: int) -> str:
        return text_of(await run(model, ask(sampling=Sampling(temperature=1.0, seed=seed), max_output_tokens=40)))

    assert await with_seed(7) == await with_seed(7) != await with_seed(8)


async def test_without_a_seed_it_says_something_else(model: LocalModel) -> None:
    """A temperature is a temperature."""
    assert len({text_of(await run(model, ask(max_output_tokens=40))) for _ in range(4)}) > 1


async def test_the_context_is_the_limit_when_nobody_sets_one(model: LocalModel) -> None:
    """Then the answer is incomplete."""
    finish = finish_of(await run(model, ask(LONG, max_output_tokens=None, text_format=ENDLESS)))
    assert finish.reason == "max_output_tokens"
    assert CONTEXT - 16 <= finish.usage.input_tokens + finish.usage.output_tokens <= CONTEXT


async def test_too_long_a_prompt_is_a_400_before_anything_runs(model: LocalModel) -> None:
    """With the counts, on entering."""
    request = ask("\u2603" * 5000)
    with pytest.raises(InvalidRequest) as caught:
        async with model.stream(request):
            pass
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    assert str(await model.count_tokens(request)) in caught.value.message
    assert str(CONTEXT) in caught.value.message


async def test_stop_texts_end_the_answer_and_do_not_show(model: LocalModel) -> None:
    """Also where one begins in one token and ends in the next."""
    vowels = ("a", "e", "i", "o", "u", "qx")
    for _ in range(4):
        deltas = await run(model, ask(sampling=structs.replace(HOT, stop=vowels), max_output_tokens=300))
        assert not set(vowels) & set(text_of(deltas))
        assert finish_of(deltas).reason == "stop"
    sampling = structs.replace(HOT, stop=("two",))
    deltas = await run(model, ask(sampling=sampling, text_format=constant("one two"), max_output_tokens=60))
    assert json.loads(text_of(deltas)) == "one two"


@pytest.mark.parametrize("alternatives", [0, 3])
async def test_logprobs_have_the_wires_shape(model: LocalModel, alternatives: int) -> None:
    """Section 6 of the wire contract; the bytes of all entries are the text."""
    if not (await model.models())[0].capabilities.logprobs:
        pytest.skip("this engine tells no logprobs, and says so")
    form = {"type": "json_schema", "name": "n", "schema": {"enum": ["red", "blue", "\u00e9t\u00e9"]}}
    deltas = await run(model, ask(top_logprobs=alternatives, text_format=form, max_output_tokens=40))
    entries = [entry for delta in deltas if isinstance(delta, Text) for entry in delta.logprobs]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text_of(deltas)
    for entry in entries:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) <= alternatives
        assert all(set(other) == {"token", "logprob", "bytes"} for other in entry["top_logprobs"])


@pytest.mark.parametrize("penalty", [{"presence_penalty": 1.5}, {"frequency_penalty": 2.0}, {"presence_penalty": -2.0}])
async def test_penalties_are_taken(model: LocalModel, penalty: dict[str, float]) -> None:
    """All that a request may ask for."""
    assert finish_of(await run(model, ask(sampling=Sampling(temperature=1.0, **penalty)))).usage.output_tokens > 0


async def test_many_at_once_all_get_theirs(model: LocalModel) -> None:
    """As many as slots and queue take, each its own answer."""
    answers = [f"answer {number}" for number in range(model.options.slots + model.options.queue)]
    asked = (run(model, ask(text_format=constant(answer), max_output_tokens=40)) for answer in answers)
    assert [json.loads(text_of(deltas)) for deltas in await asyncio.gather(*asked)] == answers


async def test_a_full_queue_is_a_429_on_entering(model: LocalModel) -> None:
    """Slots and queue together, and no more."""
    async with contextlib.AsyncExitStack() as held:
        for _ in range(model.options.slots + model.options.queue):
            await held.enter_async_context(model.stream(ask()))
        with pytest.raises(TooManyRequests):
            await held.enter_async_context(model.stream(ask()))
    assert (await model.health()).detail["waiting"] == 0


async def test_owners_take_turns(model: LocalModel) -> None:
    """An owner with one request does not wait for all of one with many, who came first."""
    ended: list[str] = []

    async def one(owner: str) -> None:
        await run(model, ask(owner=owner, max_output_tokens=2))
        ended.append(owner)

    async with contextlib.AsyncExitStack() as held:
        for _ in range(model.options.slots):
            await first_text(aiter(await held.enter_async_context(model.stream(endless(owner="greedy")))))
        owners = [*["greedy"] * 6, "modest"]
        waiting = [asyncio.create_task(one(owner)) for owner in owners]
        while (await model.health()).detail["waiting"] < len(owners):
            await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert ended.index("modest") < len(owners) - 1


@pytest.mark.parametrize("text", ["hello", LONG], ids=["decode", "prefill"])
async def test_leaving_frees_the_slot(model: LocalModel, text: str) -> None:
    """Whoever leaves, in whichever state, takes no slot along: all slots answer soon afterwards."""
    for _ in range(8):
        async with model.stream(endless() if text == "hello" else ask(text)) as deltas:
            step = asyncio.ensure_future(anext(aiter(deltas)))
            if text == "hello":
                await step
            else:
                while not (await model.health()).detail["running"]:
                    await asyncio.sleep(0)
                step.cancel()
                await asyncio.wait([step])
        assert (await model.health()).detail["running"] == 0
    async with asyncio.timeout(5):
        await asyncio.gather(*(run(model, ask(max_output_tokens=2)) for _ in range(4)))


async def test_a_killed_engine_fails_its_streams_and_comes_back(engine: str, model: LocalModel, tmp_path: Path) -> None:
    """Within a second the streams end as failed; the next request works; another model is not touched."""
    async with running(engine, tmp_path, Wanted(slots=1)) as doomed, model.stream(endless()) as bystander:
        await first_text(aiter(bystander))
        async with doomed.stream(endless()) as deltas:
            await first_text(aiter(deltas))
            assert doomed.engine.pid is not None
            os.kill(doomed.engine.pid, signal.SIGKILL)
            with pytest.raises(ModelFailed):
                async with asyncio.timeout(1):
                    async for _ in deltas:
                        pass
        await first_text(aiter(bystander))
        assert await doomed.engine.back(30)
        assert finish_of(await run(doomed, ask(max_output_tokens=2))).usage.output_tokens
        assert doomed.engine.restarts == 1


async def test_a_thought_is_reasoning_and_is_counted(engine: str, tmp_path: Path) -> None:
    """What stands in the think block is no text."""
    async with running(engine, tmp_path, Wanted(slots=1, thinks=True)) as thinking:
        assert (await thinking.models())[0].capabilities.reasoning
        deltas = await run(thinking, ask(text_format=constant(1), max_output_tokens=1500))
        assert "</think>" not in thought_of(deltas) + text_of(deltas)
        usage = finish_of(deltas).usage
        assert text_of(deltas) == "1" or finish_of(deltas).reason == "max_output_tokens"
        assert 0 < usage.reasoning_tokens <= usage.output_tokens


@pytest.mark.parametrize("choice", ["required", {"type": "custom", "name": "shout"}], ids=["required", "custom"])
async def test_a_call_and_its_output_go_round(model: LocalModel, choice: Any) -> None:
    """A conversation with a tool: the call comes out as it must, and its output can be sent back."""
    fields: Any = {"tools": TOOLS, "parallel_tool_calls": False, "max_output_tokens": 100}
    ((name, given),) = calls_of(await run(model, ask(tool_choice=choice, **fields)))
    kind = "custom_tool_call" if name == "shout" else "function_call"
    call = {"type": kind, "call_id": "c1", "name": name, "input" if name == "shout" else "arguments": given}
    output = {"type": f"{kind}_output", "call_id": "c1", "output": "It is done."}
    items = (said("Do it."), call, output, said("And now?"))
    again = ask(items=items, **{**fields, "text_format": constant("well"), "tools": (), "tool_choice": "auto"})
    deltas = await run(model, again)
    assert json.loads(text_of(deltas)) == "well"
    assert finish_of(deltas).usage.input_tokens == await model.count_tokens(again)


async def test_none_never_calls(model: LocalModel) -> None:
    """With `tool_choice` none, the markers of a call cannot be completed."""
    deltas = await run(model, ask(tools=TOOLS, tool_choice="none", max_output_tokens=200))
    assert calls_of(deltas) == []
    assert "<tool_call>" not in text_of(deltas)


async def test_calls_in_parallel_are_several(model: LocalModel) -> None:
    """Where they are allowed, each is whole."""
    deltas = await run(model, ask(tools=TOOLS[:1], tool_choice="required", max_output_tokens=2000))
    for name, arguments in calls_of(deltas)[: None if finish_of(deltas).reason == "tool_calls" else -1]:
        assert name == "get_weather"
        assert set(json.loads(arguments)) == {"city", "days"}


async def test_says_whether_it_sees(model: LocalModel) -> None:
    """A request with an image is refused, or routed elsewhere, by what the model says of itself."""
    (told,) = await model.models()
    assert told.capabilities.images == (await model.engine.facts()).images


@pytest.mark.parametrize(
    ("schema", "word"),
    [({"type": "object", "not": {}}, "not"), ({"type": "array", "uniqueItems": True}, "uniqueItems")],
)
async def test_what_cannot_be_enforced_is_a_400_that_names_it(
    model: LocalModel, schema: dict[str, Any], word: str
) -> None:
    """Before the first token."""
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    with pytest.raises(InvalidRequest, match=word) as caught:
        await run(model, ask(text_format=form))
    assert caught.value.param == "text.format.schema"


async def test_a_conversation_of_every_role(model: LocalModel) -> None:
    """Instructions, system, developer, user and assistant; the answer follows all of them."""
    roles = ("system", "user", "assistant", "developer", "user")
    request = ask(items=tuple(said(f"I am {role}.", role) for role in roles), instructions="Be short.")
    finish = finish_of(await run(model, request))
    assert finish.usage.input_tokens == await model.count_tokens(request)
