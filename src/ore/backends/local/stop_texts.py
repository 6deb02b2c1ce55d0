"""Finds `stop` texts in what is sampled, and holds back what could be the beginning of one.

It refuses to know tokens: a text may begin in one and end in another.
"""

from typing import Final

Held = list[tuple[str, int]]
"""What is held back: texts as they came, each with whatever number its owner knows it by."""


class StopTexts:
    """`feed` each text with a number; what comes back is certain. `hit` once a stop text came, and nothing after it."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts: Final = tuple(filter(None, texts))
        self._held: Held = []
        self.hit = False

    def feed(self, text: str, number: int) -> Held:
        """Texts that no stop text begins in, in the order in which they came."""
        if not self._texts:
            return [(text, number)]
        self._held.append((text, number))
        whole = "".join(held for held, _ in self._held)
        places = [place for stop in self._texts if (place := whole.find(stop)) >= 0]
        if places:
            self.hit = True
            taken = self._take(min(places), cut=True)
            self._held.clear()
            return taken
        return self._take(len(whole) - self._begun(whole), cut=False)

    def rest(self) -> Held:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, []
        return held

    @property
    def holds(self) -> bool:
        """Whether some text has not come out yet."""
        return any(text for text, _ in self._held)

    def _begun(self, whole: str) -> int:
        """Characters at the end that could be the beginning of a stop text."""
        longest = max(map(len, self._texts), default=1) - 1
        return next(
            (
                size
                for size in range(min(longest, len(whole)), 0, -1)
                if any(stop.startswith(whole[-size:]) for stop in self._texts)
            ),
            0,
        )

    def _take(self, size: int, *, cut: bool) -> Held:
        """What lies before a place; a text that reaches over it is cut there, or stays."""
        taken: Held = []
        while self._held and size > 0:
            text, number = self._held[0]
            if len(text) > size and not cut:
                break
            taken.append((text[:size], number))
            size -= len(text)
            self._held.pop(0)
        return taken
