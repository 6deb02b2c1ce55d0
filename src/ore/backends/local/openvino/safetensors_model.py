"""From a folder with safetensors, as model hubs have them, to OpenVINO's graph, without another package.

It refuses architectures that it does not know, by name, with the command that converts them, and weights that are
quantised already.
"""

import json
import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino

from ore.backends.local.openvino.architectures import SAFETENSORS
from ore.backends.local.openvino.gguf_file import Array
from ore.backends.local.openvino.graph import Missing, Shape, build
from ore.backends.local.openvino.weights import GROUP, Matrix, quantised
from ore.errors import StartupError

_PLACES: Final = {
    "embedding": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "attention.output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""The graph's names and those of the folder."""

_NAME: Final = re.compile(r"(?:layers\.(?P<layer>\d+)\.)?(?P<place>.+)\.(?P<part>weight|bias)")
_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

_COMPRESSED_FROM: Final = 64 * 2**20
"""Bytes of a folder's weights from which eight bits pay: memory bandwidth is what decoding waits for."""


def model_of_folder(
    path: Path, config: dict[str, Any], weights: str, report: Callable[[int, int], None]
) -> openvino.Model:
    """The graph. `weights`: "int8" for groups of eight bits, "stored" as they are, "auto" by size."""
    shape = _shape(config)
    stored = _read(path)
    total = sum(view.nbytes for view, _ in stored.values())
    compress = weights == "int8" or (weights == "auto" and total >= _COMPRESSED_FROM)
    done = 0

    def weight(name: str) -> Matrix | None:
        nonlocal done
        if name == "rope_divisors":
            return _rope_divisors(config, shape)
        if name == "output.weight" and config.get("tie_word_embeddings"):
            return None
        if (found := stored.get(_stored_name(name))) is None:
            return None
        view, kind = found
        done += view.nbytes
        report(min(done, total), total)
        values = (view.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else view
        return quantised(values) if compress and values.ndim == 2 and values.shape[1] % GROUP == 0 else values

    try:
        return build(shape, weight)
    except Missing as error:
        raise StartupError(f"the tensor {_stored_name(str(error))} is missing in it") from error


def _shape(config: dict[str, Any]) -> Shape:
    named = (config.get("architectures") or ["none"])[0]
    if named not in SAFETENSORS or config.get("quantization_config"):
        known = ", ".join(SAFETENSORS)
        problem = "its weights are quantised already" if config.get("quantization_config") else f"it is a {named}"
        raise StartupError(
            f"{problem}, and of safetensors only {known} are read as they are; convert it with: optimum-cli export "
            "openvino --model FOLDER OUTPUT (package optimum-intel), and serve OUTPUT"
        )
    heads, width = config["num_attention_heads"], config["hidden_size"]
    rope = _rope(config)
    return Shape(
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or width // heads,
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        rope_base=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        rope_divisor=rope.get("factor", 1.0) if _rope_type(rope) == "linear" else 1.0,
        context=config.get("max_position_embeddings", 0),
    )


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """How positions are turned; newer files call it parameters. Raises `StartupError` for ways unknown here."""
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if _rope_type(rope) not in ("default", "linear", "llama3"):
        raise StartupError(f'it stretches its positions in the way {_rope_type(rope)}; use engine = "torch"')
    return rope


def _rope_type(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _rope_divisors(config: dict[str, Any], shape: Shape) -> Array | None:
    """Llama 3 turns slow frequencies slower yet, and leaves quick ones."""
    rope = _rope(config)
    if _rope_type(rope) != "llama3":
        return None
    half = shape.head_width // 2
    length = 2 * np.pi * shape.rope_base ** (np.arange(half) / half)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    trained = rope["original_max_position_embeddings"]
    smooth = np.clip((trained / length - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _read(path: Path) -> dict[str, tuple[Array, str]]:
    """Every tensor of the folder by name, mapped into memory, and its type."""
    tensors: dict[str, tuple[Array, str]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as opened:
            raw = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        size = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            if (kind := entry["dtype"]) not in _TYPES:
                raise StartupError(f"the tensor {name} has the type {kind}, which is not read here")
            shape, start = entry["shape"], 8 + size + entry["data_offsets"][0]
            view = np.frombuffer(raw, _TYPES[kind], int(np.prod(shape)), start).reshape(shape)
            tensors[name] = view, kind
    return tensors


def _stored_name(name: str) -> str:
    found = _NAME.fullmatch(name)
    assert found is not None  # noqa: S101 - the graph's names are ours
    place = f"{_PLACES[found['place']]}.{found['part']}"
    return place if found["layer"] is None else f"model.layers.{found['layer']}.{place}"
