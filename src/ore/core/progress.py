"""How far a run has come: what another process has to know, beside the events, to go on with it."""

from msgspec import Struct, field

from ore.core.deltas import Usage


class PendingCall(Struct):
    """A call of a tool that runs here, which the model made in a turn that is over, and which has no outcome yet."""

    call_id: str
    name: str
    arguments: str = ""
    again: bool = False
    """Whether it was begun once before, by a process that died."""


class Progress(Struct):
    """Noted whenever a turn or a call is over, together with the events of it."""

    usage: Usage | None = None
    """Of all samplings that are over; None before the first."""
    turns: int = 0
    calls: list[PendingCall] = field(default_factory=list)
    made: int = 0
    """Calls made by tools that run here."""
    first: int = 0
    """Where in `output` the turn begins that is going on, or comes next."""
    service_tier: str | None = None
    """The tier that the last upstream used, if it said so."""
    target: str = ""
    """Who answers the turn that is going on, once anything was said: only the same one can tell it again."""
    ended: str | None = None
    """Why the model stopped, once no further turn follows."""

    def add(self, usage: Usage) -> None:
        """Count a sampling that is over."""
        self.usage = usage if self.usage is None else self.usage + usage
