"""The conflicts between Open Responses and OpenAI's API, each on each wire (contract, 21)."""

from typing import Any

import msgspec
import pytest

from core.writing import recorded
from ore.core import deltas as d
from ore.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    HTTPFault,
    InternalFault,
    InvalidRequest,
    ModelFailed,
    NotFound,
    StorageFailed,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from ore.protocol import events as e
from ore.protocol.responses import Response
from ore.protocol.wire import WIRES, WireName

every_wire = pytest.mark.parametrize("name", WIRES)

NAMES: dict[WireName, str] = {"both": "reasoning", "openai": "reasoning_text", "openresponses": "reasoning"}


@every_wire
def test_raw_reasoning_has_one_pair_of_names(name: WireName) -> None:
    """One pair for the whole stream, and never the other one beside it."""
    types = [event["type"] for event in recorded([d.Reasoning("a"), d.Reasoning("b")], wire=WIRES[name]).wire]
    about = [kind for kind in types if kind.startswith("response.reasoning")]
    assert about == [f"response.{NAMES[name]}.{part}" for part in ("delta", "delta", "done")]


FLAT = {"code": "server_error", "message": "The model broke.", "param": None}
ERRORS: dict[WireName, dict[str, Any]] = {
    "both": {"error": {"type": "server_error", **FLAT}, **FLAT},
    "openai": FLAT,
    "openresponses": {"error": {"type": "model_error", **FLAT}},
}


@every_wire
def test_an_error_event_has_the_shape_of_its_wire(name: WireName) -> None:
    """Flat, nested or both; and what is decoded again is the same bytes, whatever is absent."""
    events = recorded([d.Text("a")], "failed", WIRES[name]).events
    (error,) = [event for event in events if isinstance(event, e.Error)]
    said = msgspec.json.decode(e.encode(error))
    assert said == {"type": "error", "sequence_number": error.sequence_number, **ERRORS[name]}
    assert e.encode(e.decode(e.encode(error))) == e.encode(error)


def test_errors_of_open_responses_are_valid(specification: Any) -> None:
    """The published schema takes the nested event, also without the flat keys."""
    events = recorded([d.Text("a")], "failed", WIRES["openresponses"]).wire
    (error,) = [event for event in events if event["type"] == "error"]
    specification.check("ErrorStreamingEvent", error)


WORDS: list[tuple[HTTPFault, str, str]] = [
    (InvalidRequest("x"), "invalid_request_error", "invalid_request"),
    (Unauthorized("x"), "invalid_request_error", "invalid_request"),
    (Forbidden("x"), "permission_error", "invalid_request"),
    (NotFound("x"), "invalid_request_error", "not_found"),
    (Conflict("x"), "invalid_request_error", "invalid_request"),
    (TooManyRequests("x"), "rate_limit_error", "too_many_requests"),
    (InternalFault("x"), "server_error", "server_error"),
    (ModelFailed("x"), "server_error", "model_error"),
    (Unavailable("x"), "service_unavailable_error", "server_error"),
    (StorageFailed("x"), "server_error", "server_error"),
    (DeadlineExceeded("x"), "server_error", "server_error"),
]


@pytest.mark.parametrize(("fault", "ours", "theirs"), WORDS, ids=[type(row[0]).__name__ for row in WORDS])
def test_errors_have_the_type_words_of_their_wire(fault: HTTPFault, ours: str, theirs: str) -> None:
    """Only Open Responses' own wire has the words of its table; nothing else about the error differs."""
    assert WIRES["both"].error(fault) == WIRES["openai"].error(fault) == fault.payload()
    assert fault.payload()["type"] == ours
    assert WIRES["openresponses"].error(fault) == {**fault.payload(), "type": theirs}


@pytest.mark.parametrize(("effort", "shown"), [("minimal", "low"), ("max", "xhigh"), ("high", "high"), (None, None)])
def test_efforts_are_shown_in_the_words_of_their_wire(effort: str | None, shown: str | None) -> None:
    """OpenAI's client sees what it sent; the others see the nearest word there is."""
    asked = {"effort": effort, "summary": "auto"}
    assert WIRES["openai"].reasoning(asked) == asked
    for name in ("both", "openresponses"):
        assert WIRES[name].reasoning(asked) == {"effort": shown, "summary": "auto"}
    assert all(wire.reasoning(None) is None for wire in WIRES.values())


FORMAT = {"type": "json_schema", "name": "n", "description": None, "schema": {"type": "object"}, "strict": True}


@every_wire
def test_the_schema_of_a_format_is_shown_or_not(name: WireName) -> None:
    """Null on Open Responses' wire, as its schema says; and what was asked for is left as it was."""
    asked = {"format": dict(FORMAT), "verbosity": "low"}
    schema = None if name == "openresponses" else FORMAT["schema"]
    assert WIRES[name].text(asked) == {"format": {**FORMAT, "schema": schema}, "verbosity": "low"}
    assert asked["format"] == FORMAT
    assert WIRES[name].text({"format": {"type": "text"}}) == {"format": {"type": "text"}}


def test_what_open_responses_shows_of_a_format_is_valid(specification: Any) -> None:
    """The whole response is valid by the published document, which allows no schema but null."""
    response = Response(id="r", created_at=1, status="completed", completed_at=2, model="m")
    shown = msgspec.structs.replace(response, text=WIRES["openresponses"].text({"format": FORMAT}))
    specification.check("ResponseResource", msgspec.to_builtins(shown))
    wrong = msgspec.structs.replace(response, text=WIRES["openai"].text({"format": FORMAT}))
    with pytest.raises(AssertionError):
        specification.check("ResponseResource", msgspec.to_builtins(wrong))
