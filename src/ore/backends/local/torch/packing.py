"""Weights in the order in which a CPU's matrix units read them: twice as fast for single tokens in bfloat16 (measured).

It refuses nothing: where torch was built without oneDNN, a model stays as it is.
"""

from typing import Any

import torch
from torch import nn


class PackedLinear(nn.Module):  # type: ignore[misc]
    """A linear layer whose weights cannot be read any more, only multiplied with."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)
        self._bias = linear.bias

    def forward(self, x: Any) -> Any:
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


def pack(model: nn.Module) -> None:
    """Pack all linear layers of a bfloat16 model on a CPU, in place."""
    if model.device.type != "cpu" or model.dtype is not torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
