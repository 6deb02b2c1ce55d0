"""What an engine written in Python implements at its far end: `Worker`. `worker_server` drives it.

A worker is asked by one thread only, in turns: questions first, then one step for everything that is being sampled. So
it needs no locks, and a step must be short: nobody is heard while it lasts.
"""

from collections.abc import Iterable
from typing import Protocol

from ore.backends.local.engine import Facts, Generation, Piece
from ore.errors import HTTPFault


class Worker(Protocol):
    """One loaded model. Keys are numbers of whoever asks; a key is used once."""

    def facts(self) -> Facts:
        """What the loaded model tells of itself."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """As `Engine.tokenize`."""

    def begin(self, key: int, generation: Generation) -> None:
        """Take a sampling up. Raises `InvalidRequest`. It may have to wait inside for memory, never for long."""

    def cancel(self, key: int) -> None:
        """Forget a sampling and free what it holds. Unknown keys are none of its business."""

    def step(self) -> Iterable[tuple[int, Piece | HTTPFault]]:
        """Work on everything that is being sampled, for one token of each or one part of a prompt: 100 ms at most.

        Gives what has come out, by key. After a piece with an `end`, or an error, the key is forgotten.
        """

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
