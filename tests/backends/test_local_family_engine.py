"""Families on the real engine: with random weights, only the grammar can make a call right, and it does."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from local_families import ADD, PATCH, PING, TEMPLATES, markup_of
from local_random_gguf import write_random_gguf

from ore.backends.base import ModelRequest, Sampling
from ore.backends.local.llama_cpp import LlamaCpp
from ore.backends.local.local_model import LocalModel
from ore.backends.local.options import LlamaCppOptions
from ore.core.deltas import Delta, Finish, Text, ToolArguments, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["llama", "mistral", "mistral-list", "deepseek", "glm", "harmony"])
async def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalModel]:
    """A model whose template shows the family's signs in a comment, and whose vocabulary has its markers."""
    template = CHATML + "{% if false %}" + json.dumps(TEMPLATES[request.param]) + "{% endif %}"
    path = tmp_path_factory.mktemp("models") / "random.gguf"
    known = ("<tool_call>", "</tool_call>", "<think>", "</think>")
    control = [marker for marker in markup_of(request.param).markers if marker not in known]
    write_random_gguf(path, context=4096, template=template, control=control)
    options = LlamaCppOptions(path=path, slots=4, queue=40, batch=64)
    made = LocalModel("random", options, LlamaCpp("random", options))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def ask(seed: int, **fields: Any) -> ModelRequest:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    sampling = Sampling(temperature=1.5, top_p=1.0, seed=seed)
    return ModelRequest(model="random", items=(item,), max_output_tokens=300, sampling=sampling, **fields)


async def run(engine: LocalModel, request: ModelRequest) -> list[Delta]:
    async with engine.stream(request) as deltas:
        return [delta async for delta in deltas]


def finish_of(deltas: list[Delta]) -> Finish:
    assert isinstance(deltas[-1], Finish)
    return deltas[-1]


@pytest.mark.parametrize("tool", [ADD, PING, PATCH], ids=lambda tool: tool["name"])
async def test_a_named_tool_is_called(engine: LocalModel, tool: dict[str, Any]) -> None:
    choice = {"type": tool["type"], "name": tool["name"]}
    ended = 0
    for seed in range(8):
        deltas = await run(engine, ask(seed, tools=(ADD, PING, PATCH), tool_choice=choice, parallel_tool_calls=False))
        assert not [delta for delta in deltas if isinstance(delta, Text)]
        if finish_of(deltas).reason == "tool_calls":
            ended += 1
            names = [delta.name for delta in deltas if isinstance(delta, ToolCall)]
            arguments = "".join(delta.text for delta in deltas if isinstance(delta, ToolArguments))
            assert names == [tool["name"]]
            assert arguments.strip("abc\n") == "" if tool is PATCH else isinstance(json.loads(arguments), dict)
    assert ended


async def test_an_answer_is_held_to_its_schema(engine: LocalModel) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_schema", "name": "n", "strict": True, "schema": {**schema, "additionalProperties": False}}
    ended = 0
    for seed in range(8):
        deltas = await run(engine, ask(seed, text_format=form))
        if finish_of(deltas).reason == "stop":
            ended += 1
            text = "".join(delta.text for delta in deltas if isinstance(delta, Text))
            assert type(json.loads(text)["yes"]) is bool
    assert ended
