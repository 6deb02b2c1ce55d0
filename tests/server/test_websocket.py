"""WebSocket mode over scripted models: turns, lanes, memory, limits, and what clients get wrong (section 10)."""

import json
from collections.abc import Iterator
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

import msgspec
import pytest
from live_server import RawClient
from websockets.exceptions import InvalidStatus

from clients import wire
from clients.judging import Judge, check_failed_stream, check_response, check_stream
from clients.sockets import Socket, check_error, error_of
from ore.backends.base import ModelRequest
from ore.backends.scripted import Step, says
from ore.core.deltas import Finish, Text
from ore.errors import ModelFailed
from ore.server.websocket import MAX_IN_FLIGHT, MAX_LANES, MAX_WAITING
from ore.settings import Settings
from servers import ScriptedServer

MINUTE = 60.0
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def echo(request: ModelRequest) -> list[Step]:
    """Says how many items it was given."""
    return says(f"{len(request.items)} items")


SCRIPTS: dict[str, Any] = {
    "m": says("Hello there.", pieces=3),
    "echo": echo,
    "mute": [Text("Well"), MINUTE, Finish("stop")],
    "breaks": [Text("Well"), ModelFailed("It broke.")],
    "refuses": [ModelFailed("It is down.")],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path_factory.mktemp("websocket")) as server:
        server.scripts.update(SCRIPTS)
        yield server


def serving(folder: Path, **settings: Any) -> ScriptedServer:
    """A server with other settings under `[server]`."""
    server = ScriptedServer(folder, Settings(server=msgspec.structs.replace(Settings().server, **settings)))
    server.scripts.update(SCRIPTS)
    return server


@pytest.fixture
def socket(server: ScriptedServer) -> Iterator[Socket]:
    with Socket(server.url) as socket:
        yield socket


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """When all clients are gone, no run is left and no slot is taken."""
    yield
    if "server" in request.fixturenames:
        server: ScriptedServer = request.getfixturevalue("server")
        wire.wait_until(lambda: server.parts.supervisor.active == 0 and server.backend.active == 0)


def text_of(events: list[wire.Sent]) -> str:
    return str(wire.final(events)["output"][0]["content"][0]["text"])


# Turns


def test_a_turn_is_the_events_of_the_stream(server: ScriptedServer, socket: Socket, specification: Judge) -> None:
    """The frames are what server-sent events carry, and nothing comes behind the terminal one."""
    events = socket.turn(model="m", input="Hi")
    check_response(specification, check_stream(specification, events))
    streamed = wire.stream(server.url, model="m", input="Hi")
    assert [event.type for event in events] == [event.type for event in streamed]
    with pytest.raises(TimeoutError):
        socket.ws.recv(timeout=0.1)


def test_turns_back_to_back_do_not_mix(socket: Socket, specification: Judge) -> None:
    """Creates that come at once are answered one after the other, each numbered from 0, in their order."""
    for n in range(8):
        socket.ask(model="m", input="Hi", metadata={"n": str(n)}, store=n % 2 == 0)
    for n in range(8):
        final = check_stream(specification, socket.rest())
        assert final["metadata"] == {"n": str(n)}


