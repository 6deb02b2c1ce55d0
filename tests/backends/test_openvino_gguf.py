"""GGUF files as OpenVINO's graphs: the same tokens and the same probabilities as llama.cpp has for the same file."""

import asyncio
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("openvino")
pytest.importorskip("tokenizers")

import local_random_gguf as writer
import numpy as np

from ore.backends.local.engine import Generation
from ore.backends.local.llama_cpp import LlamaCpp
from ore.backends.local.openvino.gguf_file import read_gguf
from ore.backends.local.openvino.gguf_model import model_of
from ore.backends.local.openvino.gguf_tokenizer import tokenizer_of
from ore.backends.local.openvino.paged import PagedModel, Part
from ore.backends.local.options import LlamaCppOptions
from ore.errors import StartupError
from ore.settings import BUNDLED_MODELS

pytestmark = pytest.mark.engine

TINY = BUNDLED_MODELS["ore-tiny"]
TEXTS = (
    "Hello, world!",
    "  two  spaces\n\n\nand lines\t \r\n end ",
    "I'll say: they'RE 1234567 of 89.",
    'café naïve 東京 🙂 \u0301 "quoted" {"a": [1, 2.5]}',
    "<|im_start|>user\nhi<|im_end|>\n<tool_call>{}</tool_call>",
)
PROMPT = "<|im_start|>user\nWhat is the name of the city? It's 12.<|im_end|>\n<|im_start|>assistant\n"


def asked(path: Path, *texts: str) -> tuple[list[list[int]], list[float]]:
    """What llama.cpp says: the tokens of the texts, and the logprobs of the ten likeliest first tokens after PROMPT."""

    async def ask() -> tuple[list[list[int]], list[float]]:
        engine = LlamaCpp("reference", LlamaCppOptions(path=path, slots=1, threads=1))
        await engine.start()
        try:
            tokens = [await engine.tokenize(text) for text in texts]
            # the grammar changes what is said, but no probability: half a character would not be told of
            grammar = '%llguidance {}\nstart: "a"'
            wish = Generation(prompt=PROMPT, temperature=0, top_p=1, max_tokens=2, alternatives=10, grammar=grammar)
            sampled = await engine.generate(wish)
            pieces = await sampled.read()
            while pieces[-1].end is None:
                pieces += await sampled.read()
            sampled.close()
            first = next(piece.logprobs[0] for piece in pieces if piece.logprobs)
            return tokens, [entry["logprob"] for entry in first["top_logprobs"]]
        finally:
            await engine.stop()

    return asyncio.run(ask())


