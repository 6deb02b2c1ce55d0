"""`[server] wire` over real HTTP and WebSocket: every conflict of section 21, wherever a client can see it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import ask
from openai import OpenAI
from websockets.exceptions import InvalidStatus

from clients import wire
from clients.sockets import Socket
from ore.backends.scripted import Script
from ore.core.deltas import Finish, Reasoning, Text
from ore.errors import ModelFailed, TooManyRequests
from ore.protocol.wire import WireName
from ore.settings import ServerSettings, Settings
from servers import ScriptedServer

NAMES: tuple[WireName, ...] = ("both", "openai", "openresponses")
SCRIPTS: dict[str, Script] = {
    "thinks": [Reasoning("Hm, "), Reasoning("hm."), Text("{}"), Finish("stop")],
    "breaks": [Text("Well"), ModelFailed("It broke.")],
    "down": [ModelFailed("It is down.")],
    "full": [TooManyRequests("It is full.")],
}
SCHEMA = {"type": "object", "additionalProperties": True}
FORMAT = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": False}


def serving(folder: Path, **settings: Any) -> ScriptedServer:
    server = ScriptedServer(folder, Settings(server=ServerSettings(**settings)))
    server.scripts.update(SCRIPTS)
    return server


@pytest.fixture(scope="module", params=NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server on each wire in turn."""
    with serving(tmp_path_factory.mktemp(request.param), wire=request.param) as server:
        yield server


@pytest.fixture
def name(server: ScriptedServer) -> WireName:
    return server.settings.server.wire


def post(server: ScriptedServer, **body: Any) -> Any:
    return ask(server.port, "POST", "/v1/responses", json.dumps({"input": "Hi", **body}).encode())


def events(server: ScriptedServer, **body: Any) -> list[wire.Sent]:
    """The events of a stream, without the `[DONE]` that it may have."""
    frames = wire.suite_events([post(server, stream=True, **body).body])
    return [frame for frame in frames if frame.event != "[DONE]"]


def thoughts(sent: list[wire.Sent]) -> list[str]:
    return [event.type for event in sent if event.type.startswith("response.reasoning")]


def expected_thoughts(name: WireName) -> list[str]:
    word = "reasoning_text" if name == "openai" else "reasoning"
    return [f"response.{word}.{part}" for part in ("delta", "delta", "done")]


def check_error_event(name: WireName, event: dict[str, Any]) -> None:
    """The shape of an `error` event on this wire."""
    assert ("error" in event, "message" in event) == (name != "openai", name != "openresponses")
    said = event.get("error", event)
    assert (said["code"], said["message"], said["param"]) == ("server_error", "It broke.", None)
    if name != "openai":
        assert said["type"] == ("model_error" if name == "openresponses" else "server_error")


class TestStreams:
    def test_raw_reasoning(self, server: ScriptedServer, name: WireName) -> None:
        """The field of the frame and the type in its body are of this wire."""
        sent = events(server, model="thinks")
        assert thoughts(sent) == expected_thoughts(name)
        assert [event.event for event in sent] == [event.type for event in sent]

    def test_padded_reasoning(self, server: ScriptedServer) -> None:
        """Padding against traffic analysis knows both names."""
        sent = events(server, model="thinks", stream_options={"include_obfuscation": True})
        deltas = [event.json for event in sent if event.type in thoughts(sent) and event.type.endswith("delta")]
        assert deltas
        assert all("obfuscation" in event for event in deltas)

    def test_the_end_of_a_failure(self, server: ScriptedServer, name: WireName) -> None:
        """`error` in the shape of this wire, then `response.failed`."""
        *_, error, failed = events(server, model="breaks")
        assert (error.type, failed.type) == ("error", "response.failed")
        check_error_event(name, error.json)
        assert failed.json["response"]["error"] == {"code": "server_error", "message": "It broke."}

    def test_kept_events_are_on_the_wire_too(self, server: ScriptedServer, name: WireName) -> None:
        """What a background response is replayed with, byte for byte."""
        live = events(server, model="thinks", background=True)
        again = ask(server.port, "GET", f"/v1/responses/{live[0].json['response']['id']}?stream=true").body
        assert thoughts(live) == expected_thoughts(name)
        replayed = [event for event in wire.suite_events([again]) if event.event != "[DONE]"]
        assert [event.data for event in replayed] == [event.data for event in live]


