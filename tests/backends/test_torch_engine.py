"""The PyTorch engine in its process, with tiny models of random weights: what it says, holds to, and survives."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from backends.torch_tiny import model, save, tokenizer
from ore.backends.base import ModelRequest, Sampling
from ore.backends.local.engine import Generation, Piece
from ore.backends.local.local_model import LocalModel
from ore.backends.local.options import TorchOptions
from ore.backends.local.torch.engine import torch_engine
from ore.core.deltas import Finish, Text, ToolArguments, ToolCall
from ore.errors import InvalidRequest, ModelFailed, StartupError

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

HOT = Sampling(temperature=1.5, top_p=1.0)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), model())


@asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[LocalModel]:
    chosen = TorchOptions(path=path, **{"threads": 1, "dtype": "float32", "kv_cache_mib": 64, **options})
    served = LocalModel("tiny", chosen, torch_engine("tiny", chosen))
    served.engine.process._backoff = (0.01,)  # type: ignore[attr-defined]
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


@pytest.fixture(scope="module")
async def served(folder: Path) -> AsyncIterator[LocalModel]:
    async with running(folder) as model:
        yield model


def ask(text: str = "hello", **fields: Any) -> ModelRequest:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    return ModelRequest(
        model="tiny", **({"items": (item,), "max_output_tokens": 400, "sampling": HOT, "owner": "o"} | fields)
    )


async def run(model: LocalModel, request: ModelRequest) -> list[Any]:
    async with model.stream(request) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Any]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


async def generated(model: LocalModel, prompt: str, tokens: int = 12, **fields: Any) -> list[Piece]:
    asked = Generation(prompt=prompt, max_tokens=tokens, **{"temperature": 0, "top_p": 1, **fields})
    sampled = await model.engine.generate(asked)
    pieces: list[Piece] = []
    while not (pieces and pieces[-1].end):
        pieces += await sampled.read()
    return pieces


def own_words(made: Any, prompt: str, tokens: int) -> str:
    """What transformers' own greedy loop says."""
    words = tokenizer()
    ids = words.encode(prompt).ids
    said: list[int] = []
    with torch.inference_mode():
        for _ in range(tokens):
            row = made(input_ids=torch.tensor([ids + said]), use_cache=False).logits[0, -1]
            said.append(int(row[: words.get_vocab_size()].argmax()))
            if said[-1] == 0:
                break
    return words.decode(said)


async def test_says_what_the_model_says(served: LocalModel) -> None:
    """Greedy text is transformers' own, and the second time its prompt is in memory."""
    prompt = "the quick brown fox says hello to the world, and the weather says hello too"
    expected = own_words(model(), prompt, 12)
    for cached in (0, 16):
        pieces = await generated(served, prompt)
        assert "".join(piece.text for piece in pieces).rstrip("�") == expected.rstrip("�")
        assert pieces[-1].end is not None
        assert pieces[-1].end.cached_tokens >= cached


async def test_many_at_once_say_what_each_says_alone(served: LocalModel) -> None:
    """Batches change nobody's words."""
    prompts = [f"hello number {n}: {'fox ' * n}" for n in range(12)]
    together = await asyncio.gather(*[generated(served, prompt) for prompt in prompts])
    for prompt, pieces in zip(prompts, together, strict=True):
        alone = await generated(served, prompt)
        assert "".join(piece.text for piece in pieces) == "".join(piece.text for piece in alone)


