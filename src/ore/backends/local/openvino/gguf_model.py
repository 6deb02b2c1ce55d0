"""From a GGUF file to OpenVINO's graph: which architectures are known, and what their tensors are called.

It refuses architectures that it does not know, by name.
"""

import re
from collections.abc import Callable
from typing import Final

import numpy as np
import openvino

from ore.backends.local.openvino.architectures import GGUF
from ore.backends.local.openvino.gguf_file import Array, GgufFile
from ore.backends.local.openvino.graph import Missing, Shape, build
from ore.backends.local.openvino.weights import Matrix, in_order, stored_bytes, unpacked
from ore.errors import StartupError

_PLACES: Final = {
    "embedding": "token_embd",
    "output_norm": "output_norm",
    "output": "output",
    "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""The graph's names and the file's."""

_NAME: Final = re.compile(r"(?:layers\.(?P<layer>\d+)\.)?(?P<place>.+)\.(?P<part>weight|bias)")


def shape_of(file: GgufFile) -> Shape:
    """The sizes of the model. Raises `StartupError` for one that cannot be run here."""
    if file.architecture not in GGUF:
        known = ", ".join(GGUF)
        raise StartupError(
            f"its architecture is {file.architecture or 'not named'}, and OpenVINO is given GGUF files of {known} only;"
            ' use engine = "llama_cpp"'
        )
    if file.of_architecture("expert_count", 0):
        raise StartupError('it is a mixture of experts; use engine = "llama_cpp"')
    if (scaling := file.of_architecture("rope.scaling.type", "none")) not in ("none", "linear"):
        raise StartupError(f'it stretches its positions in the way {scaling}; use engine = "llama_cpp"')
    heads, width = file.of_architecture("attention.head_count"), file.of_architecture("embedding_length")
    return Shape(
        layers=file.of_architecture("block_count"),
        width=width,
        heads=heads,
        kv_heads=file.of_architecture("attention.head_count_kv", heads),
        head_width=file.of_architecture("attention.key_length", width // heads),
        norm_epsilon=file.of_architecture("attention.layer_norm_rms_epsilon", 1e-5),
        rope_base=file.of_architecture("rope.freq_base", 10_000.0),
        rope_divisor=file.of_architecture("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0,
        context=file.of_architecture("context_length", 0),
    )


def model_of(file: GgufFile, report: Callable[[int, int], None] = lambda _done, _total: None) -> openvino.Model:
    """The graph of the file's model. `report` is told the bytes that are read, and all. Raises `StartupError`."""
    shape = shape_of(file)
    interleaved = GGUF[file.architecture]
    orders = {
        "attn_q": _by_halves(shape.heads, shape.head_width),
        "attn_k": _by_halves(shape.kv_heads, shape.head_width),
    }

    read: dict[str, int] = {}
    total = sum(map(stored_bytes, file.tensors.values()))

    def weight(name: str) -> Matrix | None:
        place = _stored_name(name)
        if (stored := file.tensors.get(place)) is None:
            return None
        read[place] = stored_bytes(stored)
        report(sum(read.values()), total)
        matrix = unpacked(place, stored)
        order = orders.get(place.split(".")[-2]) if interleaved and "." in place else None
        return matrix if order is None else in_order(matrix, order)

    try:
        return build(shape, weight)
    except Missing as error:
        raise StartupError(f"the tensor {_stored_name(str(error))} is missing in it") from error


def _stored_name(name: str) -> str:
    if name == "rope_divisors":
        return "rope_freqs.weight"
    found = _NAME.fullmatch(name)
    assert found is not None  # noqa: S101 - the graph's names are ours
    place = f"{_PLACES[found['place']]}.{found['part']}"
    return place if found["layer"] is None else f"blk.{found['layer']}.{place}"


def _by_halves(heads: int, width: int) -> Array:
    """llama.cpp turns neighbours (0 with 1), OpenVINO halves (0 with width / 2): the rows that go where."""
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(-1)
