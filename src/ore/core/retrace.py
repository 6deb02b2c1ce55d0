"""Going on with a turn that another process half told: the model is asked again, and what it repeats is passed over.

Clients have seen the beginning, and events cannot be taken back; so a turn can be continued only as long as the model
says the same again. It does where sampling is repeatable: a seed, or no chance at all. Where it says something else,
`Diverged` is raised, and the run has to fail. Nothing is guessed or patched.

What is told again is written to a writer in the shadow, and its events are held against those that were seen, but for
ids, numbers, logprobs, and where a text was cut into pieces.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ore.core import deltas
from ore.core.native_tools import NATIVE_CALLS
from ore.core.writer import ResponseWriter
from ore.protocol import events as e
from ore.protocol.responses import Response


class Diverged(Exception):
    """The model says something else than the first time."""


class _Seen(Struct):
    """An event without what may differ. The pieces of a text are one; `told` is how far it has been told again."""

    said: Any
    pieces: list[str]
    told: int = 0

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class Retrace:
    """Passes deltas on from the point at which the earlier telling broke off.

    `seen` are the events of the response so far, and `first` is where in its output the turn begins.
    """

    def __init__(self, seen: Sequence[e.Event], first: int) -> None:
        self._left: deque[_Seen] = deque()
        for event in seen:
            if getattr(event, "output_index", -1) >= first:
                self._add(_seen(event, first))
        self._told: list[e.Event] = []
        self._shadow = ResponseWriter(lambda _: "", self._told.append)
        if self._left:
            self._shadow.begin(Response(id="", created_at=0, status="in_progress", model=""))

    def _add(self, seen: _Seen) -> None:
        if self._left and seen.text and self._left[-1].said == seen.said:
            self._left[-1].pieces += seen.pieces
        else:
            self._left.append(seen)

    def feed(self, delta: deltas.Delta) -> deltas.Delta | None:
        """The delta, or what of it is new; None when all of it was seen. Raises `Diverged`."""
        if not self._left:
            return delta
        self._told.clear()
        self._shadow.write(delta)
        for event in self._told:
            if not self._left and not _is_delta(event):
                return delta  # what was open is closed by now; the rest of it is new
            rest = self._match(_seen(event, 0))
            if rest:
                fields = {"text": rest, "logprobs": ()} if isinstance(delta, deltas.Text) else {"text": rest}
                return msgspec.structs.replace(delta, **fields)
        return delta if not self._left and _begins_unseen(delta) else None

    @property
    def over(self) -> bool:
        """Whether all that was seen is told."""
        return not self._left

    def close(self) -> None:
        """The model's item is closed without a delta that says so. Raises `Diverged`."""
        if not self._left:
            return
        self._told.clear()
        self._shadow.close()
        for event in self._told:
            if self._left:
                self._match(_seen(event, 0))

    def _match(self, told: _Seen) -> str:
        """Strike off what was seen; what of a text is new."""
        if not self._left or self._left[0].said != told.said:
            raise Diverged
        seen, text = self._left[0], told.text
        left = len(seen.text) - seen.told
        if len(text) < left and seen.text.startswith(text, seen.told):
            seen.told += len(text)
            return ""
        self._left.popleft()
        if not text.startswith(seen.text[seen.told :]) or (len(text) > left and self._left):
            raise Diverged
        return text[left:]


def _begins_unseen(delta: deltas.Delta) -> bool:
    """Whether it begins something that has no event of its own yet."""
    return isinstance(delta, deltas.Begin) or (isinstance(delta, deltas.ToolCall) and delta.kind in NATIVE_CALLS)


def _seen(event: e.Event, first: int) -> _Seen:
    said: dict[str, Any] = event.on_the_wire() if isinstance(event, e.PassedOn) else msgspec.to_builtins(event)
    said["output_index"] -= first
    said["type"] = _SAME.get(said["type"], said["type"])
    return _Seen(_bare(said), [str(said["delta"]) if _is_delta(event) else ""])


def _is_delta(event: e.Event) -> bool:
    return hasattr(event, "delta")


_SAME = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}
"""Two names for one thing: the first telling may have been on another wire."""

_DIFFERS = frozenset({"id", "item_id", "call_id", "sequence_number", "logprobs", "encrypted_content", "delta"})


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(entry) for key, entry in value.items() if key not in _DIFFERS}
    return [_bare(entry) for entry in value] if isinstance(value, list) else value
