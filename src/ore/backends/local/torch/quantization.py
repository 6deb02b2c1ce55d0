"""Weights in fewer bits: `quantize` replaces a model's linear layers. Activations stay as they are."""

from typing import Any

import torch
from torch import nn


class Int8Linear(nn.Module):  # type: ignore[misc]
    """8-bit weights with a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
        self.register_buffer("weight", (weight.float() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0].to(weight.dtype))
        self.bias = linear.bias

    def forward(self, x: Any) -> Any:
        flat = x.reshape(-1, x.shape[-1])
        if flat.device.type == "cpu":
            out = torch._weight_int8pack_mm(flat, self.weight, self.scale)
        else:
            out = (flat @ self.weight.to(flat.dtype).T) * self.scale
        out = out.view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


def quantize(model: nn.Module) -> None:
    """8-bit weights in all linear layers, in place. What is tied to the embeddings keeps its precision there."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child))
