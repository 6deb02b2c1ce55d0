"""Idempotency keys and the end of a process: what was answered is answered again, what was not is free."""

import json
from pathlib import Path
from typing import Any

import pytest
from process_kit import Server, serving

from clients import wire

KEY = "Idempotency-Key: 5f0e"
REPLAY = "x-ore-idempotent-replay"


def post(server: Server, **body: Any) -> wire.Answer:
    with wire.Exchange(server.url, {"input": "Hi", **body}, headers=[KEY, "Connection: close"]) as exchange:
        return exchange.answer()


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"background": True}, {"background": True, "stream": True}])
def test_what_was_acknowledged_is_given_again_after_a_kill(tmp_path: Path, more: dict[str, Any]) -> None:
    """kill -9 in the moment the answer was read whole; the next process gives the very bytes."""
    with serving(tmp_path) as server:
        first = post(server, model="quick", **more)
        server.kill()
    assert first.status == 200
    with serving(tmp_path) as server:
        again = post(server, model="quick", **more)
        assert (again.status, again.body, again.headers[REPLAY]) == (200, first.body, "true")


def test_what_a_dead_process_was_answering_is_free(tmp_path: Path) -> None:
    """No answer was given, so the same request is the first again at once, in the next process."""
    body = {"input": "Hi", "model": "mute"}
    with serving(tmp_path) as server, wire.Exchange(server.url, body, headers=[KEY]):
        server.wait_until_busy()
        assert post(server, model="mute").status == 409
        server.kill()
    with serving(tmp_path) as server:
        answer = post(server, model="quick")
        assert (answer.status, REPLAY in answer.headers) == (200, False)
        assert json.loads(answer.body)["status"] == "completed"


def test_a_background_stream_that_was_cut_is_followed_and_not_begun_again(tmp_path: Path) -> None:
    """The work goes on in the next process, once; the same request under the same key gets the whole of it."""
    body = {"input": "Hi", "model": "steady", "background": True, "stream": True}
    with serving(tmp_path) as server, wire.Exchange(server.url, body, headers=[KEY]) as exchange:
        exchange.head()
        (begun, *_) = (sent for sent, _ in zip(wire.suite_events(exchange.chunks()), range(5), strict=False))
        server.kill()
    with serving(tmp_path) as server:
        with wire.Exchange(server.url, body, headers=[KEY]) as exchange:
            _, headers = exchange.head()
            events = wire.closed(list(wire.suite_events(exchange.chunks())))
        listed = wire.get(server.url, "/v1/ore/responses").json()["data"]
    assert headers[REPLAY] == "true"
    assert events[0] == begun
    assert events[-1].type == "response.completed"
    assert [one["id"] for one in listed] == [begun.json["response"]["id"]]