def test_errors_wait_for_their_turn(socket: Socket, specification: Judge) -> None:
    """A frame that is wrong is answered in its place, so that no turn seems to end early."""
    socket.ask(model="m", input="Hi")
    socket.say("nonsense")
    socket.ask(model="m", input="Hi")
    assert wire.final(socket.rest())["status"] == "completed"
    check_error(specification, socket.hear(), "invalid_json")
    assert wire.final(socket.rest())["status"] == "completed"


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream": None},
        {"background": False},
        {"background": None},
        {"stream_options": None},
        {"stream_options": {"include_obfuscation": False}},
        {"generate": True},
        {"generate": None},
        {"stream_id": None},
    ],
    ids=str,
)
def test_what_is_tolerated(socket: Socket, fields: dict[str, Any]) -> None:
    """Keys of HTTP that ask for nothing else than what a WebSocket does anyway."""
    assert wire.final(socket.turn(model="m", input="Hi", **fields))["status"] == "completed"


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        ("", "invalid_json", None),
        ("nonsense", "invalid_json", None),
        ("[]", "invalid_json", None),
        ("null", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ('"\\ud800"', "invalid_json", None),
        (b"\x00\xff", "invalid_request", None),
        (b'{"type": "response.create"}', "invalid_request", None),
        ({}, "missing_required_parameter", "type"),
        ({"type": None}, "missing_required_parameter", "type"),
        ({"type": "response.cancel"}, "invalid_request", "type"),
        ({"type": {"response": "create"}}, "invalid_request", "type"),
        ({"type": "response.create"}, "missing_required_parameter", "input"),
        ({"type": "response.create", "input": 7}, "invalid_type", "input"),
        ({"type": "response.create", "input": "Hi", "stream": False}, "unsupported_value", "stream"),
        ({"type": "response.create", "input": "Hi", "stream": "yes"}, "unsupported_value", "stream"),
        ({"type": "response.create", "input": "Hi", "background": True}, "unsupported_parameter", "background"),
        ({"type": "response.create", "input": "Hi", "stream_options": 1}, "invalid_type", "stream_options"),
        ({"type": "response.create", "input": "Hi", "generate": "no"}, "invalid_type", "generate"),
        ({"type": "response.create", "input": "Hi", "stream_id": ""}, "invalid_value", "stream_id"),
        ({"type": "response.create", "input": "Hi", "stream_id": "x" * 65}, "invalid_value", "stream_id"),
        ({"type": "response.create", "input": "Hi", "stream_id": 1}, "invalid_value", "stream_id"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_garbage(socket: Socket, specification: Judge, frame: Any, code: str, param: str | None) -> None:
    """Whatever is wrong with a frame is an error frame with status 400, and the socket goes on."""
    socket.say(frame)
    assert check_error(specification, socket.hear(), code)["error"]["param"] == param
    assert wire.final(socket.turn(model="m", input="Hi"))["status"] == "completed"


def test_an_unknown_model(socket: Socket, specification: Judge) -> None:
    """What HTTP answers with a 404 has that status in its frame, and a code."""
    (frame,) = socket.turn(model="nobody", input="Hi")
    check_error(specification, frame, "model_not_found", 404)


def test_an_error_without_a_code_has_its_type_for_one(socket: Socket, specification: Judge) -> None:
    """`code` is never null here."""
    (frame,) = socket.turn(model="refuses", input="Hi")
    check_error(specification, frame, "server_error", 502)


def test_a_run_that_breaks(socket: Socket, specification: Judge) -> None:
    """After `response.created` a fault is the `error` event and `response.failed`, as in a stream; the socket stays."""
    check_failed_stream(specification, socket.turn(model="breaks", input="Hi"))
    assert wire.final(socket.turn(model="m", input="Hi"))["status"] == "completed"


def test_a_response_of_another_socket_that_still_runs(server: ScriptedServer, socket: Socket) -> None:
    """It cannot be continued before it has ended, whoever made it."""
    with Socket(server.url) as other:
        other.ask(model="mute", input="Hi")
        running = other.hear().json["response"]["id"]
        error = socket.refused(model="m", input="Hi", previous_response_id=running)["error"]
        assert error["code"] == "previous_response_not_ready"


def test_steering_is_refused_at_once(socket: Socket) -> None:
    """The input comes back while the response goes on."""
    socket.ask(model="mute", input="Hi")
    response_id = socket.hear().json["response"]["id"]
    socket.say({"type": "response.steer", "previous_response_id": response_id, "input": "Faster!"})
    while (frame := socket.hear()).type != "response.steer.failed":
        pass
    assert frame.json["error"]["code"] == "steering_not_supported"
    assert frame.json["error"]["type"] == "invalid_request_error"
    assert frame.json["steer"] == {"input": "Faster!", "previous_response_id": response_id}


# The queue


def test_the_queue_is_bounded(socket: Socket, specification: Judge) -> None:
    """Beyond those that may wait, a turn is refused at once with 429, and the socket goes on."""
    socket.ask(model="mute", input="Hi")
    assert socket.hear().type == "response.created"
    for _ in range(MAX_WAITING + 1):
        socket.ask(model="m", input="Hi")
    while (frame := socket.hear()).type != "error":
        pass
    check_error(specification, frame, "websocket_queue_full", 429)
    socket.say({"type": "response.steer"})
    assert socket.hear().type == "response.steer.failed"


def test_the_queue_is_bounded_in_size(tmp_path: Path, specification: Judge) -> None:
    """What waits may be as large as one request may be, all together."""
    with serving(tmp_path, max_body_bytes=100_000) as server, Socket(server.url) as socket:
        socket.ask(model="mute", input="Hi")
        assert socket.hear().type == "response.created"
        socket.ask(model="m", input="x" * 60_000)
        socket.ask(model="m", input="x" * 60_000)
        while (frame := socket.hear()).type != "error":
            pass
        check_error(specification, frame, "websocket_queue_full", 429)


# Lanes


def test_lanes_run_at_the_same_time(socket: Socket, specification: Judge) -> None:
    """A lane that is busy holds up itself only; every frame of a turn says in which lane it is."""
    socket.ask(model="mute", input="Hi", stream_id="slow")
    first = socket.hear()
    assert (first.type, first.json["stream_id"]) == ("response.created", "slow")
    socket.ask(model="m", input="Hi", stream_id="slow")
    socket.ask(model="m", input="Hi", stream_id='a "quick" one \u00e9')
    socket.say({"type": "response.create", "stream_id": 'a "quick" one \u00e9', "input": 7})
    frames: list[wire.Sent] = []
    while len([frame for frame in frames if frame.type in ("response.completed", "error")]) < 2:
        frames.append(socket.hear())
    quick = [frame for frame in frames if frame.json["stream_id"] != "slow"]
    assert {frame.json["stream_id"] for frame in quick} == {'a "quick" one \u00e9'}
    check_response(specification, check_stream(specification, quick[:-1]))
    check_error(specification, quick[-1], "invalid_type")
    assert {frame.type for frame in frames if frame.json["stream_id"] == "slow"} <= {
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
    }


def test_a_lane_is_a_line(socket: Socket, specification: Judge) -> None:
    """Turns of one lane come in their order."""
    for n in range(4):
        socket.ask(model="m", input="Hi", stream_id="a", metadata={"n": str(n)})
    for n in range(4):
        assert check_stream(specification, socket.rest())["metadata"] == {"n": str(n)}


def test_turns_in_flight_are_bounded(socket: Socket, specification: Judge) -> None:
    """Too many at the same time are refused, in the lane of their own."""
    for n in range(MAX_IN_FLIGHT):
        socket.ask(model="mute", input="Hi", stream_id=str(n))
    socket.ask(model="m", input="Hi", stream_id="more")
    while (frame := socket.hear()).type != "error":
        pass
    assert check_error(specification, frame, "websocket_stream_limit_reached", 429)["stream_id"] == "more"


def test_names_of_lanes_are_bounded(socket: Socket, specification: Judge) -> None:
    """A connection remembers so many lanes and no more; those it has can be used again."""
    for n in range(MAX_LANES):
        assert wire.final(socket.turn(model="m", input="Hi", stream_id=str(n)))["status"] == "completed"
    (frame,) = socket.turn(model="m", input="Hi", stream_id="more")
    check_error(specification, frame, "websocket_stream_limit_reached", 429)
    assert wire.final(socket.turn(model="m", input="Hi", stream_id="0"))["status"] == "completed"
    assert wire.final(socket.turn(model="m", input="Hi"))["status"] == "completed"


# Memory


def not_found(socket: Socket, response_id: str, **more: Any) -> bool:
    error = socket.refused(model="echo", input="More", previous_response_id=response_id, **more)["error"]
    return (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")


def test_unstored_turns_make_a_conversation(socket: Socket) -> None:
    """Each turn sees all input and output before it, although nothing is stored."""
    previous = None
    for n in range(4):
        events = socket.turn(model="echo", input="Hi", store=False, previous_response_id=previous)
        assert text_of(events) == f"{2 * n + 1} items"
        previous = wire.final(events)["id"]


def test_only_the_newest_unstored_response_is_known(socket: Socket) -> None:
    """The one before it is gone."""
    first, second = (wire.final(socket.turn(model="echo", input="Hi", store=False))["id"] for _ in range(2))
    assert not_found(socket, first)
    assert text_of(socket.turn(model="echo", input="Hi", previous_response_id=second)) == "3 items"


def test_each_lane_has_a_memory(socket: Socket) -> None:
    """What one lane does leaves the newest response of another one alone; and lanes can continue one another."""
    first = wire.final(socket.turn(model="echo", input="Hi", store=False, stream_id="a"))["id"]
    socket.turn(model="echo", input="Hi", store=False, stream_id="b")
    events = socket.turn(model="echo", input="Hi", store=False, stream_id="c", previous_response_id=first)
    assert text_of(events) == "3 items"


def test_memory_ends_with_the_connection(server: ScriptedServer, socket: Socket) -> None:
    """On another socket only what was stored is found; and a new chain works there."""
    stored = wire.final(socket.turn(model="echo", input="Hi"))["id"]
    unstored = wire.final(socket.turn(model="echo", input="Hi", store=False))["id"]
    with Socket(server.url) as other:
        assert not_found(other, unstored)
        assert text_of(other.turn(model="echo", input="Hi", previous_response_id=stored)) == "3 items"
        assert text_of(other.turn(model="echo", input="Hi", store=False)) == "1 items"
    assert wire.create(server.url, model="echo", input="Hi", previous_response_id=unstored).status == 400


FAILING: list[dict[str, Any]] = [
    {"model": "echo", "input": [{"type": "function_call_output", "call_id": "call_never", "output": "x"}]},
    {"model": "echo", "input": "Hi", "temperature": 9},
    {"model": "nobody", "input": "Hi"},
    {"model": "refuses", "input": "Hi"},
    {"model": "breaks", "input": "Hi"},
    {"model": "m", "input": "Hi", "stream": False},
]


@pytest.mark.parametrize("fields", FAILING, ids=str)
def test_a_failed_continuation_forgets(socket: Socket, fields: dict[str, Any]) -> None:
    """However the turn failed, the response that it named is known no longer."""
    first = wire.final(socket.turn(model="echo", input="Hi", store=False))["id"]
    last = socket.turn(**fields, store=False, previous_response_id=first)[-1]
    assert last.type in ("error", "response.failed")
    assert not_found(socket, first)


@pytest.mark.parametrize("fields", FAILING, ids=str)
def test_a_failed_new_chain_forgets_nothing(socket: Socket, fields: dict[str, Any]) -> None:
    """It named no response."""
    first = wire.final(socket.turn(model="echo", input="Hi", store=False))["id"]
    socket.turn(**fields, store=False)
    assert text_of(socket.turn(model="echo", input="Hi", previous_response_id=first)) == "3 items"


def test_a_failed_continuation_of_a_stored_response_can_be_tried_again(socket: Socket) -> None:
    """What memory forgot is in the store."""
    first = wire.final(socket.turn(model="echo", input="Hi"))["id"]
    socket.turn(model="breaks", input="Hi", previous_response_id=first)
    assert text_of(socket.turn(model="echo", input="Hi", previous_response_id=first)) == "3 items"


def test_what_was_deleted_is_not_remembered(server: ScriptedServer, socket: Socket) -> None:
    """A stored response is the store's to remember: deleted over HTTP, no socket continues it or stores it anew."""
    first = wire.final(socket.turn(model="echo", input="Hi"))["id"]
    assert wire.call(server.url, "DELETE", f"/v1/responses/{first}").status == 200
    for store in (True, False):
        assert not_found(socket, first, store=store)


@pytest.mark.parametrize("store", [True, False])
def test_a_response_is_prepared(server: ScriptedServer, socket: Socket, specification: Judge, store: bool) -> None:
    """`generate: false` asks no model: three events and no output. Its id can be continued."""
    asked = len(server.backend.requests)
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]
    for more in ({"instructions": "Be short.", "tools": tools}, {}, {"input": []}):
        events = socket.turn(model="echo", generate=False, store=store, **more)
        warm = check_stream(specification, events)
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        assert (warm["output"], warm["status"]) == ([], "completed")
    assert len(server.backend.requests) == asked
    events = socket.turn(model="echo", input="Hi", store=store, previous_response_id=warm["id"])
    assert text_of(events) == "1 items"


def test_a_prepared_input_is_kept(socket: Socket) -> None:
    """Input that came with the preparation is part of the conversation."""
    warm = wire.final(socket.turn(model="echo", generate=False, input="Hi", store=False))["id"]
    assert text_of(socket.turn(model="echo", input="Hi", previous_response_id=warm)) == "2 items"


def test_http_knows_nothing_of_it(server: ScriptedServer) -> None:
    """`generate` in a body of HTTP is an unknown key, and ignored as such."""
    assert wire.create(server.url, model="m", input="Hi", generate=False).json()["output"]


# The end of a connection


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_client_that_leaves_stops_its_runs(server: ScriptedServer, waiting: int) -> None:
    """The slot is free at once, and turns that wait never begin."""
    asked = len(server.backend.requests)
    with Socket(server.url) as socket:
        socket.ask(model="mute", input="Hi")
        response_id = socket.hear().json["response"]["id"]
        for _ in range(waiting):
            socket.ask(model="mute", input="Hi")
    wire.wait_until(lambda: server.parts.supervisor.active == 0 and server.backend.active == 0)
    assert len(server.backend.requests) == asked + 1
    assert wire.get(server.url, f"/v1/responses/{response_id}").json()["status"] == "cancelled"


def test_a_client_that_vanishes_stops_its_runs(server: ScriptedServer) -> None:
    """Without a closing handshake, too."""
    socket = Socket(server.url)
    for lane in ("a", "b"):
        socket.ask(model="mute", input="Hi", stream_id=lane)
    wire.wait_until(lambda: server.backend.active == 2)
    socket.ws.socket.close()
    wire.wait_until(lambda: server.parts.supervisor.active == 0 and server.backend.active == 0)
    socket.ws.close()


def test_the_limit_of_an_idle_connection(tmp_path: Path, specification: Judge) -> None:
    """After its time a connection gets one error frame that says how long it was, and is closed with 1000."""
    with serving(tmp_path, websocket_seconds=0.3) as server, Socket(server.url) as socket:
        frames, code = socket.until_closed()
        error = check_error(specification, frames[0], "websocket_connection_limit_reached")["error"]
        assert (len(frames), code, error["type"]) == (1, 1000, "invalid_request_error")
        assert "0.005 minutes" in error["message"]


def test_the_limit_lets_a_turn_finish(tmp_path: Path, specification: Judge) -> None:
    """A turn under way ends as it would have; those behind it get the error, and then the connection does."""
    with serving(tmp_path, websocket_seconds=2.0) as server, Socket(server.url) as socket:
        server.scripts["long"] = [Text("Well"), 3.0, Finish("stop")]
        socket.ask(model="long", input="Hi")
        socket.ask(model="m", input="Hi")
        assert check_stream(specification, socket.rest())["status"] == "completed"
        frames, code = socket.until_closed()
        codes = [check_error(specification, frame, "websocket_connection_limit_reached") for frame in frames]
        assert (len(codes), code) == (2, 1000)


def test_the_message_names_an_hour() -> None:
    """What the limit says when nobody has changed it."""
    from ore.server.websocket import _limit_reached

    assert "60 minutes" in _limit_reached(Settings().server.websocket_seconds).fault.message


def test_a_frame_that_is_too_large(tmp_path: Path) -> None:
    """What HTTP answers with a 413 closes the connection with 1009; what is just not is read."""
    with serving(tmp_path, max_body_bytes=5_000) as server, Socket(server.url) as socket:
        assert wire.final(socket.turn(model="m", input="x" * 4_900))["status"] == "completed"
        socket.ask(model="m", input="x" * 5_000)
        assert socket.until_closed() == ([], 1009)


def test_the_server_pings(tmp_path: Path) -> None:
    """As often as its settings say; who does not answer for as long as it may leave things unread is gone."""
    with serving(tmp_path, websocket_ping=0.05, write_timeout=0.2) as server, RawClient(server.port) as client:
        client.send(HANDSHAKE)
        assert client.answer().status == 101
        while len(client.buffer) < 10:
            client.buffer += client.socket.recv(100)
        assert client.buffer[:2] == b"\x89\x04"
        assert client.buffer[6:10] == b"\x88\x18" + (1011).to_bytes(2, "big")


def test_a_client_that_does_not_read_stops_its_run(tmp_path: Path) -> None:
    """It counts as gone."""
    with serving(tmp_path, write_timeout=0.2) as server, RawClient(server.port) as client:
        server.scripts["talks"] = [*[Text("x" * 10_000)] * 2_000, MINUTE, Finish("stop")]
        client.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
        client.send(HANDSHAKE)
        assert client.answer().status == 101
        body = b'{"type":"response.create","model":"talks","input":"Hi"}'
        client.send(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)
        wire.wait_until(lambda: server.backend.active == 1)
        wire.wait_until(lambda: server.parts.supervisor.active == 0 and server.backend.active == 0)


# The handshake


def test_websocket_can_be_turned_off(tmp_path: Path) -> None:
    """Then a handshake gets a 426, on which Codex goes on over HTTP, and a GET is a 405 as ever."""
    with serving(tmp_path, websocket=False) as server:
        with pytest.raises(InvalidStatus) as refused:
            Socket(server.url)
        assert refused.value.response.status_code == 426
        assert wire.get(server.url, "/v1/responses").status == 405


def test_a_plain_get_is_a_405(server: ScriptedServer) -> None:
    """Without a handshake there is nothing to get."""
    answer = wire.get(server.url, "/v1/responses")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/responses", "/v1/response", "/v1/models", "/livez"])
def test_other_paths_are_a_404(server: ScriptedServer, path: str) -> None:
    """In our shape, with a hint: starlette's 403 makes clients try again."""
    with pytest.raises(InvalidStatus) as refused:
        Socket(server.url, path)
    response = refused.value.response
    assert response.status_code == 404
    assert set(json.loads(response.body)["error"]) == {"message", "type", "param", "code"}


def test_pages_of_strangers_are_refused(server: ScriptedServer) -> None:
    """A browser says where its page came from; with nobody asking for a key, that has to be here."""
    for origin, passes in (("http://evil.example", False), (server.url, True)):
        try:
            with Socket(server.url, origin=origin) as socket:
                assert passes
                assert wire.final(socket.turn(model="m", input="Hi"))["status"] == "completed"
        except InvalidStatus as refused:
            assert not passes
            assert refused.response.status_code == 403


def test_the_handshake_has_an_id(socket: Socket) -> None:
    """As every answer has."""
    assert socket.ws.response is not None
    assert socket.ws.response.headers["x-request-id"].startswith("req_")
    assert "sec-websocket-extensions" not in socket.ws.response.headers


def test_compression_is_not_offered(server: ScriptedServer) -> None:
    """A client that would compress is answered without."""
    with Socket(server.url, compression="deflate") as socket:
        assert socket.ws.response is not None
        assert "sec-websocket-extensions" not in socket.ws.response.headers
        assert wire.final(socket.turn(model="m", input="Hi"))["status"] == "completed"


def test_what_codex_sends(server: ScriptedServer) -> None:
    """Its header, its warm-up with everything in it, and turns that send only what is new, nothing stored."""
    with Socket(server.url, additional_headers={"OpenAI-Beta": "responses_websockets=2026-02-06"}) as socket:
        first = {"model": "echo", "store": False, "include": ["reasoning.encrypted_content"], "tools": []}
        warm = socket.turn(**first, generate=False, input=[{"type": "message", "role": "developer", "content": "Hi"}])
        assert [frame.type for frame in warm][-1] == "response.completed"
        new = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go"}]}]
        events = socket.turn(**first, input=new, previous_response_id=wire.final(warm)["id"])
        assert text_of(events) == "2 items"


def test_a_refusal_has_its_shape(socket: Socket) -> None:
    """The frame is exactly that of section 10.7."""
    socket.say("{}")
    assert error_of(socket.hear())["status"] == 400