class TestResponses:
    @pytest.mark.parametrize("stream", [True, False])
    def test_what_is_shown_of_the_request(self, server: ScriptedServer, name: WireName, stream: bool) -> None:
        """Effort and schema, in the answer and when it is read again; the model is held to the schema all the same."""
        body = {"model": "thinks", "reasoning": {"effort": "minimal"}, "text": {"format": FORMAT}}
        shown = events(server, **body)[-1].json["response"] if stream else post(server, **body).json()
        assert shown["status"] == "completed"
        assert shown["reasoning"]["effort"] == ("minimal" if name == "openai" else "low")
        assert shown["text"]["format"]["schema"] == (None if name == "openresponses" else SCHEMA)
        assert server.backend.requests[-1].text_format["schema"] == SCHEMA
        assert ask(server.port, "GET", f"/v1/responses/{shown['id']}").json() == shown

    @pytest.mark.parametrize(
        ("body", "ours", "theirs"),
        [
            ({"model": "thinks", "temperature": 9}, "invalid_request_error", "invalid_request"),
            ({"model": "full"}, "rate_limit_error", "too_many_requests"),
            ({"model": "down"}, "server_error", "model_error"),
        ],
    )
    def test_refused_requests(self, server: ScriptedServer, name: WireName, body: Any, ours: str, theirs: str) -> None:
        """The type words of this wire, streaming or not."""
        wanted = theirs if name == "openresponses" else ours
        for stream in (False, True):
            assert post(server, stream=stream, **body).error()["type"] == wanted

    def test_unknown_things(self, server: ScriptedServer, name: WireName) -> None:
        """Unknown ids and paths, and what the server itself refuses before any endpoint."""
        wanted = "not_found" if name == "openresponses" else "invalid_request_error"
        for path in ("/v1/responses/resp_x", "/v1/nothing"):
            assert ask(server.port, "GET", path).error()["type"] == wanted
        wanted = "invalid_request" if name == "openresponses" else "invalid_request_error"
        assert ask(server.port, "GET", "/" + "x" * 40_000).error()["type"] == wanted
        assert ask(server.port, "POST", "/v1/responses", b"{}", content_encoding="br").error()["type"] == wanted


class TestWebSockets:
    def test_events(self, server: ScriptedServer, name: WireName) -> None:
        """A turn's frames are those of a stream."""
        with Socket(server.url) as socket:
            assert thoughts(socket.turn(model="thinks", input="Hi")) == expected_thoughts(name)
            *_, error, failed = socket.turn(model="breaks", input="Hi")
        assert (error.type, failed.type) == ("error", "response.failed")
        check_error_event(name, error.json)

    def test_error_frames(self, server: ScriptedServer, name: WireName) -> None:
        """Nested on every wire, as both worlds have it there; the words are this wire's."""
        wanted = "invalid_request" if name == "openresponses" else "invalid_request_error"
        with Socket(server.url) as socket:
            frame = socket.refused(model="thinks", input="Hi", temperature=9)
        assert frame["error"]["type"] == wanted

    def test_refused_handshakes(self, server: ScriptedServer, name: WireName) -> None:
        """An HTTP error like any other."""
        with pytest.raises(InvalidStatus) as refusal:
            Socket(server.url, "/v1/nothing")
        wanted = "not_found" if name == "openresponses" else "invalid_request_error"
        assert json.loads(refusal.value.response.body or b"")["error"]["type"] == wanted


@pytest.mark.parametrize(
    ("settings", "marked"),
    [
        ({}, True),
        ({"wire": "openai"}, False),
        ({"wire": "openresponses"}, True),
        ({"wire": "openai", "sse_done_marker": True}, True),
        ({"sse_done_marker": False}, False),
    ],
)
def test_the_done_marker(tmp_path: Path, settings: Any, marked: bool) -> None:
    """By the wire, unless the setting says otherwise."""
    with serving(tmp_path, **settings) as server:
        assert post(server, model="thinks", stream=True).body.endswith(b"data: [DONE]\n\n") == marked


def test_the_sdk_hears_of_a_failure_on_its_own_wire(tmp_path: Path) -> None:
    """With `wire = "openai"` the SDK delivers error and response.failed as events, and names the reasoning."""
    with (
        serving(tmp_path, wire="openai") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, _strict_response_validation=True) as client,
    ):
        said = list(client.responses.create(model="breaks", input="Hi", stream=True))
        assert [event.type for event in said[-2:]] == ["error", "response.failed"]
        kinds = [type(event).__name__ for event in client.responses.create(model="thinks", input="Hi", stream=True)]
        assert kinds.count("ResponseReasoningTextDeltaEvent") == 2
