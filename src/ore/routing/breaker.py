"""What is remembered of a target: whether it is worth asking, how soon it begins to answer, what it may be retried.

The circuit breaker of Nygard's "Release It!": closed, open for a while after failures in a row, then half open for one
probe. Pure bookkeeping by a clock that is handed in; it asks nobody and knows no error classes.
"""

import math
from collections import Counter, OrderedDict
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""Failures in a row after which a target is left alone for a while."""

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 60.0
"""Seconds that a target is left alone; twice as long after each probe that fails."""

PROBE_SECONDS: Final = 5.0
"""How long a probe has its target to itself."""

LONGEST_OBEYED: Final = 600.0
"""Seconds of a target's `Retry-After` that are obeyed."""

RETRY_SHARE: Final = 0.1
MOST_RETRIES: Final = 10.0
"""Retries may be a tenth of a target's requests, and ten at once: more would keep one that is down from getting up."""

MOST_REMEMBERED: Final = 4096
"""Targets that are remembered: clients may ask a provider for models that it does not have."""

HALF_LIFE: Final = 30.0
"""Seconds in which half of a measured time is forgotten: one that was slow is asked again after a while."""

_WEIGHT: Final = 0.2


class Breaker:
    """One target's. Times are in seconds, by one clock. `label` is the target's name for metrics."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._asked_off_until = 0.0
        self._probing_until = 0.0
        self._budget = MOST_RETRIES
        self._first_delta_seconds = 0.0
        self._measured_at = 0.0

    def seconds_left(self, now: float) -> float:
        """How long the target is to be left alone; 0: ask it."""
        return max(0.0, max(self._open_until, self._asked_off_until, self._probing_until) - now)

    def first_delta_seconds(self, now: float) -> float:
        """How long it takes to say its first word, on average; the less, the longer ago that was measured."""
        half_lives = (now - self._measured_at) / HALF_LIFE
        return self._first_delta_seconds * math.exp2(-half_lives)

    @property
    def is_open(self) -> bool:
        """Whether it has failed so often that it is left alone, or only probed."""
        return self._failures >= FAILURES_TO_OPEN

    def asked(self, now: float, *, again: bool = False) -> None:
        """It is asked; `again`, by a request that it has failed before, which takes one retry out of the budget.

        One that has failed too often is asked once, until that one answer is known.
        """
        self._budget = self._budget - 1 if again else min(MOST_RETRIES, self._budget + RETRY_SHARE)
        if self.is_open:
            self._probing_until = now + PROBE_SECONDS

    def began(self, now: float, first_delta_seconds: float) -> None:
        """It began to answer, so many seconds after it was asked: others may ask, and one more failure is too many."""
        self._failures = min(self._failures, FAILURES_TO_OPEN - 1)
        self._open_until = self._probing_until = 0.0
        known = self._first_delta_seconds or first_delta_seconds
        self._first_delta_seconds = known + _WEIGHT * (first_delta_seconds - known)
        self._measured_at = now

    def answered(self) -> None:
        """It answered to the end: its failures are forgotten."""
        self._failures, self._pause = 0, FIRST_PAUSE
        self._open_until = self._probing_until = 0.0

    def failed(self, now: float) -> None:
        """It did not answer, or broke off. Those that were asked before it was left alone make that no longer."""
        self._failures += 1
        self._probing_until = 0.0
        if self.is_open and now >= self._open_until:
            self._open_until = now + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def asks_for_pause(self, now: float, seconds: float) -> None:
        """It said when to come again (`Retry-After`). That holds, whoever is still being answered."""
        self._probing_until = 0.0
        self._asked_off_until = max(self._asked_off_until, now + min(seconds, LONGEST_OBEYED))

    def left_unknown(self) -> None:
        """Nobody heard whether it is well: the client left, or it was not asked after all."""
        self._probing_until = 0.0

    @property
    def may_retry(self) -> bool:
        """Whether there is a retry in the budget."""
        return self._budget >= 1


class Breakers:
    """Those of all targets, by name. Targets that were asked longest ago are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, name: str, label: str = "") -> Breaker:
        """A target's; it stays the same one as long as the target is asked now and then."""
        found = self._known.pop(name, None) or Breaker(label)
        self._known[name] = found
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found

    def resting(self, now: float) -> Counter[str]:
        """How many targets are to be left alone, by label; 0 for a label all of whose targets may be asked."""
        found = Counter[str]()
        for breaker in self._known.values():
            found[breaker.label] += breaker.seconds_left(now) > 0
        return found
