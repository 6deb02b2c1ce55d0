"""What a connection remembers of its responses (wire contract, 10.5), so that unstored ones can be continued.

It holds the newest response of each lane and no other, and ends with its connection. What is stored is for the store to
remember, and to forget when it is deleted.
"""

from msgspec.json import decode

from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.runs.run import Run


class Memory:
    """Whole conversations, by the id of their last response. Items that turns share are held once."""

    def __init__(self) -> None:
        self._newest: dict[str | None, tuple[str, tuple[JsonObject, ...]]] = {}

    def items(self, response_id: str) -> tuple[JsonObject, ...] | None:
        """All that the model saw and said, oldest first."""
        return next((items for known, items in self._newest.values() if known == response_id), None)

    def keep(self, lane: str | None, run: Run) -> None:
        """In the place of what the lane had before; of a stored response nothing."""
        if run.create.store:
            self._newest.pop(lane, None)
            return
        output: list[JsonObject] = decode(encode(run.response.output))
        self._newest[lane] = (run.id, (*run.context.items, *output))

    def forget(self, response_id: str | None) -> None:
        """Idempotent."""
        self._newest = {lane: kept for lane, kept in self._newest.items() if kept[0] != response_id}