def likeliest(path: Path, **options: str) -> list[float]:
    """The same of OpenVINO."""
    file = read_gguf(path)
    model = PagedModel(
        model_of(file), device="CPU", threads=1, **({"kv_precision": "f32", "precision": "f32"} | options)
    )
    model.reserve(8)
    tokens = tokenizer_of(file).encode(PROMPT, add_special_tokens=False).ids
    logits = model.logits([Part(tokens, 0, range(-(-len(tokens) // model.block)))], [len(tokens) - 1])[0]
    shifted = logits.astype(np.float64) - logits.max()
    return sorted((shifted - np.log(np.exp(shifted).sum())).tolist(), reverse=True)[:10]


def test_the_bundled_model_says_the_same_as_with_llama_cpp() -> None:
    """Tokens are equal, and probabilities differ by what 8-bit arithmetic rounds."""
    tokens, logprobs = asked(TINY, *TEXTS)
    tokenizer = tokenizer_of(read_gguf(TINY))
    assert [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS] == tokens
    assert np.allclose(np.exp(likeliest(TINY)), np.exp(logprobs), atol=0.02)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_text_is_cut_as_llama_cpp_cuts_it(tmp_path: Path, pre: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pattern that files name gives llama.cpp's tokens."""
    merges = ("Ġ t", "h e", "i n", "Ġt he", "1 2", "12 3", "' l", "'l l", "Ġ Ġ", "Ċ Ċ", "r e", "Ġ 1", "Ã ©", 'Ġ "')
    path = tmp_path / "model.gguf"
    value = writer._value
    monkeypatch.setattr(writer, "_value", lambda given: value(pre if given == "gpt-2" else given))
    writer.write_random_gguf(path, merges=merges)
    tokenizer = tokenizer_of(read_gguf(path))
    tokens, _ = asked(path, *TEXTS)
    assert [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS] == tokens
    assert tokenizer.decode(tokens[3], skip_special_tokens=False) == TEXTS[3]


def blocks(layout: str, fields: dict[int, float]) -> Callable[[random.Random], writer.Weights]:
    """Random blocks of a quantised type `number:values:bytes`, with halves at the given places."""
    kind, values, size = map(int, layout.split(":"))

    def make(dice: random.Random) -> writer.Weights:
        def weights(rows: int, columns: int, scale: float) -> writer.Tensor:
            data = np.frombuffer(dice.randbytes(rows * columns // values * size), np.uint8).reshape(-1, size).copy()
            for at, factor in fields.items():
                data[:, at : at + 2] = np.frombuffer(struct.pack("<e", scale * factor), np.uint8)
            return (columns, rows), kind, data.tobytes()

        return weights

    return make


@pytest.mark.parametrize(
    "layout, fields",
    [
        ("2:32:18", {0: 1 / 5}),
        ("3:32:20", {0: 1 / 5, 2: -1.5}),
        ("6:32:22", {0: 1 / 10}),
        ("7:32:24", {0: 1 / 10, 2: -1.5}),
        ("8:32:34", {0: 1 / 74}),
        ("12:256:144", {0: 1 / 150, 2: 1 / 20}),
        ("13:256:176", {0: 1 / 300, 2: 1 / 20}),
        ("14:256:210", {208: 1 / 1400}),
        ("1:1:2", {0: 1.0}),
        ("30:1:2", {}),
    ],
    ids=["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"],
)
def test_quantised_types_mean_what_llama_cpp_takes_them_for(
    tmp_path: Path, layout: str, fields: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random blocks of each type give llama.cpp's probabilities."""
    make = floats(layout) if layout.startswith(("1:", "30:")) else blocks(layout, fields)
    monkeypatch.setattr(writer, "_eight_bits", make)
    path = writer.write_random_gguf(tmp_path / "model.gguf", width=256, hidden=256, layers=1, quantised=True)
    _, logprobs = asked(path)
    assert np.allclose(likeliest(path), logprobs, atol=0.25)


def floats(layout: str) -> Callable[[random.Random], writer.Weights]:
    """Random numbers of 16 bits: halves, or the upper parts of singles."""
    kind = int(layout.split(":")[0])

    def make(dice: random.Random) -> writer.Weights:
        values = np.random.default_rng(dice.randrange(1 << 30))

        def weights(rows: int, columns: int, scale: float) -> writer.Tensor:
            drawn = values.normal(0, scale, rows * columns).astype(np.float32)
            data = drawn.astype(np.float16) if kind == 1 else (drawn.view(np.uint32) >> 16).astype(np.uint16)
            return (columns, rows), kind, data.tobytes()

        return weights

    return make


def test_a_batch_is_as_its_sequences_alone(tmp_path: Path) -> None:
    """Parts of sequences, in blocks that are not in order, give what the whole gives alone."""
    path = writer.write_random_gguf(tmp_path / "model.gguf")
    model = PagedModel(model_of(read_gguf(path)), device="CPU", threads=1, kv_precision="f32", precision="f32")
    model.reserve(16)
    dice = np.random.default_rng(1)
    first, second = dice.integers(0, 250, 70).tolist(), dice.integers(0, 250, 45).tolist()
    alone = [model.logits([Part(tokens, 0, range(3))], [len(tokens) - 1])[0].copy() for tokens in (first, second)]
    model.logits([Part(first[:40], 0, [9, 4]), Part(second[:10], 0, [7])], [0])
    both = model.logits([Part(first[40:], 40, [9, 4, 12]), Part(second[10:], 10, [7, 2])], [29, 64])
    assert np.allclose(both, alone, atol=1e-3)


def test_what_is_not_known_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another architecture, and another type of tensors."""
    value = writer._value
    path = tmp_path / "model.gguf"
    monkeypatch.setattr(writer, "_value", lambda given: value("mamba" if given == "llama" else given))
    writer.write_random_gguf(path)
    with pytest.raises(StartupError, match="architecture is mamba"):
        model_of(read_gguf(path))
    monkeypatch.undo()
    monkeypatch.setattr(writer, "_eight_bits", blocks("10:256:84", {80: 1.0, 82: 1.0}))
    writer.write_random_gguf(path, width=256, hidden=256, quantised=True)
    with pytest.raises(StartupError, match="Q2_K"):
        model_of(read_gguf(path))
