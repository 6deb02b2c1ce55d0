"""OpenVINO behind the batching scheduler: a `Runner` that computes all slices in one `infer`.

It refuses to reserve less than a whole context: a sequence that is alone must fit.
"""

from collections.abc import Sequence
from typing import Any

from ore.backends.local.batching.runner import Slice
from ore.backends.local.openvino.paged import PagedModel, Part


class OpenVinoRunner:
    """A compiled model and its paged memory, of `block_count` blocks."""

    def __init__(self, model: PagedModel, block_count: int) -> None:
        self._model = model
        self.block_tokens = model.block
        self.block_count = block_count
        model.reserve(block_count)

    def forward(self, slices: Sequence[Slice]) -> Any:
        """See `Runner.forward`."""
        parts, rows, end = [], [], 0
        for each in slices:
            length = each.past + len(each.tokens)
            parts.append(Part(each.tokens, each.past, each.blocks[: -(-length // self.block_tokens)]))
            end += len(each.tokens)
            if each.wants_logits:
                rows.append(end - 1)
        return self._model.logits(parts, rows)


def blocks_for(model: PagedModel, *, slots: int, context: int, mib: int) -> int:
    """Blocks that `mib` MiB hold, but not more than all slots can need twice, and one whole context at least."""
    whole = -(-context // model.block) + 1
    return max(whole, min(mib * 2**20 // model.block_bytes, 2 * whole * slots))
