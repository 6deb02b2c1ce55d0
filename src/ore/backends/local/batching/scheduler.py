"""Continuous batching over a `Runner`: `BatchingWorker`, a `Worker` for engines that give logits.

In each step every sequence that has begun gets one token, and prompts are read in parts beside them. Whoever came first
goes first; where blocks run out, whoever came last gives its own up and is computed again later. It refuses to know
what a model is.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final

from ore.backends.local.batching.blocks import BlockPool
from ore.backends.local.batching.pace import Pace
from ore.backends.local.batching.runner import Runner, Slice
from ore.backends.local.batching.sampler import Sampler, pick_all
from ore.backends.local.batching.sequence import Asked, Sequence
from ore.backends.local.batching.vocabulary import Vocabulary
from ore.backends.local.engine import Facts, Generation, Piece
from ore.backends.local.faults import context_exceeded
from ore.errors import HTTPFault

Said = tuple[int, Piece | HTTPFault]

FORCED: Final = 32
"""Tokens that a sequence may have ahead and still count as decoding: those that its grammar forced."""
GRAMMAR_WAIT: Final = 0.02
"""Seconds that a step waits for a grammar when there is nothing else to do."""


class BatchingWorker:
    """A `Worker`. `prefill` is how many tokens of prompts a step takes at most, `clock` is in seconds.

    `reuses` says whether blocks that one sequence has filled spare another the computing.
    """

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        facts: Facts,
        *,
        slots: int,
        prefill: int = 512,
        reuses: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._vocabulary = vocabulary
        self._facts = facts
        self._slots = slots
        self._reuses = reuses
        self._clock = clock
        self._pool = BlockPool(runner.block_count, runner.block_tokens)
        self._pace = Pace(prefill)
        self._grammars = ThreadPoolExecutor(1, "grammar")
        self._preparing: dict[int, tuple[Asked, Future[Any]]] = {}
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    def facts(self) -> Facts:
        return self._facts

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self._vocabulary.encode(text, add_special=add_special, parse_special=parse_special)

    def begin(self, key: int, generation: Generation) -> None:
        """Grammars are compiled beside the steps: one that is large holds nobody else up."""
        prompt = self.tokenize(generation.prompt, add_special=True, parse_special=True)
        if len(prompt) >= self._facts.context:
            raise context_exceeded(len(prompt), self._facts.context)
        asked = Asked(key, generation, prompt)
        if generation.grammar:
            self._preparing[key] = asked, self._grammars.submit(self._vocabulary.matcher, generation.grammar)
        else:
            self._waiting.append(self._sequence(asked, None))

    def cancel(self, key: int) -> None:
        """Its blocks are free at once."""
        self._preparing.pop(key, None)
        self._waiting = deque(sequence for sequence in self._waiting if sequence.key != key)
        for sequence in self._running:
            if sequence.key == key:
                self._drop(sequence)
                return

    @property
    def busy(self) -> bool:
        return bool(self._preparing or self._waiting or self._running)

    @property
    def free_blocks(self) -> int:
        return self._pool.available

    def step(self) -> Iterable[Said]:
        """As `Worker.step`."""
        began = self._clock()
        said = list(self._prepared())
        self._admit()
        batch, prefilled = self._plan()
        if batch:
            said += self._work(batch)
            self._pace.learn(prefilled, self._clock() - began)
        return said

    def _sequence(self, asked: Asked, matcher: Any | None) -> Sequence:
        generation = asked.generation
        most = generation.max_tokens
        context = self._facts.context
        limit = context if most is None else min(context, len(asked.prompt) + max(1, most))
        sampler = Sampler(generation, self._vocabulary, matcher)
        return Sequence(asked.key, generation, asked.prompt, limit, sampler, self._vocabulary, self._pool)

    def _prepared(self) -> Iterator[Said]:
        """Grammars that are ready let their sequences wait for their turn; those that are none end them."""
        if self._preparing and not self._waiting and not self._running:
            wait([future for _, future in self._preparing.values()], GRAMMAR_WAIT, "FIRST_COMPLETED")
        ready = [asked for asked, future in self._preparing.values() if future.done()]
        for asked in ready:
            _, future = self._preparing.pop(asked.key)
            try:
                sequence = self._sequence(asked, future.result())
            except HTTPFault as fault:
                yield asked.key, fault
                continue
            if sequence.sampler.stopped:
                yield asked.key, sequence.end("stop")
            else:
                self._waiting.append(sequence)

    def _admit(self) -> None:
        """Let those who wait begin, in order, while there is room for their prompts."""
        room = self._pool.available - sum(self._lacks(sequence) for sequence in self._running)
        while self._waiting and len(self._running) < self._slots:
            room -= self._lacks(self._waiting[0])
            if self._running and room < 0:
                return
            self._running.append(self._waiting.popleft())
            self._running.sort(key=lambda each: each.key)

    def _lacks(self, sequence: Sequence) -> int:
        """Blocks that it needs for its tokens and one more, and does not have."""
        return -(-(len(sequence.tokens) + 1) // self._pool.tokens) - len(sequence.table.blocks)

    def _plan(self) -> tuple[list[tuple[Sequence, int]], int]:
        """Who is computed in this step, with how many tokens; and how many of those are of prompts."""
        batch: list[tuple[Sequence, int]] = []
        budget = left = self._pace.budget
        for sequence in list(self._running):
            if sequence not in self._running:
                continue  # it gave up its blocks for one before it
            decodes = bool(sequence.said) and sequence.ahead <= FORCED
            if not decodes and left <= 0:
                continue
            if self._reuses:
                sequence.reuse()
            count = sequence.ahead if decodes else min(sequence.ahead, left)
            if not self._reserve(sequence, sequence.computed + count):
                continue
            left -= 0 if decodes else count
            batch.append((sequence, count))
        return batch, budget - left

    def _reserve(self, sequence: Sequence, length: int) -> bool:
        while not sequence.table.reserve(length):
            last = self._running.pop()
            last.step_back()
            self._waiting.appendleft(last)
            if last is sequence:
                return False
        return True

    def _work(self, batch: list[tuple[Sequence, int]]) -> Iterator[Said]:
        slices = [_slice(sequence, count) for sequence, count in batch]
        rows = self._runner.forward(slices)
        for sequence, count in batch:
            sequence.advance(count)
        sampling = [sequence for sequence, _ in batch if not sequence.ahead]
        if sampling:
            yield from self._sample(sampling, rows)

    def _sample(self, sampling: list[Sequence], rows: Any) -> Iterator[Said]:
        picked = pick_all([sequence.sampler for sequence in sampling], rows, self._vocabulary)
        for sequence, choice in zip(sampling, picked, strict=True):
            try:
                if isinstance(choice, HTTPFault):
                    raise choice
                piece = sequence.take(*choice)
            except HTTPFault as fault:
                self._drop(sequence)
                yield sequence.key, fault
                continue
            if piece is not None:
                if piece.end is not None:
                    self._drop(sequence)
                yield sequence.key, piece

    def _drop(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        sequence.table.release()


def _slice(sequence: Sequence, count: int) -> Slice:
    past = sequence.computed
    tokens = sequence.tokens[past : past + count]
    return Slice(tokens, past, sequence.table.blocks, wants_logits=count == sequence.ahead)
