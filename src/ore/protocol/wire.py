"""Which side is taken where Open Responses and OpenAI's API exclude each other (wire contract, section 21).

Whoever makes something that is shown asks its `Wire`, and does as it says. A wire knows those few conflicts and nothing
else: on all that it does not mention, the two worlds agree.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct

from ore.errors import HTTPFault, ModelFailed, NotFound, RequestError, ServerFault, TooManyRequests
from ore.protocol import events as e
from ore.protocol.decoding import JsonObject

WireName = Literal["both", "openai", "openresponses"]


class Wire(Struct, frozen=True, kw_only=True):
    """One answer to each conflict. The defaults are what clients of both worlds can read."""

    reasoning_delta: type[e.Event] = e.ReasoningDelta
    reasoning_done: type[e.Event] = e.ReasoningDone
    nests_errors: bool = True
    """Whether `error` events have an object `error`, as Open Responses has it."""
    flattens_errors: bool = True
    """Whether `error` events have the same at their top level, as OpenAI has it."""
    error_types: tuple[tuple[type[HTTPFault], str], ...] = ()
    """The words for `type`: that of the first class that fits, or else the fault's own."""
    shown_efforts: Mapping[str, str] = MappingProxyType({"minimal": "low", "max": "xhigh"})
    """What is shown instead of an effort that Open Responses has no word for: the nearest."""
    shows_schema: bool = True
    done_marker: bool = True
    """Whether streams end with `[DONE]`, when no setting says so."""

    def error(self, fault: HTTPFault) -> JsonObject:
        """The `error` object of section 9."""
        fitting = (word for kind, word in self.error_types if isinstance(fault, kind))
        return {**fault.payload(), "type": next(fitting, fault.type)}

    def error_event(self, fault: HTTPFault) -> JsonObject:
        """The fields of an `error` event (8.4)."""
        said = self.error(fault)
        flat = {key: said[key] for key in ("code", "message", "param")}
        nested = {"error": {"type": said["type"], **flat}} if self.nests_errors else {}
        return nested | (flat if self.flattens_errors else {})

    def reasoning(self, asked: JsonObject | None) -> JsonObject | None:
        """How `reasoning` is shown in the response."""
        return asked and {**asked, "effort": self.shown_efforts.get(asked["effort"], asked["effort"])}

    def text(self, asked: JsonObject) -> JsonObject:
        """How `text` is shown in the response (18)."""
        hides = "schema" in asked["format"] and not self.shows_schema
        return {**asked, "format": {**asked["format"], "schema": None}} if hides else asked


BOTH: Final = Wire()

WIRES: Final[Mapping[WireName, Wire]] = MappingProxyType(
    {
        "both": BOTH,
        "openai": Wire(
            reasoning_delta=e.ReasoningTextDelta,
            reasoning_done=e.ReasoningTextDone,
            nests_errors=False,
            shown_efforts=MappingProxyType({}),
            done_marker=False,
        ),
        "openresponses": Wire(
            flattens_errors=False,
            error_types=(
                (NotFound, "not_found"),
                (TooManyRequests, "too_many_requests"),
                (RequestError, "invalid_request"),
                (ModelFailed, "model_error"),
                (ServerFault, "server_error"),
            ),
            shows_schema=False,
        ),
    }
)
"""By the names of the setting."""
