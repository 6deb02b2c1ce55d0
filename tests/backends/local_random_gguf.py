"""Writes a GGUF with random weights, so that tests can ask what the engine enforces when the model knows nothing.

A Llama-shaped model of a few hundred kilobytes with a byte-level vocabulary, the ChatML markers and a Hermes-style
chat template; or one of the size that people serve, in 8 bits, for benchmarks: speed does not depend on the values. It
needs no package (the format is small) and refuses to be a model that says anything sensible.
"""

import random
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
F32, Q8_0 = 0, 8
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
    heads: int = 4,
    kv_heads: int = 2,
    filler: int = 0,
    quantised: bool = False,
    control: Sequence[str] = (),
) -> Path:
    """Write the model to `path`; `marker_type` is how the tool and think markers stand in the vocabulary.

    `control` are further markers, all of them control tokens; `filler` more tokens are there for the model to say.
    `quantised` matrices are q8_0, and the embedding serves as the output too.
    """
    tokens = byte_characters() + [merge.replace(" ", "") for merge in merges] + [f"w{i}" for i in range(filler)]
    types = [NORMAL] * len(tokens)
    for marker in MARKERS[: None if markers else 3]:
        tokens.append(marker)
        types.append(CONTROL if marker.startswith("<|") else marker_type)
    tokens += control
    types += [CONTROL] * len(control)
    weights = _eight_bits(random.Random(seed)) if quantised else _floats(random.Random(seed))
    tensors = dict(_tensors(weights, len(tokens), width, layers, hidden, kv_heads * width // heads, tied=quantised))
    facts: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "random",
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.feed_forward_length": hidden,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
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


def write_random_135m(path: Path) -> Path:
    """A model in the shape of the common ones with 135 million parameters, 143 MB in q8_0."""
    shape = {"width": 576, "layers": 30, "hidden": 1536, "heads": 9, "kv_heads": 3}
    return write_random_gguf(path, **shape, context=8192, filler=48_880, quantised=True)


Tensor = tuple[tuple[int, ...], int, bytes]
"""Shape (columns first), GGUF's code of the type, data."""

Weights = Callable[[int, int, float], Tensor]


def _floats(dice: random.Random) -> Weights:
    pool = array("f", (dice.gauss(0, 1) for _ in range(65_537)))

    def weights(rows: int, columns: int, scale: float) -> Tensor:
        start = dice.randrange(len(pool))
        values = [pool[(start + i * 7919) % len(pool)] * scale for i in range(rows * columns)]
        return (columns, rows), F32, array("f", values).tobytes()

    return weights


def _eight_bits(dice: random.Random) -> Weights:
    """q8_0: blocks of 32 signed bytes behind their common scale, a half-precision number."""

    def weights(rows: int, columns: int, scale: float) -> Tensor:
        data = bytearray(dice.randbytes(rows * columns // 32 * 34))
        low, high = struct.pack("<e", scale / 74)  # uniform bytes have a standard deviation of 74
        data[0::34], data[1::34] = bytes([low]) * (len(data) // 34), bytes([high]) * (len(data) // 34)
        return (columns, rows), Q8_0, bytes(data)

    return weights


def _tensors(
    weights: Weights, vocabulary: int, width: int, layers: int, hidden: int, kv_width: int, *, tied: bool
) -> Iterator[tuple[str, Tensor]]:
    ones: Tensor = (width,), F32, (array("f", [1.0]) * width).tobytes()
    yield "token_embd.weight", weights(vocabulary, width, 2.0 * width**-0.5 if tied else 1.0)
    yield "output_norm.weight", ones
    if not tied:
        yield "output.weight", weights(vocabulary, width, 2.0 * width**-0.5)
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", ones
        yield f"blk.{i}.ffn_norm.weight", ones
        for name, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", kv_width, width),
            ("attn_v", kv_width, width),
            ("attn_output", width, width),
            ("ffn_gate", hidden, width),
            ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ):
            yield f"blk.{i}.{name}.weight", weights(rows, columns, columns**-0.5)


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
    for name, (shape, kind, data) in tensors.items():
        head.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += _padded(len(data))
    raw = b"".join(head)
    with path.open("wb") as file:
        file.write(raw.ljust(_padded(len(raw)), b"\0"))
        for _, _, data in tensors.values():
            file.write(data.ljust(_padded(len(data)), b"\0"))


def _padded(size: int) -> int:
    return (size + 31) // 32 * 32
