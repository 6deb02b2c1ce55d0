"""What a client's name for a model stands for, and what happened on the way to its answer. Values, and nothing else."""

from typing import Final, Literal

from msgspec import Struct

from ore.routing.rules import Rule, Target

MOST_NOTES: Final = 32
"""What is remembered of a request's way: one that waits for hours in a queue asks again and again."""


class Route(Struct, frozen=True, kw_only=True):
    """What a client's name for a model stands for. `alias` is that name if the operator gave it."""

    name: str
    targets: tuple[Target, ...]
    rule: Rule = Rule()
    alias: str = ""

    @property
    def first(self) -> Target:
        return self.targets[0]


class Passage(Struct):
    """What happened on the way to an answer, in words for operators; for clients that ask, too."""

    notes: list[str] = []
    cached: Literal["off", "miss", "hit"] = "off"
    """Whether the answer came out of the response cache; `off`: nobody looked."""

    @property
    def said(self) -> str:
        return "; ".join(self.notes)

    def note(self, name: str, what: str) -> None:
        """Add what happened, unless it is what happened last. The oldest is forgotten when it becomes too much."""
        if self.notes[-1:] != [f"{name}: {what}"]:
            self.notes.append(f"{name}: {what}")
            del self.notes[:-MOST_NOTES]
