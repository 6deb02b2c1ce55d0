"""Looks for stop texts in text that comes piece by piece. It holds back what may yet become one."""


class StopTexts:
    """`texts` are what ends an answer; the earliest one counts, and does not come out."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What is certain now."""
        if not self._texts:
            return text
        held = self._held + text
        places = [place for stop in self._texts if (place := held.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return held[: min(places)]
        certain = len(held) - max(_overlap(held, stop) for stop in self._texts)
        self._held = held[certain:]
        return held[:certain]

    def finish(self) -> str:
        """What was held back in vain."""
        held, self._held = self._held, ""
        return held

    @property
    def holds(self) -> bool:
        """Whether some text has not come out yet."""
        return bool(self._held)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
