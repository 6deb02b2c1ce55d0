"""Writes a projector with random weights, with which a random model sees images. Not a test by itself.

A vision transformer in CLIP's shape and a projection of two layers, as LLaVA has them: every image becomes
`TOKENS` tokens.
"""

import random
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_random_gguf import F32, Tensor, _write

WIDTH, HIDDEN, LAYERS, HEADS, SIDE, PATCH = 32, 64, 2, 4, 28, 14
TOKENS = (SIDE // PATCH) ** 2


def write_random_projector(path: Path, *, width: int = 64, seed: int = 1) -> Path:
    """`width` is that of the model that is to see."""
    facts: dict[str, Any] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,
        "clip.vision.image_size": SIDE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": HIDDEN,
        "clip.vision.block_count": LAYERS,
        "clip.vision.projection_dim": width,
        "clip.vision.attention.head_count": HEADS,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    _write(path, facts, dict(_tensors(random.Random(seed), width)))
    return path


def _tensors(dice: random.Random, width: int) -> Iterator[tuple[str, Tensor]]:
    def drawn(*shape: int) -> Tensor:
        count = 1
        for side in shape:
            count *= side
        return shape, F32, struct.pack(f"<{count}f", *(dice.gauss(0, 0.3) for _ in range(count)))

    def layer(name: str, columns: int, rows: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", drawn(columns, rows)
        yield f"{name}.bias", drawn(rows)

    def norm(name: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", ((WIDTH,), F32, (array("f", [1.0]) * WIDTH).tobytes())
        yield f"{name}.bias", drawn(WIDTH)

    yield "v.patch_embd.weight", drawn(PATCH, PATCH, 3, WIDTH)
    yield "v.class_embd", drawn(WIDTH)
    yield "v.position_embd.weight", drawn(WIDTH, TOKENS + 1)
    yield from norm("v.pre_ln")
    for number in range(LAYERS):
        block = f"v.blk.{number}"
        yield from norm(f"{block}.ln1")
        yield from norm(f"{block}.ln2")
        for part in ("q", "k", "v", "out"):
            yield from layer(f"{block}.attn_{part}", WIDTH, WIDTH)
        yield from layer(f"{block}.ffn_up", WIDTH, HIDDEN)
        yield from layer(f"{block}.ffn_down", HIDDEN, WIDTH)
    yield from layer("mm.0", WIDTH, width)
    yield from layer("mm.2", width, width)
