"""`GET /v1/ore/responses`, the list that only ORE has: what it shows, and in which order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live_server import Answer, ask

from ore.backends.scripted import says
from ore.core.deltas import Text
from ore.errors import ModelFailed
from ore.runs.summary import WORDS, first_words
from servers import ScriptedServer

HOLD = 600.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """A server of its own: the list is the whole store's."""
    with ScriptedServer(tmp_path) as server:
        server.scripts["m"] = says("Hello.")
        yield server


def create(server: ScriptedServer, **body: Any) -> Any:
    body = {"model": "m", "input": "Hi", **body}
    return ask(server.port, "POST", "/v1/responses", msgspec.json.encode(body), content_type="application/json").json()


def listed(server: ScriptedServer, query: str = "") -> Answer:
    return ask(server.port, "GET", f"/v1/ore/responses{query}")


def test_a_response_is_one_line(server: ScriptedServer) -> None:
    """Its summary has what it answers and how it ended, and nothing that grows with the response."""
    first = create(server)
    second = create(server, input="What  is\n new?", previous_response_id=first["id"], instructions="x" * 1000)
    data = listed(server).json()["data"]
    assert [one["id"] for one in data] == [second["id"], first["id"]]
    assert data[0] == {
        "id": second["id"],
        "object": "ore:response",
        "created_at": second["created_at"],
        "status": "completed",
        "model": "m",
        "previous_response_id": first["id"],
        "conversation": None,
        "input": "What is new?",
        "output_tokens": second["usage"]["output_tokens"],
    }


def test_pages_follow_one_another(server: ScriptedServer) -> None:
    """`after` is the last id of the page before; the cursor of the end gives an empty page."""
    ids = [create(server)["id"] for _ in range(3)]
    page = listed(server, "?limit=2").json()
    assert [one["id"] for one in page["data"]] == [ids[2], ids[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    rest = listed(server, f"?limit=2&after={ids[1]}").json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    empty = listed(server, f"?after={ids[0]}").json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert [one["id"] for one in listed(server, "?order=asc").json()["data"]] == ids


def test_only_what_is_stored_is_listed(server: ScriptedServer) -> None:
    """Neither `store: false` nor what was deleted; a failed one is."""
    server.scripts["bad"] = [Text("x"), ModelFailed("It broke.")]
    gone = create(server)["id"]
    ask(server.port, "DELETE", f"/v1/responses/{gone}")
    create(server, store=False)
    failed = create(server, model="bad")["id"]
    assert [(one["id"], one["status"]) for one in listed(server).json()["data"]] == [(failed, "failed")]


def test_a_running_response_has_the_status_that_get_tells(server: ScriptedServer) -> None:
    """The store knows it as queued until it ends."""
    server.scripts["slow"] = [Text("x"), HOLD]
    made = create(server, model="slow", background=True)["id"]
    while (status := ask(server.port, "GET", f"/v1/responses/{made}").json()["status"]) == "queued":
        pass
    (line,) = listed(server).json()["data"]
    assert (line["status"], line["output_tokens"]) == (status, None) == ("in_progress", None)
    ask(server.port, "POST", f"/v1/responses/{made}/cancel", b"")
    assert listed(server).json()["data"][0]["status"] == "cancelled"


@pytest.mark.parametrize("query", ["?limit=0", "?order=up", "?after=resp_0"])
def test_a_page_that_cannot_be_is_refused(server: ScriptedServer, query: str) -> None:
    """With the parameter's name."""
    answer = listed(server, query)
    assert (answer.status, answer.error()["param"]) == (400, query[1:].partition("=")[0])


def test_without_an_upgrade_there_is_no_list_where_the_websocket_is(server: ScriptedServer) -> None:
    """`GET /v1/responses` stays what the contract says it is."""
    create(server)
    assert ask(server.port, "GET", "/v1/responses").status == 405


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "message", "content": [{"text": " a\n b"}, {"image_url": "x"}, {"text": "c"}]}, "a b c"),
        ({"type": "function_call_output", "output": "42"}, "42"),
        ({"type": "function_call_output", "output": [{"type": "input_text", "text": "43"}]}, "43"),
        ({"type": "message", "content": [{"type": "input_image"}]}, "message"),
        ({"type": "message", "content": [{"text": "x" * WORDS}]}, "x" * WORDS),
        ({"type": "message", "content": [{"text": "x" * (WORDS + 1)}]}, "x" * (WORDS - 1) + "…"),
        ({"type": "acme:thing"}, "acme:thing"),
    ],
)
def test_the_first_words_are_one_short_line(item: dict[str, Any], words: str) -> None:
    """Of whatever kind of item; one without words shows its type."""
    assert first_words(item) == words
