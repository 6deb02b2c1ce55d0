"""F2: the process that holds the model is killed. Its clients are told, the server stays, the engine comes back."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from process_kit import Server, serving

from clients import wire
from clients.judging import Judge, check_failed_stream

pytestmark = pytest.mark.engine

ENDLESS: dict[str, Any] = {
    "model": "ore-tiny",
    "input": "Count.",
    "text": {
        "format": {
            "type": "json_schema",
            "name": "endless",
            "schema": {
                "type": "object",
                "properties": {"numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 4000}},
                "required": ["numbers"],
                "additionalProperties": False,
            },
        }
    },
}
"""A format that no answer fulfils before the context is full: the longest answer there is."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that decodes two answers at a time."""
    with serving(tmp_path_factory.mktemp("engine"), engine=True, llama_cpp__slots=2) as server:
        yield server


def streaming(server: Server) -> tuple[wire.Exchange, Iterator[wire.Sent], list[wire.Sent]]:
    """A stream whose first text has come: the exchange, its events to come, and those seen."""
    exchange = wire.Exchange(server.url, {**ENDLESS, "stream": True})
    exchange.head()
    events = wire.suite_events(exchange.chunks())
    seen = [next(events)]
    while seen[-1].event != "response.output_text.delta":
        seen.append(next(events))
    return exchange, events, seen


def test_a_killed_engine_comes_back(server: Server, specification: Judge) -> None:
    """The stream ends as failed, others get a 503 with Retry-After, and after the restart all is as before."""
    exchange, events, seen = streaming(server)
    engine = server.engine_pid()
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    with exchange:
        failed = check_failed_stream(specification, wire.closed([*seen, *events]))
    assert wire.get(server.url, f"/v1/responses/{failed['id']}").json() == failed
    assert wire.get(server.url, "/readyz").status == 503
    assert wire.get(server.url, "/livez").status == 200
    refused = wire.create(server.url, model="ore-tiny", input="Hello!")
    assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
    wire.wait_until(lambda: wire.get(server.url, "/readyz").status == 200)
    assert server.engine_pid() not in (engine, None)
    assert wire.create(server.url, model="ore-tiny", input="Hello!").json()["status"] == "completed"
    assert server.readiness()["active_runs"] == 0


def test_who_waits_for_a_slot_may_leave(server: Server) -> None:
    """With all slots taken, a client that leaves the queue gives its place back, and nobody else is disturbed."""
    wire.wait_until(lambda: wire.get(server.url, "/readyz").status == 200)
    taken = [streaming(server) for _ in range(2)]
    with wire.Exchange(server.url, {**ENDLESS, "stream": True}):
        wire.wait_until(lambda: server.readiness()["backends"]["ore-tiny"]["waiting"] == 1)
    wire.wait_until(lambda: server.readiness()["backends"]["ore-tiny"]["waiting"] == 0)
    for exchange, events, _ in taken:
        assert next(events).event == "response.output_text.delta"
        exchange.close()
    server.wait_until_idle()
    assert {status for _, status in server.stored()[-3:]} == {"cancelled"}


def test_who_only_waited_is_answered_by_the_next_engine(server: Server) -> None:
    """A request in the queue had nothing of the engine that was killed, and so loses nothing."""
    wire.wait_until(lambda: wire.get(server.url, "/readyz").status == 200)
    taken = [streaming(server) for _ in range(2)]
    with wire.Exchange(server.url, {"model": "ore-tiny", "input": "Hello!"}) as waiting:
        wire.wait_until(lambda: server.readiness()["backends"]["ore-tiny"]["waiting"] == 1)
        engine = server.engine_pid()
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        assert waiting.answer().json()["status"] == "completed"
    for exchange, events, _ in taken:
        assert [event.event for event in events][-2:] == ["response.failed", "[DONE]"]
        exchange.close()
    server.wait_until_idle()
