"""What is remembered of a target: whether it is worth asking, how soon it begins to answer, what it may be retried.

The circuit breaker of Nygard's "Release It!": closed, open for a while after failures in a row, then half open for one
probe. Pure bookkeeping by a clock that is handed in; it asks nobody and knows no error classes.
"""

from typing import Final

FAILURES_TO_OPEN: Final = 5
"""Failures in a row after which a target is left alone for a while."""

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 60.0
"""Seconds that a target is left alone; twice as long after each probe that fails."""

LONGEST_OBEYED: Final = 600.0
"""Seconds of a target's `Retry-After` that are obeyed."""

RETRY_SHARE: Final = 0.1
MOST_RETRIES: Final = 10.0
"""Retries may be a tenth of a target's requests, and ten at once: more would keep one that is down from getting up."""

_WEIGHT: Final = 0.2


class Breaker:
    """One target's. Times are in seconds, by one clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._closed_from = 0.0
        self._probing_until = 0.0
        self._budget = MOST_RETRIES
        self.first_delta_seconds = 0.0
        """How long it takes to say its first word, on average; 0 before it has."""

    def seconds_left(self, now: float) -> float:
        """How long the target is to be left alone; 0: ask it."""
        return max(0.0, self._closed_from - now, self._probing_until - now)

    @property
    def is_open(self) -> bool:
        """Whether it has failed so often that it is left alone, or only probed."""
        return self._failures >= FAILURES_TO_OPEN

    def asked(self, now: float) -> None:
        """It is asked. One that has failed too often is asked once, until that one answer is known."""
        self._budget = min(MOST_RETRIES, self._budget + RETRY_SHARE)
        if self.is_open:
            self._probing_until = now + self._pause

    def answered(self, first_delta_seconds: float | None) -> None:
        """It began to answer, so many seconds after it was asked; None: nobody measured."""
        self._failures, self._pause = 0, FIRST_PAUSE
        self._closed_from = self._probing_until = 0.0
        if first_delta_seconds is not None:
            known = self.first_delta_seconds or first_delta_seconds
            self.first_delta_seconds = known + _WEIGHT * (first_delta_seconds - known)

    def failed(self, now: float) -> None:
        """It did not answer, or broke off."""
        self._failures += 1
        self._probing_until = 0.0
        if self.is_open:
            self._closed_from = max(self._closed_from, now + self._pause)
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def asks_for_pause(self, now: float, seconds: float) -> None:
        """It said when to come again (`Retry-After`)."""
        self._probing_until = 0.0
        self._closed_from = max(self._closed_from, now + min(seconds, LONGEST_OBEYED))

    def left_unknown(self) -> None:
        """Nobody heard what came of it: the client left."""
        self._probing_until = 0.0

    def may_retry(self) -> bool:
        """Take one retry out of the budget, if there is one."""
        if self._budget < 1:
            return False
        self._budget -= 1
        return True
