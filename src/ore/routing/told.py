"""What was told of an answer, for another target to go on with it. It only listens, and words the request."""

from typing import Final

import msgspec

from ore.backends.base import BYTES_PER_TOKEN, ModelRequest
from ore.core.deltas import Annotation, Begin, Delta, Finish, Reasoning, ReasoningState, ReasoningSummary, Text
from ore.protocol.decoding import JsonObject

GO_ON: Final = (
    "Your answer broke off here. Go on with it exactly where it stopped: repeat nothing, and say nothing about this."
)

_SPOKEN: Final = (Text, Reasoning, ReasoningSummary)
"""What costs tokens."""

_CONTINUABLE: Final = (*_SPOKEN, Annotation, Begin, ReasoningState)


class Told:
    """The deltas of an answer so far, of all who gave it."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []

    def hear(self, delta: Delta) -> None:
        self._deltas.append(delta)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self._deltas if isinstance(delta, Text))

    def may_be_continued(self, request: ModelRequest) -> bool:
        """Whether another model can go on: with text, and not in the middle of a call or of JSON."""
        said = all(isinstance(delta, _CONTINUABLE) for delta in self._deltas)
        return said and (request.text_format["type"] == "text" or not self.text)

    def continued(self, request: ModelRequest) -> ModelRequest:
        """The request with what clients have seen of the answer, for whoever goes on with it."""
        if not self._deltas:
            return request
        request = msgspec.structs.replace(request, max_output_tokens=self._still_allowed(request.max_output_tokens))
        text = self.text
        if not text:
            return request
        said: JsonObject = {"type": "output_text", "text": text, "annotations": []}
        items = (
            *request.items,
            {"type": "message", "role": "assistant", "status": "incomplete", "content": [said]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": GO_ON}]},
        )
        return msgspec.structs.replace(request, items=items)

    def _still_allowed(self, tokens: int | None) -> int | None:
        """What is left of a limit after what was said, about; at least one token, for nobody can be asked for none."""
        said = sum(len(delta.text) for delta in self._deltas if isinstance(delta, _SPOKEN))
        return tokens and max(1, tokens - said // BYTES_PER_TOKEN)


def is_visible(delta: Delta) -> bool:
    """Whether a client sees anything of it: the writer says nothing of what is empty."""
    if isinstance(delta, Begin | Finish):
        return False
    return (
        not isinstance(delta, _CONTINUABLE)
        or getattr(delta, "text", True) != ""
        or getattr(delta, "logprobs", ()) != ()
    )