async def test_answers_in_text(served: LocalModel) -> None:
    """Usage counts the rendered prompt."""
    deltas = await run(served, ask(max_output_tokens=20))
    finish = deltas[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.input_tokens == await served.count_tokens(ask())
    assert 0 < finish.usage.output_tokens <= 20


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


async def test_a_strict_schema_holds(served: LocalModel) -> None:
    """Random weights answer as the schema says."""
    wanted = {"type": "json_schema", "name": "trip", "strict": True, "schema": SCHEMA}
    for _ in range(5):
        answer = json.loads(text_of(await run(served, ask(text_format=wanted))))
        assert answer["city"] in {"Rome", "Oslo"}
        assert 1 <= answer["days"] <= 9


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": SCHEMA, "strict": True}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "forecast"}])
async def test_a_call_that_must_be_made_is_made(served: LocalModel, choice: Any) -> None:
    """Required or named, with arguments that the schema allows."""
    tools = (tool("weather"), tool("forecast"))
    deltas = await run(served, ask(tools=tools, tool_choice=choice, parallel_tool_calls=False))
    names = [delta.name for delta in deltas if isinstance(delta, ToolCall)]
    assert names == ["forecast"] if isinstance(choice, dict) else set(names) <= {"weather", "forecast"}
    arguments = json.loads("".join(delta.text for delta in deltas if isinstance(delta, ToolArguments)))
    assert arguments["city"] in {"Rome", "Oslo"}


async def test_a_custom_tool_keeps_to_its_grammar(served: LocalModel) -> None:
    """Raw text by a grammar of the client's."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: ("go " | "stop ")~2 "now"'}
    custom = {"type": "custom", "name": "drive", "format": grammar}
    deltas = await run(served, ask(tools=(custom,), tool_choice="required", parallel_tool_calls=False))
    said = "".join(delta.text for delta in deltas if isinstance(delta, ToolArguments))
    assert said.endswith("now")
    assert set(said.split()) <= {"go", "stop", "now"}


async def test_what_is_closed_is_free(served: LocalModel) -> None:
    """After many cancellations at any point the engine still has all its blocks."""
    for n in range(20):
        sampled = await served.engine.generate(
            Generation(prompt="fox " * (20 + 9 * n), temperature=1, top_p=1, cache_key=str(n))
        )
        if n % 2:
            await sampled.read()
        sampled.close()
    pieces = await generated(served, "fox " * 300, 8)
    assert pieces[-1].end is not None


async def test_a_prompt_without_room_is_refused(served: LocalModel) -> None:
    """A 400 with the counts."""
    with pytest.raises(InvalidRequest, match="1024 tokens"):
        await run(served, ask("fox " * 4000))


async def test_a_killed_engine_comes_back(folder: Path) -> None:
    """What it sampled fails; the next request is answered."""
    async with running(folder) as served:
        sampled = await served.engine.generate(Generation(prompt="hello", temperature=1, top_p=1))
        await sampled.read()
        assert served.engine.pid is not None
        os.kill(served.engine.pid, signal.SIGKILL)
        with pytest.raises(ModelFailed):
            while True:
                await sampled.read()
        assert await served.engine.back(60)
        assert (await generated(served, "hello"))[-1].end is not None


async def test_loading_tells_how_far_it_is(folder: Path) -> None:
    """Up to the end, in any unit."""
    told: list[tuple[int, int]] = []
    engine = torch_engine("tiny", TorchOptions(path=folder, threads=1), lambda *at: told.append(at))
    await engine.start()
    await engine.stop()
    assert told[-1][0] == told[-1][1] > 1


async def test_8_bit_weights_say_nearly_the_same(folder: Path) -> None:
    """The likeliest token has nearly the same probability as in full precision."""
    exact = model()
    ids = torch.tensor([tokenizer().encode("the quick brown fox").ids])
    with torch.inference_mode():
        expected = exact(input_ids=ids).logits[0, -1, : tokenizer().get_vocab_size()].log_softmax(0)
    async with running(folder, quantize="int8", dtype="bfloat16") as served:
        pieces = await generated(served, "the quick brown fox", 1, alternatives=3)
    (entry,) = [entry for piece in pieces for entry in piece.logprobs]
    assert max(other["logprob"] for other in entry["top_logprobs"]) == pytest.approx(float(expected.max()), abs=0.5)


async def test_an_adapter_changes_the_words(folder: Path, tmp_path: Path) -> None:
    """Merged as peft would, in plain LoRA."""
    made = model()
    name = "model.layers.1.self_attn.q_proj"
    weight = made.get_parameter(f"{name}.weight")
    down, up = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
    with torch.no_grad():
        weight += up @ down * 2
    keys = {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    save_file(keys, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    async with running(folder, adapter=str(tmp_path)) as served:
        said = "".join(piece.text for piece in await generated(served, "hello to the fox"))
    assert said.rstrip("�") == own_words(made, "hello to the fox", 12).rstrip("�")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled weights"),
        (lambda folder: _config(folder, model_type="unheard_of"), "cannot load"),
        (lambda folder: _config(folder, auto_map={"AutoConfig": "evil.Config"}, model_type="evil"), "cannot load"),
        (lambda folder: _config(folder, eos_token_id=None), "which token ends"),
    ],
)
async def test_what_cannot_be_loaded_says_why(tmp_path: Path, change: Any, sentence: str) -> None:
    """In one sentence, and no code of the folder ever runs."""
    path = save(tmp_path, model())
    change(path)
    with pytest.raises(StartupError, match=sentence):
        async with running(path):
            pass


def _config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if "eos_token_id" in fields:
        (folder / "tokenizer_config.json").write_text("{}")


OWN = '''
from pathlib import Path
import torch
from ore.backends.local.torch import OwnModel


class Letters:
    """A tokenizer of one's own: 27 letters and an end."""

    pieces = [bytes([97 + i]) for i in range(26)] + [b" ", b"<end>"]

    def encode(self, text):
        return [26 if letter == " " else (ord(letter) - 97) % 26 for letter in text.lower()]


class NextLetter(torch.nn.Module):
    """After each letter the next one of the alphabet; after z the end."""

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, 28)
        following = torch.where(input_ids == 25, 27, (input_ids + 1) % 26)
        return logits.scatter(2, following[..., None], 20.0)


def make():
    return OwnModel(NextLetter(), Letters(), context=64, end_tokens=[27])


def nonsense():
    return 3
'''


async def test_a_module_of_ones_own_is_served(tmp_path: Path) -> None:
    """Any module with logits, beside a tokenizer of its own; grammars hold it too."""
    file = tmp_path / "own.py"
    file.write_text(OWN)
    async with running(file, function="make") as served:
        pieces = await generated(served, "mno", 30)
        assert "".join(piece.text for piece in pieces) == "pqrstuvwxyz"
        assert pieces[-1].end is not None
        assert (pieces[-1].end.reason, pieces[-1].end.cached_tokens) == ("stop", 0)
        held = await generated(served, "abc", 30, grammar="%llguidance {}\nstart: /[x-z]{3}/\n")
        assert len("".join(piece.text for piece in held)) == 3
        assert text_of(await run(served, ask(max_output_tokens=5, sampling=Sampling(temperature=0))))


async def test_a_function_that_makes_no_model_is_told(tmp_path: Path) -> None:
    """What it should have returned."""
    file = tmp_path / "own.py"
    file.write_text(OWN)
    for function in ("nonsense", "missing"):
        with pytest.raises(StartupError, match="OwnModel"):
            async with running(file, function=function):
                pass


def test_weights_are_saved_as_safetensors(folder: Path) -> None:
    """What the tests load is what hubs have."""
    assert load_file(folder / "model.safetensors")
