"""The llama.cpp engine, driven for real: what it enforces, how it cancels, how it dies and comes back.

A model with random weights knows nothing, so whatever comes out right was enforced; no test here is about quality.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs
import pytest
from local_random_gguf import CONTROL, TEMPLATE, write_random_gguf
from msgspec import structs

import ore
from engines.asking import calls_of, finish_of, run, text_of
from ore.backends.base import ModelRequest, Sampling
from ore.backends.local.engine import Generation
from ore.backends.local.llama_cpp import LlamaCpp, _fields
from ore.backends.local.local_model import LocalModel, _sampling_fields
from ore.backends.local.options import LlamaCppOptions
from ore.core.deltas import Reasoning, Text
from ore.errors import InvalidRequest, ModelFailed, StartupError, TooManyRequests, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

HOT = Sampling(temperature=1.5, top_p=1.0)

# A prompt of many batches, and an answer that does not end by itself: time to be interrupted.
LONG = "a b c d e " * 380
ENDLESS = {"type": "json_schema", "name": "n", "schema": {"type": "string", "minLength": 3000}}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def random_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_gguf(tmp_path_factory.mktemp("models") / "random.gguf", context=4096)


@pytest.fixture(scope="module")
async def engine(random_gguf: Path) -> AsyncIterator[LocalModel]:
    async with running(LlamaCppOptions(path=random_gguf, slots=4, queue=8, batch=64)) as made:
        yield made


@contextlib.asynccontextmanager
async def running(options: LlamaCppOptions, **kwargs: Any) -> AsyncIterator[LocalModel]:
    made = LocalModel("random", options, LlamaCpp("random", options), **kwargs)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def ask(text: str = "hello", **fields: Any) -> ModelRequest:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return ModelRequest(model="random", items=(item,), **({"max_output_tokens": 16, "sampling": HOT} | fields))


async def idle(engine: LocalModel) -> None:
    """Return when no slot of the engine is busy."""
    while any(slot["is_processing"] for slot in await engine.engine.client.slots()):
        pass


async def test_tells_what_it_is(engine: LocalModel) -> None:
    (model,) = await engine.models()
    assert (model.id, model.capabilities.context_window, model.capabilities.logprobs) == ("random", 4096, True)
    assert model.defaults.temperature == 0.7
    assert (await engine.health()).ok


async def test_counts_tokens_truly(engine: LocalModel) -> None:
    request = ask("how many tokens are in here?", instructions="Count.", max_output_tokens=5, text_format=ENDLESS)
    finish = finish_of(await run(engine, request))
    assert finish.reason == "max_output_tokens"
    assert finish.usage.input_tokens == await engine.count_tokens(request)
    assert finish.usage.output_tokens == 5
    again = finish_of(await run(engine, request))
    assert 0 < again.usage.cached_tokens < again.usage.input_tokens


async def test_without_a_limit_the_context_is_the_limit(engine: LocalModel) -> None:
    finish = finish_of(await run(engine, ask("go on " * 640, max_output_tokens=None, sampling=Sampling(seed=4))))
    assert finish.usage.input_tokens + finish.usage.output_tokens <= 4096


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=1.0, seed=7)])
async def test_the_same_seed_gives_the_same_text(engine: LocalModel, sampling: Sampling) -> None:
    texts = {text_of(await run(engine, ask(sampling=sampling, max_output_tokens=40))) for _ in range(3)}
    assert len(texts) == 1


async def test_too_long_a_prompt_is_a_400_before_anything_runs(engine: LocalModel) -> None:
    request = ask("\u2603" * 5000)
    with pytest.raises(InvalidRequest) as caught:
        async with engine.stream(request):
            pass
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    assert str(await engine.count_tokens(request)) in caught.value.message
    assert "4096" in caught.value.message


@pytest.mark.parametrize("alternatives", [0, 3])
async def test_logprobs_have_the_wires_shape(engine: LocalModel, alternatives: int) -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"enum": ["red", "blue"]}}
    deltas = await run(engine, ask(top_logprobs=alternatives, text_format=form))
    entries = [entry for delta in deltas if isinstance(delta, Text) for entry in delta.logprobs]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text_of(deltas)
    for entry in entries:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == alternatives
        assert all(set(other) == {"token", "logprob", "bytes"} for other in entry["top_logprobs"])


async def test_stop_sequences_end_the_text_and_do_not_show(engine: LocalModel) -> None:
    vowels = ("a", "e", "i", "o", "u")
    for seed in range(5):
        sampling = Sampling(stop=vowels, temperature=1.5, seed=seed)
        deltas = await run(engine, ask(sampling=sampling, max_output_tokens=300))
        assert not set(vowels) & set(text_of(deltas))
        assert finish_of(deltas).reason == "stop"


async def test_stop_sequences_leave_calls_and_json_alone(engine: LocalModel) -> None:
    sampling = Sampling(stop=("two", '"', "name"), temperature=1.5)
    form = {"type": "json_schema", "name": "n", "schema": {"const": "one two three"}}
    assert text_of(await run(engine, ask(sampling=sampling, text_format=form))) == '"one two three"'
    tool = {"type": "function", "name": "go", "parameters": obj(to={"const": "two"}), "strict": True}
    deltas = await run(engine, ask(sampling=sampling, tools=(tool,), tool_choice="required", max_output_tokens=90))
    assert calls_of(deltas)[0] == ("go", '{"to": "two"}')


@pytest.mark.parametrize("penalty", [{"presence_penalty": 1.5}, {"frequency_penalty": 2.0}, {"presence_penalty": -2.0}])
async def test_penalties_are_taken(engine: LocalModel, penalty: dict[str, float]) -> None:
    deltas = await run(engine, ask(sampling=Sampling(temperature=1.0, seed=1, **penalty)))
    assert finish_of(deltas).usage.output_tokens > 0


def obj(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


WORD = {"type": "string", "maxLength": 6}
BIT = {"enum": [0, 1]}
ENDLESS_CHAIN = obj(next={"anyOf": [{"type": "null"}, {"$ref": "#"}]})
SCHEMAS: list[dict[str, Any]] = [
    obj(a=BIT),
    obj(a=BIT, b=WORD),
    obj(a={"type": "integer", "minimum": -5, "maximum": 5}),
    obj(a={"type": "number", "exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.25}),
    obj(a={"type": "integer", "minimum": 0, "maximum": 99, "multipleOf": 7}),
    obj(a={"type": "boolean"}, b={"type": "null"}),
    obj(a={"type": ["string", "null"], "maxLength": 3}),
    obj(a={"const": {"deep": [1, None, "\u00e9"]}}),
    obj(a={"enum": ["\u4f60\u597d", 'quo"te', "back\\slash", ""]}),
    obj(a={"type": "array", "items": BIT, "minItems": 2, "maxItems": 4}),
    obj(a={"type": "array", "prefixItems": [BIT, {"const": "x"}], "items": False, "minItems": 2}),
    obj(a={"type": "array", "items": {"type": "array", "items": BIT, "maxItems": 2}, "maxItems": 2}),
    obj(a={"type": "string", "pattern": "^[a-c]{2,4}$"}),
    obj(a={"type": "string", "pattern": "^\\d{3}-\\d{4}$"}),
    obj(a={"type": "string", "minLength": 3, "maxLength": 5}),
    obj(a={"type": "string", "format": "date"}),
    obj(a={"type": "string", "format": "duration"}),
    obj(a={"type": "string", "format": "hostname", "maxLength": 20}),
    obj(a={"type": "string", "format": "uuid"}),
    obj(a={"type": "string", "format": "ipv4"}),
    obj(a={"type": "string", "format": "ipv6"}),
    obj(a={"anyOf": [BIT, {"const": "x"}, obj(b=BIT)]}),
    obj(a={"oneOf": [{"const": 1}, {"const": "two"}]}),
    {"anyOf": [obj(kind={"const": "a"}, x=BIT), obj(kind={"const": "b"}, y=WORD)]},
    {"allOf": [obj(a=BIT), {"properties": {"a": {"enum": [1, 2]}}}]},
    {"$ref": "#/$defs/leaf", "$defs": {"leaf": obj(a=BIT)}},
    {"$ref": "#/definitions/leaf", "definitions": {"leaf": obj(a={"const": 2})}},
    obj(a={"$ref": "#/$defs/b"}) | {"$defs": {"b": {"type": "array", "items": BIT, "maxItems": 1}}},
    ENDLESS_CHAIN,
    {"type": "object", "properties": {"a": BIT, "b": BIT}, "additionalProperties": False},
    {
        "type": "object",
        "properties": {"a": BIT},
        "required": ["a", "z"],
        "additionalProperties": BIT,
        "maxProperties": 3,
    },
    {"type": "object", "patternProperties": {"^k[0-9]$": BIT}, "additionalProperties": False, "maxProperties": 2},
    {"type": "object", "additionalProperties": BIT, "minProperties": 1, "maxProperties": 1},
    obj(**{f"p{i}": BIT for i in range(12)}),
    obj(a=obj(b=obj(c=obj(d=obj(e=BIT))))),
    obj(a={"title": "t", "description": "d", "default": 3, "examples": [9], "type": "integer", "enum": [3, 4]}),
    {"type": "array", "items": BIT, "minItems": 1, "maxItems": 3},
    {"type": "integer", "minimum": 10, "maximum": 12},
    {"type": "string", "maxLength": 2},
    {"enum": [None, True, 2.5]},
]


async def test_forty_strict_schemas_hold(engine: LocalModel) -> None:
    """The engine drops a grammar that it cannot compile, without a word: here is where that would show."""

    async def check(schema: dict[str, Any]) -> str:
        form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
        deltas = await run(engine, ask(text_format=form, max_output_tokens=400))
        if finish_of(deltas).reason == "max_output_tokens" and schema is ENDLESS_CHAIN:
            return ""
        validator = jsonschema_rs.validator_for(schema, offline=True, validate_formats=True)
        return "" if validator.is_valid(json.loads(text_of(deltas))) else text_of(deltas)

    problems = [(schema, problem) for schema in SCHEMAS if (problem := await check(schema))]
    assert problems == []


TOOLS: tuple[dict[str, Any], ...] = (
    {"type": "function", "name": "get_weather", "strict": True, "parameters": obj(city=WORD, days=BIT)},
    {"type": "function", "name": "get_time", "strict": True, "parameters": obj(zone={"enum": ["UTC", "CET"]})},
    {"type": "function", "name": "get", "description": "no arguments"},
    {"type": "custom", "name": "shout", "format": {"type": "grammar", "syntax": "regex", "definition": "[A-Z]{1,5}!"}},
)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_time", "get", "shout"}),
        ({"type": "function", "name": "get_time"}, {"get_time"}),
        ({"type": "custom", "name": "shout"}, {"shout"}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get"}]},
            {"get"},
        ),
    ],
    ids=["required", "function", "custom", "allowed"],
)
async def test_forced_calls_hold_always(engine: LocalModel, choice: Any, names: set[str]) -> None:
    schemas = {tool["name"]: tool.get("parameters", obj()) for tool in TOOLS}
    for seed in range(8):
        request = ask(
            tools=TOOLS,
            tool_choice=choice,
            parallel_tool_calls=False,
            max_output_tokens=200,
            sampling=structs.replace(HOT, seed=seed),
        )
        deltas = await run(engine, request)
        ((name, arguments),) = calls_of(deltas)
        assert text_of(deltas) == ""
        assert name in names
        if name == "shout":
            assert arguments.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "!"
        else:
            assert jsonschema_rs.validator_for(schemas[name], offline=True).is_valid(json.loads(arguments))
        assert finish_of(deltas).reason == "tool_calls"


async def test_none_never_calls(engine: LocalModel) -> None:
    deltas = await run(engine, ask(tools=TOOLS, tool_choice="none", max_output_tokens=200))
    assert calls_of(deltas) == []
    assert "<tool_call>" not in text_of(deltas)


async def test_markers_that_are_control_tokens_work_too(tmp_path: Path) -> None:
    path = write_random_gguf(tmp_path / "control.gguf", marker_type=CONTROL)
    async with running(LlamaCppOptions(path=path, slots=1)) as made:
        deltas = await run(made, ask(tools=TOOLS[:2], tool_choice="required", max_output_tokens=500))
        assert {name for name, _ in calls_of(deltas)} <= {"get_weather", "get_time"}
        assert calls_of(deltas)
        assert text_of(deltas) == ""


async def test_a_think_block_is_reasoning_and_is_counted(tmp_path: Path) -> None:
    template = TEMPLATE.replace(
        "'<|im_start|>assistant\\n' }}{%- endif", "'<|im_start|>assistant\\n<think>\\n' }}{%- endif"
    )
    path = write_random_gguf(tmp_path / "thinks.gguf", template=template)
    async with running(LlamaCppOptions(path=path, slots=1)) as made:
        assert (await made.models())[0].capabilities.reasoning
        form = {"type": "json_schema", "name": "n", "schema": {"const": 1}}
        deltas = await run(made, ask(text_format=form, max_output_tokens=30))
        assert isinstance(deltas[0], Reasoning)
        assert "</think>" not in "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
        assert text_of(deltas) in {"", "1"}
        usage = finish_of(deltas).usage
        assert 0 < usage.reasoning_tokens <= usage.output_tokens == 30 or text_of(deltas) == "1"


@pytest.mark.parametrize("text", ["hello", LONG], ids=["decode", "prefill"])
async def test_leaving_frees_the_slot(engine: LocalModel, text: str) -> None:
    async with engine.stream(ask(text, text_format=ENDLESS, max_output_tokens=None)) as deltas:
        step = asyncio.ensure_future(anext(aiter(deltas)))
        if text is LONG:
            while not (await engine.health()).detail["running"] or not await busy(engine):
                pass
            step.cancel()
            await asyncio.wait([step])
        else:
            await step
    async with asyncio.timeout(2):
        await idle(engine)
    assert (await engine.health()).detail["running"] == 0


async def busy(engine: LocalModel) -> bool:
    return any(slot["is_processing"] for slot in await engine.engine.client.slots())


async def test_leaving_without_iterating_costs_nothing(engine: LocalModel) -> None:
    async with engine.stream(ask()):
        assert (await engine.health()).detail["running"] == 1
    assert (await engine.health()).detail["running"] == 0


async def test_a_full_queue_is_a_429_on_entering(engine: LocalModel) -> None:
    async with contextlib.AsyncExitStack() as held:
        for _ in range(12):
            await held.enter_async_context(engine.stream(ask()))
        with pytest.raises(TooManyRequests):
            await held.enter_async_context(engine.stream(ask()))
        detail = (await engine.health()).detail
        assert (detail["running"], detail["waiting"]) == (4, 8)
    assert (await engine.health()).detail["waiting"] == 0


async def test_many_at_once_all_get_theirs(engine: LocalModel) -> None:
    consts = [f"answer {i}" for i in range(12)]
    forms = [{"type": "json_schema", "name": "n", "schema": {"const": const}} for const in consts]
    got = await asyncio.gather(*(run(engine, ask(text_format=form, max_output_tokens=40)) for form in forms))
    assert [json.loads(text_of(deltas)) for deltas in got] == consts


async def test_a_killed_engine_fails_its_streams_and_comes_back(random_gguf: Path) -> None:
    async with running(LlamaCppOptions(path=random_gguf, slots=1)) as made:
        made.engine.process._backoff = (0.01,)
        request = ask(text_format=ENDLESS, max_output_tokens=None)
        with pytest.raises(ModelFailed):
            async with made.stream(request) as deltas:
                await anext(aiter(deltas))
                assert made.engine.process.pid is not None
                os.kill(made.engine.process.pid, signal.SIGKILL)
                async for _ in deltas:
                    pass
        down = 0
        async with asyncio.timeout(30):
            while not (await made.health()).ok or not down:
                try:
                    async with made.stream(ask()):
                        pass
                except Unavailable:
                    down += 1
                await asyncio.sleep(0)
        assert text_of(await run(made, ask()))
        assert (await made.health()).detail["restarts"] == 1


async def test_the_bundled_model_speaks_and_calls() -> None:
    async with running(LlamaCppOptions(path=Path(ore.__file__).parent / "models" / "ore-tiny.gguf", slots=2)) as made:
        deltas = await run(made, ask("Hello!", sampling=Sampling(temperature=0.0)))
        assert text_of(deltas).strip()
        assert "<|" not in text_of(deltas)
        forced = await run(made, ask("Hello!", tools=TOOLS[:1], tool_choice="required", max_output_tokens=200))
        assert [name for name, _ in calls_of(forced)][:1] == ["get_weather"]


async def test_a_file_that_is_no_model_is_a_startup_error(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text("not a model")
    (tmp_path / "half.gguf").write_bytes(write_random_gguf(tmp_path / "m.gguf").read_bytes()[:100_000])
    for name, words in (("no.gguf", "not a GGUF"), ("half.gguf", "failed to load"), ("none.gguf", "cannot be read")):
        options = LlamaCppOptions(path=tmp_path / name)
        made = LocalModel("x", options, LlamaCpp("x", options))
        with pytest.raises(StartupError, match=words):
            await made.start()
        await made.stop()


async def test_the_engine_dies_with_its_parent(random_gguf: Path) -> None:
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from ore.backends.local.llama_cpp import LlamaCpp\n"
        "from ore.backends.local.options import LlamaCppOptions\n"
        "async def main():\n"
        "    engine = LlamaCpp('m', LlamaCppOptions(path=Path(sys.argv[1])))\n"
        "    await engine.start()\n"
        "    print(engine.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(random_gguf), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await parent.communicate()
    with contextlib.suppress(ProcessLookupError):
        engine_end = os.pidfd_open(int(out))
        async with asyncio.timeout(10):
            await anyio.wait_readable(engine_end)
        os.close(engine_end)


def fields_of(sampling: Sampling, options: LlamaCppOptions) -> dict[str, Any]:
    return _fields(Generation(prompt="", **_sampling_fields(ask(sampling=sampling), options)))


def test_a_distribution_that_is_asked_for_is_not_cut() -> None:
    """llama.cpp keeps forty tokens by default; a request that names temperature or nucleus means all of them."""
    options = LlamaCppOptions(path=Path())
    plain = Sampling(temperature=options.temperature, top_p=options.top_p)
    assert "top_k" not in fields_of(plain, options)
    for asked in (Sampling(temperature=2.0), Sampling(top_p=1.0)):
        fields = fields_of(asked, options)
        assert (fields["top_k"], fields["min_p"]) == (0, 0.0)
