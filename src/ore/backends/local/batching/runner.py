"""What the scheduler asks of an engine: `Runner`, and the `Slice` of a sequence that one forward pass works on."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Slice(NamedTuple):
    """The next tokens of one sequence."""

    tokens: Sequence[int]
    past: int
    """Tokens before them, whose keys and values lie in `blocks` already."""
    blocks: Sequence[int]
    """Where the sequence's tokens lie, in order; there are enough for these tokens too."""
    wants_logits: bool
    """Whether what follows the last token is asked for."""


class Runner(Protocol):
    """A model with its weights and its paged memory. Asked by one thread."""

    block_tokens: int
    """Tokens that one block holds."""
    block_count: int

    def forward(self, slices: Sequence[Slice]) -> Any:
        """Compute, and keep keys and values in the blocks. The logits, 32-bit floats that the caller may change:
        a row for each slice that wants them, in order."""
