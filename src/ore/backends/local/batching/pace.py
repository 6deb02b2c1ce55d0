"""How many tokens of prompts one step takes, so that nobody waits long to be heard: `Pace` learns it from the clock."""

from typing import Final

STEP_SECONDS: Final = 0.08
"""What a step should take at most: a cancel is heard between two steps."""
WORTH: Final = 2.0
"""A step with tokens of prompts may take so many times what one without them takes. The weights have to be read in each
step, however few tokens it has: where that alone takes long, small steps would do little else."""
LEAST: Final = 16
FIRST: Final = 64
_WEIGHT: Final = 0.2


class Pace:
    """`most` is the largest budget, in tokens."""

    def __init__(self, most: int) -> None:
        self._most = max(most, LEAST)
        self._budget = float(min(FIRST, self._most))
        self._bare = 0.0
        """Seconds of a step without tokens of prompts."""

    @property
    def budget(self) -> int:
        """Tokens of prompts for the next step."""
        return int(self._budget)

    def learn(self, prefilled: int, seconds: float) -> None:
        """A step took so long with so many tokens of prompts in it."""
        if seconds <= 0:
            return
        if not prefilled:
            self._bare += _WEIGHT * (seconds - self._bare) if self._bare else seconds
            return
        goal = max(STEP_SECONDS, WORTH * self._bare)
        aimed = prefilled * goal / seconds
        if seconds > goal:
            self._budget = max(float(LEAST), min(self._budget, aimed))
        elif prefilled >= self.budget:
            self._budget = min(float(self._most), aimed, self._budget * 1.5)
