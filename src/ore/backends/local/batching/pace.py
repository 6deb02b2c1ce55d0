"""How many tokens of prompts one step takes, so that nobody waits long to be heard: `Pace` learns it from the clock."""

from typing import Final

STEP_SECONDS: Final = 0.08
"""What a step should take at most: a cancel is heard between two steps."""
LEAST: Final = 16
FIRST: Final = 64


class Pace:
    """`most` is the largest budget, in tokens."""

    def __init__(self, most: int) -> None:
        self._most = max(most, LEAST)
        self._budget = float(min(FIRST, self._most))

    @property
    def budget(self) -> int:
        """Tokens of prompts for the next step."""
        return int(self._budget)

    def learn(self, prefilled: int, seconds: float) -> None:
        """A step took so long with so many tokens of prompts in it."""
        if not prefilled or seconds <= 0:
            return
        aimed = prefilled * STEP_SECONDS / seconds
        if seconds > STEP_SECONDS:
            self._budget = max(float(LEAST), min(self._budget, aimed))
        elif prefilled >= self.budget:
            self._budget = min(float(self._most), aimed, self._budget * 1.5)
