"""A server that is killed in the middle of background streams: the next one goes on, and nobody can tell."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from benchmarks.takeover import Life, trial
from process_kit import Server

from clients.wire import Exchange, Sent, closed, create, suite_events


def test_a_killed_stream_goes_on_without_a_seam(tmp_path: Path) -> None:
    """The invariants I1 to I5 at places drawn by chance, with two tools that run here."""
    life = Life(tmp_path)
    try:
        for seed in range(8):
            outcome, life = trial(life, tmp_path, seed)
            assert not outcome.broken, f"seed {seed}"
            assert outcome.status == "completed"
    finally:
        life.kill()


@pytest.mark.engine
def test_the_bundled_model_goes_on_too(tmp_path: Path) -> None:
    """A real engine says the same again, and goes on from there under the same id."""
    body = {"model": "ore-tiny", "input": "What is ORE?", "background": True, "stream": True}
    with Server(tmp_path, engine=True) as server:
        server.wait_until_ready()
        seen = seen_until_cut_off(server.url, body, cut=server.kill)
    response_id = seen[0].json["response"]["id"]
    with Server(tmp_path, engine=True) as server:
        server.wait_until_ready()
        path = f"/v1/responses/{response_id}?stream=true"
        rest = replayed(server.url, f"{path}&starting_after={len(seen) - 1}")
        whole = replayed(server.url, path)
        plain = create(server.url, model="ore-tiny", input="What is ORE?").json()
    assert [*seen, *rest] == whole
    ended = whole[-1].json["response"]
    assert ended["status"] == "completed"
    assert ended["output"][-1]["content"] == plain["output"][-1]["content"]


def seen_until_cut_off(url: str, body: dict[str, Any], *, cut: Callable[[], None]) -> list[Sent]:
    """The events of a stream that is broken off by `cut`, called after 12 of them."""
    seen = []
    with Exchange(url, body) as exchange, pytest.raises(ConnectionError):
        exchange.head()
        for sent in suite_events(exchange.chunks()):
            seen.append(sent)
            if len(seen) == 12:
                cut()
    return seen


def replayed(url: str, path: str) -> list[Sent]:
    with Exchange(url, method="GET", path=path) as exchange:
        exchange.head()
        return closed(list(suite_events(exchange.chunks())))


def test_a_stopped_server_lets_go_of_what_it_cannot_finish(tmp_path: Path) -> None:
    """SIGTERM: followers are cut off without a clean end, the exit is orderly, and the next server goes on at once."""
    body = {"model": "steady", "input": "Hi", "background": True, "stream": True}
    with Server(tmp_path, server__shutdown_grace=0.1) as server:
        server.wait_until_ready()
        seen = seen_until_cut_off(server.url, body, cut=partial(server.send, signal.SIGTERM))
        assert server.wait() == 0
        assert "Traceback" not in server.log
    response_id = seen[0].json["response"]["id"]
    with Server(tmp_path) as server:
        server.wait_until_ready()
        rest = replayed(server.url, f"/v1/responses/{response_id}?stream=true&starting_after={len(seen) - 1}")
        assert [sent.json["sequence_number"] for sent in (*seen, *rest)] == list(range(len(seen) + len(rest)))
        assert rest[-1].type == "response.completed"
