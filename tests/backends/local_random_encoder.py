"""Writes an encoder with random weights (BERT's shape, in GGUF), for tests of embeddings. Not a test by itself."""

import random
import string
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_random_gguf import F32, Tensor, _write

WIDTH, LAYERS, HIDDEN, HEADS = 48, 2, 96, 4
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_random_encoder(path: Path, *, context: int = 64, pooling: int = 1, seed: int = 0) -> Path:
    """A model that reads lower-case words letter by letter; `pooling` is GGUF's number, 4 for a reranker."""
    letters = [*string.ascii_lowercase, *string.digits, *".,?!"]
    tokens = [*SPECIAL, *(f"\u2581{letter}" for letter in letters), *letters]
    facts: dict[str, Any] = {
        "general.architecture": "bert",
        "general.name": "random encoder",
        "bert.block_count": LAYERS,
        "bert.context_length": context,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": HIDDEN,
        "bert.attention.head_count": HEADS,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "jina-v2-en",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }
    _write(path, facts, dict(_tensors(random.Random(seed), len(tokens), context)))
    return path


def _tensors(dice: random.Random, vocabulary: int, context: int) -> Iterator[tuple[str, Tensor]]:
    def drawn(*shape: int) -> Tensor:
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        return shape, F32, array("f", (dice.gauss(0, 0.3) for _ in range(count))).tobytes()

    def norm(name: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", ((WIDTH,), F32, (array("f", [1.0]) * WIDTH).tobytes())
        yield f"{name}.bias", drawn(WIDTH)

    yield "token_embd.weight", drawn(WIDTH, vocabulary)
    yield "token_types.weight", drawn(WIDTH, 2)
    yield "position_embd.weight", drawn(WIDTH, context)
    yield from norm("token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name, columns, rows in (
            *((f"attn_{part}", WIDTH, WIDTH) for part in ("q", "k", "v", "output")),
            ("ffn_up", WIDTH, HIDDEN),
            ("ffn_down", HIDDEN, WIDTH),
        ):
            yield f"{block}.{name}.weight", drawn(columns, rows)
            yield f"{block}.{name}.bias", drawn(rows)
        yield from norm(f"{block}.attn_output_norm")
        yield from norm(f"{block}.layer_output_norm")
