"""Writes a GGUF with random weights, so that tests can ask what the engine enforces when the model knows nothing.

A Llama-shaped model of a few hundred kilobytes with a byte-level vocabulary, the ChatML markers and a Hermes-style
chat template. It needs no package (the format is small) and refuses to be a model that says anything sensible.
"""

import random
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>")

TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def byte_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) if b in shown else chr(256 + sum(1 for c in range(b) if c not in shown)) for b in range(256)]


def write_random_gguf(
    path: Path,
    *,
    seed: int = 0,
    width: int = 64,
    layers: int = 2,
    hidden: int = 128,
    context: int = 2048,
    template: str = TEMPLATE,
    markers: bool = True,
    marker_type: int = USER_DEFINED,
    merges: tuple[str, ...] = ("Ġ t", "h e", "i n", "e r", "Ġt he", '" :', "} }", '{ "', 'Ġ "'),
) -> Path:
    """Write the model to `path`; `marker_type` is how the tool and think markers stand in the vocabulary."""
    tokens = byte_characters() + [merge.replace(" ", "") for merge in merges]
    types = [NORMAL] * len(tokens)
    for marker in MARKERS[: None if markers else 3]:
        tokens.append(marker)
        types.append(CONTROL if marker.startswith("<|") else marker_type)
    tensors = _tensors(random.Random(seed), len(tokens), width, layers, hidden)
    facts: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "random",
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // 4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.bos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template,
    }
    _write(path, facts, tensors)
    return path


Tensor = tuple[tuple[int, ...], "array[float]"]


def _tensors(dice: random.Random, vocabulary: int, width: int, layers: int, hidden: int) -> dict[str, Tensor]:
    pool = array("f", (dice.gauss(0, 1) for _ in range(65_537)))

    def weights(rows: int, columns: int, scale: float) -> Tensor:
        start = dice.randrange(len(pool))
        values = [pool[(start + i * 7919) % len(pool)] * scale for i in range(rows * columns)]
        return (columns, rows), array("f", values)

    ones: Tensor = (width,), array("f", [1.0]) * width
    tensors = {"token_embd.weight": weights(vocabulary, width, 1.0), "output_norm.weight": ones}
    tensors["output.weight"] = weights(vocabulary, width, 2.0 * width**-0.5)
    for i in range(layers):
        tensors[f"blk.{i}.attn_norm.weight"] = ones
        tensors[f"blk.{i}.ffn_norm.weight"] = ones
        for name, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", width // 2, width),
            ("attn_v", width // 2, width),
            ("attn_output", width, width),
            ("ffn_gate", hidden, width),
            ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ):
            tensors[f"blk.{i}.{name}.weight"] = weights(rows, columns, columns**-0.5)
    return tensors


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: object) -> bytes:
    """A typed value: the numbers before the data are GGUF's type codes."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    assert isinstance(value, list)
    if value and isinstance(value[0], int):
        return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(text) for text in value)


def _write(path: Path, facts: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(facts))]
    head += [_string(name) + _value(value) for name, value in facts.items()]
    offset = 0
    for name, (shape, values) in tensors.items():
        head.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        offset += _padded(len(values) * 4)
    raw = b"".join(head)
    with path.open("wb") as file:
        file.write(raw.ljust(_padded(len(raw)), b"\0"))
        for _, values in tensors.values():
            file.write(values.tobytes().ljust(_padded(len(values) * 4), b"\0"))


def _padded(size: int) -> int:
    return (size + 31) // 32 * 32
