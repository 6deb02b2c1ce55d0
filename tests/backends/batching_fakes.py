"""For tests of the scheduler: a runner whose logits tell what lies in its blocks, and a vocabulary of bytes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ore.backends.local.batching.runner import Slice
from ore.backends.local.batching.scheduler import BatchingWorker
from ore.backends.local.batching.vocabulary import Vocabulary, from_pieces
from ore.backends.local.engine import Facts, Generation, Piece
from ore.errors import HTTPFault

WORDS = (b"the ", b"END", b"\xc3", b"\xa4", b"\xf0\x9f", b"\x98\x80", b'{"', b'":')
END = 256 + len(WORDS)
Next = Callable[[list[int]], "int | dict[int, float]"]


def byte_vocabulary() -> Vocabulary:
    """256 bytes, a few longer tokens, and one that ends."""
    pieces = [bytes([i]) for i in range(256)] + list(WORDS) + [b"<end>"]
    return from_pieces(pieces, lambda text, _add, _parse: list(text.encode()), [END])


def token(piece: bytes) -> int:
    return piece[0] if len(piece) == 1 and piece[0] < 128 else 256 + WORDS.index(piece)


class FakeRunner:
    """`follow` says what comes after the tokens that it finds in the blocks."""

    def __init__(self, follow: Next, *, blocks: int = 64, size: int = 4, width: int = END + 1) -> None:
        self.block_tokens = size
        self.block_count = blocks
        self.calls: list[list[Slice]] = []
        self._follow = follow
        self._width = width
        self._memory = np.full((blocks, size), -1)

    def forward(self, slices: Sequence[Slice]) -> Any:
        self.calls.append([part._replace(tokens=list(part.tokens), blocks=list(part.blocks)) for part in slices])
        rows = [self._row(part) for part in slices]
        wanted = [row for row, part in zip(rows, slices, strict=True) if part.wants_logits]
        return np.stack(wanted) if wanted else np.zeros((0, self._width), np.float32)

    def _row(self, part: Slice) -> Any:
        for place, token in enumerate(part.tokens, part.past):
            self._memory[part.blocks[place // self.block_tokens], place % self.block_tokens] = token
        length = part.past + len(part.tokens)
        tokens = self._memory[list(part.blocks)].reshape(-1)[:length].tolist()
        assert -1 not in tokens
        row = np.zeros(self._width, np.float32)
        said = self._follow(tokens)
        for token, logit in (said if isinstance(said, dict) else {said: 10.0}).items():
            row[token] = logit
        return row


def counting(tokens: list[int]) -> int:
    """After any tokens a letter that depends on all of them."""
    return 97 + sum(tokens) % 26


def worker(runner: FakeRunner, *, context: int = 200, slots: int = 8, prefill: int = 512) -> BatchingWorker:
    return BatchingWorker(runner, byte_vocabulary(), Facts(context=context), slots=slots, prefill=prefill)


def ask(prompt: str = "hello", tokens: int | None = 5, **fields: Any) -> Generation:
    return Generation(prompt=prompt, max_tokens=tokens, **{"temperature": 0, "top_p": 1, **fields})


def answers(worker: BatchingWorker, generations: Sequence[Generation]) -> list[list[Piece]]:
    """All that comes out, each by itself; everything begins at once."""
    for key, generation in enumerate(generations):
        worker.begin(key, generation)
    return drain(worker, len(generations))


def drain(worker: BatchingWorker, count: int) -> list[list[Piece]]:
    said: list[list[Piece]] = [[] for _ in range(count)]
    for _ in range(10_000):
        if not worker.busy:
            return said
        for key, piece in worker.step():
            if isinstance(piece, HTTPFault):
                raise piece
            said[key].append(piece)
    raise AssertionError("it never ends")


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
