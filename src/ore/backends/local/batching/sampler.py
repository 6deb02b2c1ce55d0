"""From a row of logits to a token: penalties, grammar, temperature, nucleus, logprobs.

Rows are numpy arrays of 32-bit floats, one value for each token of the model. It refuses to see tokens that the
vocabulary does not have, and, while a grammar holds, those that the grammar does not allow.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ore.backends.base import JsonObject
from ore.backends.local.batching.vocabulary import Vocabulary
from ore.backends.local.engine import Generation
from ore.errors import ModelFailed

Row = Any
"""An array of 32-bit floats. (Where numpy is not installed, a type checker does not know it.)"""

OWN_TAIL: Final = 50
"""Tokens that are looked at when the distribution is the model's own; transformers cuts there too."""
HEAD: Final = 1024
"""Tokens among which a nucleus is looked for before all are sorted."""


class Sampler:
    """The sampling of one sequence: its random numbers, its grammar's state, and what it has said so far."""

    def __init__(self, generation: Generation, vocabulary: Vocabulary, matcher: Any | None = None) -> None:
        self.matcher = matcher
        self._generation = generation
        self._vocabulary = vocabulary
        self._random = np.random.default_rng(generation.seed if generation.seed is None else generation.seed % 2**64)
        self._said: Counter[int] = Counter()
        self._penalised = bool(generation.presence_penalty or generation.frequency_penalty)

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is wanted, with nothing else to look at."""
        return (
            self._generation.temperature <= 0
            and not self._penalised
            and self.matcher is None
            and self._generation.alternatives is None
        )

    @property
    def stopped(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self.matcher is not None and bool(self.matcher.is_stopped())

    def pick(self, row: Row) -> tuple[int, JsonObject | None]:
        """The next token, and its logprob entry if those are wanted. Writes into `row`. Raises `ModelFailed`."""
        wanted = self._generation.alternatives
        known = None if wanted is None else Logprobs(row, wanted, self._vocabulary)
        if self._penalised:
            self._penalise(row)
        if self.matcher is not None:
            self._hold(row)
        token = int(row.argmax()) if self._generation.temperature <= 0 else self._draw(row)
        return token, None if known is None else known.entry(token)

    def accept(self, token: int) -> None:
        """Go on from a token. Raises `ModelFailed` where the grammar does not."""
        if self._penalised:
            self._said[token] += 1
        if self.matcher is not None and not self.matcher.consume_token(token):
            raise stuck()

    def forced(self, most: int) -> list[int]:
        """Tokens that alone may follow, at most so many; they are yet to be accepted."""
        if self.matcher is None or self._generation.alternatives is not None or most <= 0 or self.stopped:
            return []
        tokens: list[int] = self.matcher.compute_ff_tokens()[:most]
        return tokens[: self.matcher.validate_tokens(tokens)] if tokens else []

    def _penalise(self, row: Row) -> None:
        if not self._said:
            return
        tokens = np.fromiter(self._said, np.int64, len(self._said))
        counts = np.fromiter(self._said.values(), np.float32, len(self._said))
        row[tokens] -= self._generation.presence_penalty + counts * self._generation.frequency_penalty

    def _hold(self, row: Row) -> None:
        allowed = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)  # type: ignore[union-attr]
        if self.matcher.is_error():  # type: ignore[union-attr]
            raise stuck()
        bits = np.unpackbits(allowed, count=min(len(row), 8 * len(allowed)), bitorder="little")
        row[: len(bits)][bits == 0] = -np.inf
        row[len(bits) :] = -np.inf

    def _draw(self, row: Row) -> int:
        asked = self._generation
        top = float(row.max())
        if asked.own_distribution:
            tokens = _largest(row, OWN_TAIL)
        elif asked.top_p < 1:
            tokens = _largest(row, HEAD)
        else:
            tokens = np.arange(len(row))
        weights = _weights(row[tokens], top, asked.temperature)
        whole = weights.sum()
        if asked.top_p < 1 and not asked.own_distribution and len(tokens) < len(row):
            whole = _weights(row, top, asked.temperature).sum()
            if weights.sum() < asked.top_p * whole:
                tokens = _largest(row, len(row))
                weights = _weights(row[tokens], top, asked.temperature)
        mass = np.cumsum(weights)
        last = int(np.searchsorted(mass, asked.top_p * whole)) if asked.top_p < 1 else len(mass) - 1
        last = min(last, len(mass) - 1)
        place = int(np.searchsorted(mass[: last + 1], self._random.random() * mass[last], side="right"))
        return int(tokens[min(place, last)])


class Logprobs:
    """What the model itself thinks of the next token, before penalties, grammar and temperature."""

    def __init__(self, row: Row, alternatives: int, vocabulary: Vocabulary) -> None:
        self._row = row.copy()
        self._vocabulary = vocabulary
        self._alternatives = alternatives
        self._whole = _log_sum(self._row)

    def entry(self, token: int) -> JsonObject:
        """In the wire's shape (section 6)."""
        others = _largest(self._row, self._alternatives) if self._alternatives else ()
        return {**self._bare(token), "top_logprobs": [self._bare(int(other)) for other in others]}

    def _bare(self, token: int) -> JsonObject:
        logprob = max(float(self._row[token]) - self._whole, -9999.0)
        piece = self._vocabulary.pieces[token]
        return {"token": self._vocabulary.text_of(token), "logprob": logprob, "bytes": list(piece)}


def pick_all(
    samplers: Sequence[Sampler], rows: Row, vocabulary: Vocabulary
) -> list[tuple[int, JsonObject | None] | ModelFailed]:
    """The next token of each; `rows` has one row for each sampler, and is written into."""
    rows[:, vocabulary.size :] = -np.inf
    picked: list[tuple[int, JsonObject | None] | ModelFailed] = []
    likeliest = rows.argmax(axis=1) if any(sampler.is_plain for sampler in samplers) else None
    for i, sampler in enumerate(samplers):
        if likeliest is not None and sampler.is_plain:
            picked.append((int(likeliest[i]), None))
            continue
        try:
            picked.append(sampler.pick(rows[i]))
        except ModelFailed as failure:
            picked.append(failure)
    return picked


def stuck() -> ModelFailed:
    return ModelFailed("The model could not go on within the grammar of this request. Simplify its schemas.")


def _largest(row: Row, count: int) -> Any:
    """The tokens with the largest logits, the largest first."""
    if count >= len(row):
        return np.argsort(-row, kind="stable")
    tokens = np.argpartition(row, len(row) - count)[len(row) - count :]
    return tokens[np.argsort(-row[tokens], kind="stable")]


def _weights(logits: Row, top: float, temperature: float) -> Any:
    return np.exp((logits.astype(np.float64) - top) / temperature)


def _log_sum(row: Row) -> float:
    top = float(row.max())
    return top + float(np.log(np.exp(row - top, dtype=np.float64).sum()))
