"""A `Runner` for modules that know nothing of caches: it remembers tokens, and computes each sequence anew."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ore.backends.local.batching.runner import Slice
from ore.errors import StartupError


class RecomputeRunner:
    """`module` is as in `OwnModel`; `most_tokens` are those of all sequences together."""

    block_tokens = 16

    def __init__(self, module: Callable[[Any], Any], most_tokens: int, device: Any) -> None:
        self._module = module
        self._device = device
        self.block_count = -(-most_tokens // self.block_tokens)
        self._memory = np.zeros((self.block_count, self.block_tokens), np.int64)

    def forward(self, slices: Sequence[Slice]) -> Any:
        """As `Runner.forward`."""
        for part in slices:
            places = np.arange(part.past, part.past + len(part.tokens))
            blocks = np.asarray(part.blocks)[places // self.block_tokens]
            self._memory[blocks, places % self.block_tokens] = part.tokens
        wanted = [part for part in slices if part.wants_logits]
        if not wanted:
            return np.zeros((0, 1), np.float32)
        lengths = [part.past + len(part.tokens) for part in wanted]
        tokens = np.zeros((len(wanted), max(lengths)), np.int64)
        for row, part, length in zip(tokens, wanted, lengths, strict=True):
            row[:length] = self._memory[list(part.blocks)].reshape(-1)[:length]
        with torch.inference_mode():
            logits = self._logits(torch.from_numpy(tokens).to(self._device))
            return logits[torch.arange(len(wanted)), torch.tensor(lengths) - 1].float().cpu().numpy()

    def _logits(self, tokens: Any) -> Any:
        said = self._module(tokens)
        logits = getattr(said, "logits", said)
        if logits.shape[:2] != tokens.shape:
            raise StartupError(
                f"the model's logits have the shape {tuple(logits.shape)} for tokens of {tuple(tokens.shape)}; "
                "return a row for each token"
            )
        return logits
