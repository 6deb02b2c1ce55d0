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
    """An event without what may differ. The pieces of a text are one, in `text`."""

    said: Any
    text: str


class Retrace:
    """Passes deltas on from the point at which the earlier telling broke off.

    `seen` are the events of the response so far, and `first` is where in its output the turn begins.
    """

    def __init__(self, seen: Sequence[e.Event], first: int) -> None:
        self._left: deque[_Seen] = deque()
        self._first = first
        for event in seen:
            if getattr(event, "output_index", -1) >= first:
                self._add(_seen(event, first))
        self._told: list[e.Event] = []
        self._shadow = ResponseWriter(lambda _: "", self._told.append)
        self._shadow.begin(Response(id="", created_at=0, status="in_progress", model=""))

    def _add(self, seen: _Seen) -> None:
        if self._left and seen.text and self._left[-1].said == seen.said:
            self._left[-1].text += seen.text
        else:
            self._left.append(seen)

    def feed(self, delta: deltas.Delta) -> deltas.Delta | None:
        """The delta, or what of it is new; None when all of it was seen. Raises `Diverged`."""
        if not self._left:
            return delta
        self._told.clear()
        self._shadow.write(delta)
        for event in self._told:
            rest = self._match(_seen(event, 0))
            if rest:
                fields = {"text": rest, "logprobs": ()} if isinstance(delta, deltas.Text) else {"text": rest}
                return msgspec.structs.replace(delta, **fields)
        begins_unseen = isinstance(delta, deltas.ToolCall) and delta.kind in NATIVE_CALLS and not self._left
        return delta if begins_unseen else None  # a native call has no event of its own until it closes

    def _match(self, told: _Seen) -> str:
        """Strike off what was seen; what of a text is new."""
        if not self._left or self._left[0].said != told.said:
            raise Diverged
        seen = self._left[0]
        if seen.text.startswith(told.text) and seen.text != told.text:
            seen.text = seen.text[len(told.text) :]
            return ""
        self._left.popleft()
        if seen.text != told.text and (self._left or not told.text.startswith(seen.text)):
            raise Diverged
        return told.text[len(seen.text) :]


def _seen(event: e.Event, first: int) -> _Seen:
    said: dict[str, Any] = msgspec.to_builtins(event)
    said["output_index"] -= first
    said["type"] = _SAME.get(said["type"], said["type"])
    is_text = str(said["type"]).endswith(".delta")
    return _Seen(_bare(said), str(said.pop("delta")) if is_text else "")


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
