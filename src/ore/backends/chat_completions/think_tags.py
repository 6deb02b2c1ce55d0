"""Tells reasoning between think tags from the text after it, however the stream is cut.

For servers that leave the tags of a model in its text. Only tags that the text begins with count: later ones are what
the model talks about.
"""

from typing import Final

from ore.backends.markers import certain

THINK_TAGS: Final = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
}


class ThinkTags:
    """Pieces in; out come (is reasoning, text)."""

    def __init__(self) -> None:
        self._held = ""
        self._close = ""
        self._fresh = False
        self._out: list[tuple[bool, str]] = []
        self._state = self._begin

    def feed(self, piece: str) -> list[tuple[bool, str]]:
        """What is certain now."""
        self._held += piece
        while self._state():
            pass
        out, self._out = self._out, []
        return out

    def end(self) -> list[tuple[bool, str]]:
        """What was held back."""
        held, self._held = self._held, ""
        return [(self._state == self._think, held)] if held else []

    # Each state takes what it can, and says whether there may be more to do at once.

    def _begin(self) -> bool:
        start = self._held.lstrip()
        tag = next((tag for tag in THINK_TAGS if start.startswith(tag)), None)
        if tag is not None:
            self._held, self._close = start[len(tag) :], THINK_TAGS[tag]
            self._state, self._fresh = self._think, True
            return True
        if any(tag.startswith(start) for tag in THINK_TAGS):
            return False
        self._state = self._text
        return True

    def _think(self) -> bool:
        self._refresh()
        at = self._held.find(self._close)
        self._give(certain(self._held, self._close) if at < 0 else at, reasoning=True)
        if at < 0:
            return False
        self._held, self._state, self._fresh = self._held[len(self._close) :], self._text, True
        return True

    def _text(self) -> bool:
        self._refresh()
        self._give(len(self._held), reasoning=False)
        return False

    def _refresh(self) -> None:
        """Empty lines right after a tag are layout."""
        if self._fresh:
            self._held = self._held.lstrip("\n")
            self._fresh = not self._held

    def _give(self, size: int, *, reasoning: bool) -> None:
        if size:
            self._out.append((reasoning, self._held[:size]))
            self._held = self._held[size:]
