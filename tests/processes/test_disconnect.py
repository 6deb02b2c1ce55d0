"""F16 and F17: a client that leaves, at any stage and in any way, ends its run, and nothing stays behind."""

import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from process_kit import Server, serving

from clients import wire

Leave = Callable[[wire.Exchange], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("disconnect")) as server:
        yield server


def close(exchange: wire.Exchange) -> None:
    """FIN."""
    exchange.close()


def reset(exchange: wire.Exchange) -> None:
    """RST."""
    exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.close()


def half_close(exchange: wire.Exchange) -> None:
    """FIN in one direction: the client would still read. It counts as gone all the same."""
    exchange.socket.shutdown(socket.SHUT_WR)


ways = pytest.mark.parametrize("leave", [close, reset, half_close])


@ways
@pytest.mark.parametrize("sent", [b"", b'{"model": "quick", "inp'])
def test_before_the_body_is_complete(server: Server, leave: Leave, sent: bytes) -> None:
    """No run begins, and nothing is stored."""
    before = server.stored()
    with wire.Exchange(server.url, method="GET", path="/livez") as exchange:
        assert exchange.answer().status == 200
        head = f"POST /v1/responses HTTP/1.1\r\nHost: ore\r\nContent-Length: {len(sent) + 9}\r\n\r\n"
        exchange.socket.sendall(head.encode() + sent)
        leave(exchange)
    server.wait_until_idle()
    assert server.stored() == before


@ways
@pytest.mark.parametrize("stream", [True, False])
def test_before_the_first_byte(server: Server, leave: Leave, stream: bool) -> None:
    """A request that no model has taken yet is dropped; there is no response to store."""
    before = server.stored()
    with wire.Exchange(server.url, {"model": "late", "input": "Hi", "stream": stream}) as exchange:
        server.wait_until_busy()
        leave(exchange)
        server.wait_until_idle()
    assert server.stored() == before


@ways
@pytest.mark.parametrize("model", ["mute", "slow"])
def test_in_the_middle_of_a_stream(server: Server, leave: Leave, model: str) -> None:
    """The response is kept as cancelled, with what was said, whether the model was silent or talking."""
    with wire.Exchange(server.url, {"model": model, "input": "Hi", "stream": True}) as exchange:
        exchange.head()
        events = wire.suite_events(exchange.chunks())
        response_id = next(events).json["response"]["id"]
        if model == "slow":
            next(event for event in events if event.event == "response.output_text.delta")
        leave(exchange)
        server.wait_until_idle()
    response = wire.get(server.url, f"/v1/responses/{response_id}").json()
    assert response["status"] == "cancelled"
    assert [item["status"] for item in response["output"]] == (["incomplete"] if model == "slow" else [])


@ways
def test_a_waiting_call(server: Server, leave: Leave) -> None:
    """The run of a client that waits for the whole response ends with it, and is kept as cancelled."""
    before = server.stored()
    with wire.Exchange(server.url, {"model": "slow", "input": "Hi"}) as exchange:
        server.wait_until_busy()
        leave(exchange)
        server.wait_until_idle()
    (response_id, status), *others = server.stored()[len(before) :]
    assert (status, others) == ("cancelled", [])
    assert wire.get(server.url, f"/v1/responses/{response_id}").json()["status"] == "cancelled"


def test_a_cancelled_response_can_be_continued(server: Server) -> None:
    """What a client saw before it left is a turn like any other."""
    with wire.Exchange(server.url, {"model": "slow", "input": "Hi", "stream": True}) as exchange:
        exchange.head()
        response_id = next(wire.suite_events(exchange.chunks())).json["response"]["id"]
    server.wait_until_idle()
    answer = wire.create(server.url, model="quick", input="Go on", previous_response_id=response_id)
    assert answer.json()["status"] == "completed"


def test_many_leave_at_once(server: Server) -> None:
    """Thirty clients, half of them streaming, leave together: thirty cancelled responses, and an idle server."""
    before = len(server.stored())
    exchanges = [wire.Exchange(server.url, {"model": "slow", "input": "Hi", "stream": n % 2 == 0}) for n in range(30)]
    server.wait_until_busy(30)
    for exchange in exchanges:
        exchange.close()
    server.wait_until_idle()
    assert [status for _, status in server.stored()[before:]] == ["cancelled"] * 30
    assert wire.create(server.url, model="quick", input="Hi").json()["status"] == "completed"
