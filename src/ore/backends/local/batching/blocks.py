"""Paged memory for keys and values: which blocks a sequence has, and which of them others may use again.

A block holds a fixed number of tokens. A full one has a name: the digest of all tokens up to its end and of the key
that keeps owners apart. So a prompt that begins like another one finds its blocks by name. It refuses to know what lies
in a block: the runner has the tensors.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

NAME_BYTES: Final = 16


class BlockPool:
    """`count` blocks of `tokens` tokens each. Blocks that nobody holds keep their names until they are needed."""

    def __init__(self, count: int, tokens: int) -> None:
        self.count = count
        self.tokens = tokens
        self._empty = list(range(count - 1, -1, -1))
        self._holders = [0] * count
        self._by_name: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._resting: OrderedDict[int, None] = OrderedDict()
        """Named blocks without a holder, the least recently used first."""

    @property
    def available(self) -> int:
        """Blocks that can be taken."""
        return len(self._empty) + len(self._resting)

    def take(self) -> int | None:
        """A block whose content may be overwritten; None when all are held."""
        if self._empty:
            block = self._empty.pop()
        elif self._resting:
            block, _ = self._resting.popitem(last=False)
            del self._by_name[self._names.pop(block)]
        else:
            return None
        self._holders[block] = 1
        return block

    def find(self, name: bytes) -> int | None:
        """The block of that name, held once more."""
        block = self._by_name.get(name)
        if block is not None:
            self._resting.pop(block, None)
            self._holders[block] += 1
        return block

    def name(self, block: int, name: bytes) -> None:
        """Let others find a full block. The first of several with the same content keeps the name."""
        if name not in self._by_name:
            self._by_name[name] = block
            self._names[block] = name

    def release(self, block: int) -> None:
        """One holder fewer."""
        self._holders[block] -= 1
        if self._holders[block]:
            return
        if block in self._names:
            self._resting[block] = None
        else:
            self._empty.append(block)


class BlockTable:
    """The blocks of one sequence, in order."""

    def __init__(self, pool: BlockPool, cache_key: str) -> None:
        self.blocks: list[int] = []
        self._pool = pool
        self._root = _digest(b"", cache_key.encode("utf-8", "surrogatepass"))
        self._names: list[bytes] = []

    def match(self, tokens: Sequence[int], computed: int) -> int:
        """How many tokens are computed, with blocks that another sequence has filled. Never all of `tokens`."""
        size = self._pool.tokens
        if computed != len(self.blocks) * size or computed != len(self._names) * size:
            return computed
        while computed + size < len(tokens):
            name = self._next_name(tokens)
            block = self._pool.find(name)
            if block is None:
                break
            self.blocks.append(block)
            self._names.append(name)
            computed += size
        return computed

    def reserve(self, length: int) -> bool:
        """Have blocks for `length` tokens. False when there are not enough: what could be had is kept."""
        while len(self.blocks) * self._pool.tokens < length:
            block = self._pool.take()
            if block is None:
                return False
            self.blocks.append(block)
        return True

    def publish(self, tokens: Sequence[int], computed: int) -> None:
        """Give names to the blocks that are full now."""
        while (len(self._names) + 1) * self._pool.tokens <= computed:
            name = self._next_name(tokens)
            self._pool.name(self.blocks[len(self._names)], name)
            self._names.append(name)

    def release(self) -> None:
        """Hold none any more. The last block goes first, because it is of no use without those before it."""
        for block in reversed(self.blocks):
            self._pool.release(block)
        self.blocks.clear()
        self._names.clear()

    def _next_name(self, tokens: Sequence[int]) -> bytes:
        size = self._pool.tokens
        start = len(self._names) * size
        before = self._names[-1] if self._names else self._root
        return _digest(before, array("I", tokens[start : start + size]).tobytes())


def _digest(before: bytes, content: bytes) -> bytes:
    return blake2b(before + content, digest_size=NAME_BYTES).digest()
