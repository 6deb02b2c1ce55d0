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
    rope_theta: float = 1e6
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
        self.qkv_bias = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.out = nn.Parameter(torch.empty(shape.width, self.sizes[0]))
        self.ffn_norm = nn.Parameter(torch.ones(shape.width))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.hidden, shape.width))
        self.down = nn.Parameter(torch.empty(shape.width, shape.hidden))

    def attend(self, stream: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The stream, [batch, length, width], with what causal attention adds."""
        x = functional.rms_norm(stream, (stream.shape[-1],), self.attn_norm, 1e-5)
        batch, length, _ = x.shape
        shape = self.shape
        heads = functional.linear(x, self.qkv, self.qkv_bias).view(batch, length, -1, shape.head_dim)
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

    @torch.no_grad()
    def start(self) -> None:
        """Random weights, the projections back into the stream small; the first two layers can copy from the start."""
        nn.init.normal_(self.embedding, std=0.25)
        nn.init.constant_(self.norm, 0.1)
        for block in self.blocks:
            for weight in (block.qkv, block.gate_up):
                nn.init.normal_(weight, std=self.shape.width**-0.5)
            for weight in (block.out, block.down):
                nn.init.normal_(weight, std=0.1 * weight.shape[1] ** -0.5)
        start_copying(self)

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


LOOKING_BACK, MATCHING, COPYING = 40.0, 2.5, 0.7


def start_copying(model: Tiny) -> None:
    """Give the first two layers the circuit that finds what followed an earlier occurrence of the last two tokens.

    A network this small needs more data than two CPU cores can show it before it discovers this circuit ("induction
    heads", Olsson et al. 2022); started with it, it copies after a few hundred steps. Embeddings start in the first
    half of the stream. In layer 0, head h looks h + 1 tokens back, by its biases and the rotary angles alone, and
    heads 0 and 1 write what they see into the third and the fourth quarter. In layer 1 every head compares the last
    two tokens with the two before each position, in the slowly turning pairs, and writes the embedding it finds there.
    Everything remains free to learn.
    """
    shape, device = model.shape, model.embedding.device
    size, half, quarter = shape.head_dim, shape.width // 2, shape.width // 4
    looking, matching = model.blocks[0], model.blocks[1]
    model.embedding[:, half:] = 0
    base = torch.linalg.qr(torch.randn(half, half, device=device))[0]
    seen = base[:quarter]

    wide, narrow, _ = looking.sizes
    speeds = shape.rope_theta ** (-torch.arange(0, size, 2, device=device) / size)
    fast = (torch.arange(size // 2, device=device) < 12) * LOOKING_BACK**0.5
    for head in range(shape.heads):
        turn = speeds * (head + 1)
        looking.qkv_bias[head * size : (head + 1) * size] = (
            torch.stack((turn.cos(), -turn.sin()), -1).mul(fast[:, None]).flatten()
        )
    looking.qkv[: wide + narrow] *= 0.3
    looking.qkv_bias[wide : wide + narrow].view(-1, size)[:, ::2] = fast
    looking.qkv[wide + narrow : wide + narrow + size] = torch.cat((seen, torch.zeros_like(seen)), 1)
    looking.out[half:] = 0
    for head in (0, 1):
        rows = slice(half + head * quarter, half + (head + 1) * quarter)
        looking.out[rows, head * size : (head + 1) * size] = 0.18 * torch.eye(quarter, device=device)

    slow = torch.arange(22, size, device=device)
    last, before = slow[slow % 4 < 2], slow[slow % 4 >= 2]
    third, fourth = half + torch.arange(quarter, device=device), half + quarter + torch.arange(quarter, device=device)
    for head in range(shape.heads):
        rows = matching.qkv[head * size : (head + 1) * size]
        rows.mul_(0.1)
        rows[last, :half] = MATCHING * seen[last]
        rows[before, third[before]] = MATCHING
    for head in range(shape.kv_heads):
        rows = matching.qkv[wide + head * size : wide + (head + 1) * size]
        rows.mul_(0.1)
        rows[last, third[last]] = MATCHING
        rows[before, fourth[before]] = MATCHING
        copied = base[head * quarter : (head + 1) * quarter]
        at = wide + narrow + head * size
        matching.qkv[at : at + size] = torch.cat((copied, torch.zeros_like(copied)), 1)
        group = shape.heads // shape.kv_heads
        for reader in range(head * group, (head + 1) * group):
            matching.out[:half, reader * size : (reader + 1) * size] = COPYING / group * copied.T


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
