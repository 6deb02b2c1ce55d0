"""A client that leaves: its run stops, whether it read a stream or waited (fault F16)."""

import http.client
import re
import threading
from collections.abc import Callable

import msgspec
import pytest

from ore.core import deltas as d
from servers import ScriptedServer

FOREVER = 3600.0


def ask(server: ScriptedServer, *, stream: bool) -> http.client.HTTPConnection:
    """Send a request to a model that says a little and then nothing."""
    server.scripts["slow"] = [d.Text("Hel"), FOREVER, d.Finish("stop")]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = msgspec.json.encode({"model": "slow", "input": "Hi", "stream": stream})
    connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
    return connection


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; pytest's own timeout ends it when it never comes."""
    while not condition():
        threading.Event().wait(0.005)


def get(server: ScriptedServer, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.timeout(30)
def test_a_client_that_leaves_its_stream_stops_the_model(scripted: ScriptedServer) -> None:
    """The slot is freed, and what was said is stored as a cancelled response with an incomplete item."""
    connection = ask(scripted, stream=True)
    answer = connection.getresponse()
    read = b""
    while b"output_text.delta" not in read:
        read += answer.read1()
    found = re.search(rb"resp_[0-9a-f]{32}", read)
    assert found is not None
    path = f"/v1/responses/{found[0].decode()}"
    assert msgspec.json.decode(get(scripted, path)[1])["status"] == "in_progress"
    assert scripted.backend.active == 1
    answer.close()
    connection.close()
    until(lambda: scripted.backend.active == 0 and scripted.parts.supervisor.active == 0)
    stored = msgspec.json.decode(get(scripted, path)[1])
    assert stored["status"] == "cancelled"
    assert stored["output"][0]["status"] == "incomplete"
    assert stored["output"][0]["content"][0]["text"] == "Hel"


@pytest.mark.timeout(30)
def test_a_client_that_stops_waiting_stops_the_model(scripted: ScriptedServer) -> None:
    """A waiting call is no different: when its connection is gone, so is its run."""
    connection = ask(scripted, stream=False)
    until(lambda: scripted.backend.active == 1)
    connection.close()
    until(lambda: scripted.backend.active == 0 and scripted.parts.supervisor.active == 0)
