"""The network of ore-tiny: a small Llama-shaped transformer in plain PyTorch.

It is for training only. It refuses to generate text and to know about files: llama.cpp runs the exported model, and
`export.py` names its weights. Rotary positions turn neighbouring pairs of a head (the order that llama.cpp expects of
the `llama` architecture), so the export needs no permutation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; `head_dim * heads` is the width of attention."""

    vocabulary: int = 2048
    width: int = 192
    layers: int = 8
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 32
    hidden: int = 512
    rope_theta: float = 10000.0
    context: int = 4096

    def to_dict(self) -> dict[str, int | float]:
        """The shape as plain data, for a checkpoint."""
        return asdict(self)


class Block(nn.Module):
    """One layer: attention with grouped heads, then SwiGLU; both on RMS-normalised input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
        self.attn_norm = nn.Parameter(torch.ones(shape.width))
        self.qkv = nn.Parameter(torch.empty(sum(self.sizes), shape.width))
        self.out = nn.Parameter(torch.empty(shape.width, self.sizes[0]))
        self.ffn_norm = nn.Parameter(torch.ones(shape.width))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.hidden, shape.width))
        self.down = nn.Parameter(torch.empty(shape.width, shape.hidden))

    def attend(self, stream: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The stream, [batch, length, width], with what causal attention adds."""
        x = functional.rms_norm(stream, (stream.shape[-1],), self.attn_norm, 1e-5)
        batch, length, _ = x.shape
        shape = self.shape
        heads = functional.linear(x, self.qkv).view(batch, length, -1, shape.head_dim)
        turned = shape.heads + shape.kv_heads
        turned_heads = rotate(heads[:, :, :turned], cos, sin)
        query = turned_heads[:, :, : shape.heads].transpose(1, 2)
        group = shape.heads // shape.kv_heads
        key = turned_heads[:, :, shape.heads :].transpose(1, 2).repeat_interleave(group, dim=1)
        value = heads[:, :, turned:].transpose(1, 2).repeat_interleave(group, dim=1)
        mixed = attention(query, key, value)
        return stream + functional.linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.out)

    def feed(self, stream: Tensor) -> Tensor:
        """The stream, [..., width], with what SwiGLU adds."""
        x = functional.rms_norm(stream, (stream.shape[-1],), self.ffn_norm, 1e-5)
        gate, up = functional.linear(x, self.gate_up).chunk(2, dim=-1)
        return stream + functional.linear(functional.silu(gate) * up, self.down)


class Tiny(nn.Module):
    """The whole network, with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.layers)])
        self.norm = nn.Parameter(torch.ones(shape.width))
        self.start()

    def start(self) -> None:
        """Random weights; the projections back into the stream start small."""
        nn.init.normal_(self.embedding, std=0.02)
        for block in self.blocks:
            for weight in (block.qkv, block.gate_up):
                nn.init.normal_(weight, std=self.shape.width**-0.5)
            for weight in (block.out, block.down):
                nn.init.normal_(weight, std=0.3 * weight.shape[1] ** -0.5 / self.shape.layers**0.5)

    def forward(self, tokens: Tensor, positions: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the chosen rows (indices into the flattened batch) and their target tokens."""
        cos, sin = self.angles(positions)
        x = self.embedding[tokens]
        for block in self.blocks[:-1]:
            x = block.feed(block.attend(x, cos, sin))
        last = self.blocks[-1]
        chosen = last.feed(last.attend(x, cos, sin).reshape(-1, x.shape[-1]).index_select(0, rows))
        logits = functional.linear(functional.rms_norm(chosen, (x.shape[-1],), self.norm, 1e-5), self.embedding)
        return functional.cross_entropy(logits.float(), targets)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [batch, length, 1, head_dim / 2]."""
        half = torch.arange(0, self.shape.head_dim, 2, device=positions.device, dtype=torch.float32)
        turns = positions.float()[..., None, None] * self.shape.rope_theta ** (-half / self.shape.head_dim)
        return turns.cos(), turns.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each neighbouring pair of [batch, length, heads, head_dim] by its angle."""
    pairs = heads.unflatten(-1, (-1, 2))
    first, second = pairs[..., 0], pairs[..., 1]
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return turned.flatten(-2).to(heads.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention over [batch, heads, length, head_dim].

    On a CPU the plain products are a fifth faster than the fused kernel up to about 256 tokens.
    """
    length = query.shape[2]
    if query.device.type != "cpu" or length > 256:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    later = torch.full((length, length), float("-inf")).triu(1)
    return (scores.float() + later).softmax(-1).to(value.dtype) @ value
