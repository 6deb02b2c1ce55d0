"""Folders for OpenVINO: safetensors give transformers' own logits, and its own format what the same graph gives."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import numpy as np
import openvino
import torch_tiny

from ore.backends.local.openvino.paged import PagedModel, Part
from ore.backends.local.openvino.safetensors_model import model_of_folder
from ore.backends.local.openvino.sources import found
from ore.errors import StartupError

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 10000.0,
}
TOKENS = list(range(6, 106))


def quiet(_done: int, _total: int) -> None:
    """No progress."""


def logits(model: openvino.Model) -> Any:
    """Of the last token."""
    paged = PagedModel(model, device="CPU", threads=1, kv_precision="f32", precision="f32")
    paged.reserve(8)
    return paged.logits([Part(TOKENS, 0, range(-(-len(TOKENS) // paged.block)))], [len(TOKENS) - 1])[0].copy()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {}),
        ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": False}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
        ("llama", {"attention_bias": True, "dtype": "bfloat16"}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_safetensors_are_read_as_transformers_reads_them(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    """Each architecture, each way of positions, heads that are wider than the width says."""
    made = torch_tiny.model(kind, **config)
    if config.get("dtype") == "bfloat16":
        made = made.to(torch.bfloat16)
    folder = torch_tiny.save(tmp_path, made)
    read = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        wanted = read(torch.tensor([TOKENS])).logits[0, -1].numpy()
    source = found(folder, weights="stored", report=quiet)
    assert np.allclose(logits(source.model), wanted, atol=2e-3 * np.abs(wanted).max())
    assert (source.eos_token, source.context) == ("<|end|>", 1024)
    assert source.chat_template == torch_tiny.TEMPLATE


def test_eight_bits_are_near_enough(tmp_path: Path) -> None:
    """Weights in groups of eight bits change logits by little."""
    made = torch_tiny.model("llama")
    folder = torch_tiny.save(tmp_path, made)
    exact, rounded = (logits(found(folder, weights=how, report=quiet).model) for how in ("stored", "int8"))
    assert np.abs(exact - rounded).max() < 0.06 * np.abs(exact).max()


def test_openvinos_own_format_is_read(tmp_path: Path) -> None:
    """A folder with a graph beside the tokenizer."""
    folder = torch_tiny.save(tmp_path / "source", torch_tiny.model("llama"))
    config = json.loads((folder / "config.json").read_text())
    exact = logits(model_of_folder(folder, config, "stored", quiet))
    openvino.save_model(
        model_of_folder(folder, config, "stored", quiet), folder / "openvino_model.xml", compress_to_fp16=False
    )
    (folder / "model.safetensors").unlink()
    assert np.allclose(logits(found(folder, weights="auto", report=quiet).model), exact, atol=1e-4)


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    """An architecture that is not known, with the command that converts it; and a folder without a tokenizer."""
    folder = torch_tiny.save(tmp_path, torch_tiny.model("llama"))
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(StartupError, match=r"it is a MambaForCausalLM.*optimum-cli export openvino"):
        model_of_folder(folder, {**config, "architectures": ["MambaForCausalLM"]}, "auto", quiet)
    with pytest.raises(StartupError, match="quantised already"):
        model_of_folder(folder, {**config, "quantization_config": {"bits": 4}}, "auto", quiet)
    with pytest.raises(StartupError, match="in the way yarn"):
        model_of_folder(folder, {**config, "rope_parameters": {"rope_type": "yarn"}}, "auto", quiet)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(StartupError, match=r"no tokenizer\.json"):
        found(folder, weights="stored", report=quiet)
