"""F26 for WebSockets: what SIGTERM does to connections that are idle, at work, or have turns waiting."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_kit import Server, serving
from websockets.exceptions import InvalidStatus

from clients import wire
from clients.judging import Judge, check_failed_stream, check_stream
from clients.sockets import Socket, check_error


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def refuses(server: Server) -> bool:
    return wire.get(server.url, "/readyz").status == 503


def test_idle_connections_do_not_delay_the_end(server: Server) -> None:
    """They are closed with 1012, those that have worked too, and the process ends with 0."""
    with Socket(server.url) as fresh, Socket(server.url) as used:
        used.turn(model="quick", input="Hi")
        server.send(signal.SIGTERM)
        assert fresh.until_closed() == ([], 1012)
        assert used.until_closed() == ([], 1012)
        assert server.wait() == 0


def test_a_turn_under_way_finishes(server: Server, specification: Judge) -> None:
    """Idle connections close at once, newcomers get a 503, the turn reaches its end, then comes the 1012."""
    with Socket(server.url) as idle, Socket(server.url) as busy:
        busy.ask(model="steady", input="Go on")
        busy.ask(model="quick", input="Hi")
        assert busy.hear().type == "response.created"
        first = busy.hear()
        server.send(signal.SIGTERM)
        assert idle.until_closed() == ([], 1012)
        wire.wait_until(lambda: refuses(server))
        with pytest.raises(InvalidStatus) as refused:
            Socket(server.url)
        assert refused.value.response.status_code == 503
        assert first.type == "response.in_progress"
        frames = busy.rest()
        assert frames[-1].type == "response.completed"
        check_error(specification, busy.hear(), "server_is_overloaded", 503)
        assert busy.until_closed() == ([], 1012)
        assert server.wait() == 0


def test_a_turn_that_takes_too_long_ends_as_failed(tmp_path: Path, specification: Judge) -> None:
    """After the grace it gets its terminal event, and the connection its 1012."""
    with serving(tmp_path, server__shutdown_grace=0.5) as server, Socket(server.url) as busy:
        busy.ask(model="slow", input="Go on")
        first = busy.hear()
        server.send(signal.SIGTERM)
        check_failed_stream(specification, [first, *busy.rest()])
        assert busy.until_closed() == ([], 1012)
        assert server.wait() == 0


def test_a_create_that_comes_too_late(server: Server, specification: Judge) -> None:
    """A connection at work that asks for more while the server goes down gets a 503 in its place."""
    with Socket(server.url) as busy:
        busy.ask(model="steady", input="Go on")
        first = busy.hear()
        server.send(signal.SIGTERM)
        wire.wait_until(lambda: refuses(server))
        busy.ask(model="quick", input="Hi")
        assert check_stream(specification, [first, *busy.rest()])["status"] == "completed"
        check_error(specification, busy.hear(), "server_is_overloaded", 503)
        assert busy.until_closed() == ([], 1012)


def test_clients_that_leave_free_their_slots(server: Server) -> None:
    """Whether their model talks, is silent or has not begun, and whether they have turns in line: all runs end."""
    sockets = [Socket(server.url) for _ in range(3)]
    for socket, model in zip(sockets, ("slow", "mute", "late"), strict=True):
        for _ in range(3):
            socket.ask(model=model, input="Hi")
    server.wait_until_busy(3)
    for socket in sockets:
        socket.ws.close()
    server.wait_until_idle()
    assert [status for _, status in server.stored()] == ["cancelled"] * 2
