"""F26: what SIGTERM does to a server that is at work, and what those see who talk to it meanwhile."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_kit import Server, serving

from clients import wire
from clients.judging import Judge, check_failed_stream, check_stream


class Streaming:
    """A streamed create, of which the first text has arrived. `rest` reads it to its end."""

    def __init__(self, server: Server, model: str) -> None:
        self.exchange = wire.Exchange(server.url, {"model": model, "input": "Go on", "stream": True})
        self.exchange.head()
        self._events = wire.suite_events(self.exchange.chunks())
        self.seen: list[wire.Sent] = []
        while not self.seen or self.seen[-1].event != "response.output_text.delta":
            self.seen.append(next(self._events))
        self.id = str(self.seen[0].json["response"]["id"])

    def rest(self) -> list[wire.Sent]:
        """All events, the first ones included; the stream ended as a stream must."""
        return wire.closed([*self.seen, *self._events])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


AT_ONCE = 2.0
"""Seconds. Readiness has to fall within one; the other one is for a machine that is busy with more than this."""


def refuses(server: Server) -> bool:
    return wire.get(server.url, "/readyz").status == 503


def test_running_streams_finish(server: Server, specification: Judge) -> None:
    """Readiness falls at once, newcomers are sent away, the stream reaches its end, and the process ends with 0."""
    streaming = Streaming(server, "steady")
    server.send(signal.SIGTERM)
    wire.wait_until(lambda: refuses(server), AT_ONCE)
    assert wire.get(server.url, "/livez").status == 200
    refused = wire.create(server.url, model="quick", input="Hi")
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert refused.error()["type"] == "service_unavailable_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert check_stream(specification, streaming.rest())["status"] == "completed"
    assert server.wait() == 0
    assert (streaming.id, "completed") in server.stored()
    streaming.exchange.close()


def test_a_connection_that_was_open_is_closed(server: Server) -> None:
    """Who comes again over a connection from before is sent away too, and the connection ends with the answer."""
    streaming = Streaming(server, "steady")
    with wire.Exchange(server.url, method="GET", path="/v1/models") as exchange:
        assert exchange.answer().status == 200
        server.send(signal.SIGTERM)
        wire.wait_until(lambda: refuses(server), AT_ONCE)
        exchange.socket.sendall(b"GET /v1/models HTTP/1.1\r\nHost: ore\r\n\r\n")
        refused = exchange.answer()
        assert (refused.status, refused.headers["connection"]) == (503, "close")
        assert exchange.at_end()
    streaming.exchange.close()


def test_a_run_that_exceeds_the_grace_fails(tmp_path: Path, specification: Judge) -> None:
    """After the grace the stream ends with `error` and `response.failed`, and so it is stored."""
    with serving(tmp_path, server__shutdown_grace=0.5) as server:
        streaming = Streaming(server, "slow")
        server.send(signal.SIGTERM)
        failed = check_failed_stream(specification, streaming.rest())
        assert failed["output"][0]["status"] == "incomplete"
        assert server.wait() == 0
        assert server.stored() == [(failed["id"], "failed")]
        streaming.exchange.close()
    with serving(tmp_path) as server:
        assert wire.get(server.url, f"/v1/responses/{failed['id']}").json() == failed


def test_waiting_calls_are_told_that_it_failed(tmp_path: Path, specification: Judge) -> None:
    """Who waits for a whole response gets one that says so, not a broken connection."""
    with serving(tmp_path, server__shutdown_grace=0.2) as server:
        with wire.Exchange(server.url, {"model": "slow", "input": "Hi"}) as exchange:
            server.wait_until_busy()
            server.send(signal.SIGTERM)
            answer = exchange.answer()
        specification.check("ResponseResource", answer.json())
        assert answer.json()["status"] == "failed"
        assert answer.json()["error"]["code"]
        assert server.wait() == 0


def test_who_has_not_begun_gets_an_error(tmp_path: Path) -> None:
    """A request that no model has taken yet ends with a 503, streaming or not."""
    with serving(tmp_path, server__shutdown_grace=0.2) as server:
        exchanges = [
            wire.Exchange(server.url, {"model": "late", "input": "Hi", "stream": stream}) for stream in (True, False)
        ]
        server.wait_until_busy(2)
        server.send(signal.SIGTERM)
        for exchange in exchanges:
            with exchange:
                assert exchange.answer().status == 503
        assert server.wait() == 0
        assert server.stored() == []


def test_a_second_signal_does_not_wait(server: Server, specification: Judge) -> None:
    """The grace is over at once; even then the stream gets its terminal event."""
    streaming = Streaming(server, "slow")
    server.send(signal.SIGTERM)
    wire.wait_until(lambda: refuses(server), AT_ONCE)
    began = time.monotonic()
    server.send(signal.SIGTERM)
    check_failed_stream(specification, streaming.rest())
    assert server.wait(5.0) == 0
    assert time.monotonic() - began < 5.0
    streaming.exchange.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(server: Server, number: int) -> None:
    """A client that merely holds a connection open does not keep it, and nothing is said about an error."""
    with wire.Exchange(server.url, method="GET", path="/livez") as exchange:
        assert exchange.answer().status == 200
        server.send(number)
        assert server.wait(5.0) == 0
    assert "ERROR" not in server.log


@pytest.mark.engine
def test_a_signal_while_the_model_loads(tmp_path: Path) -> None:
    """It ends with 0, and the half-started engine with it: here one that would never get ready."""
    with Server(tmp_path, engine=True) as server:
        wire.wait_until(lambda: server.engine_pid() is not None)
        engine = server.engine_pid()
        assert engine is not None
        os.kill(engine, signal.SIGSTOP)
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""
        survived = Path(f"/proc/{engine}").exists()
        if survived:
            os.kill(engine, signal.SIGKILL)
        assert not survived
