"""`Idempotency-Key` over real HTTP: answers given again, conflicts, and keys that are free again."""

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live_server import Answer, RawClient, ask, wait_for

from ore.backends.scripted import says
from ore.errors import DeadlineExceeded, ModelFailed, StorageFailed, TooManyRequests, Unavailable
from ore.server import idempotency
from ore.settings import ServerSettings, Settings
from servers import ScriptedServer

REPLAY = "x-ore-idempotent-replay"
_numbers = itertools.count()

CREATES: dict[str, tuple[str, dict[str, Any]]] = {
    "a response": ("/v1/responses", {"model": "counting", "input": "Hi"}),
    "a stream": ("/v1/responses", {"model": "counting", "input": "Hi", "stream": True}),
    "a padded stream": (
        "/v1/responses",
        {"model": "counting", "input": "Hi", "stream": True, "stream_options": {"include_obfuscation": True}},
    ),
    "a background response": ("/v1/responses", {"model": "counting", "input": "Hi", "background": True}),
    "a background stream": ("/v1/responses", {"model": "counting", "input": "Hi", "background": True, "stream": True}),
    "a compaction": ("/v1/responses/compact", {"model": "counting", "input": "Hi"}),
    "a conversation": ("/v1/conversations", {"items": [{"role": "user", "content": "Hi"}]}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path_factory.mktemp("idempotency"), Settings(server=ServerSettings())) as server:
        server.scripts["counting"] = lambda _: says(f"answer {next(_numbers)}", pieces=3)
        server.scripts["silent"] = [30.0, *says("At last.")]
        yield server


@pytest.fixture
def key() -> str:
    return f"key {next(_numbers)}"


def post(server: ScriptedServer, key: str | None, path: str, body: Any, **headers: str) -> Answer:
    """A POST on a connection of its own; `body` is JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {} if key is None else {"idempotency_key": key}
    return ask(server.port, "POST", path, data, content_type="application/json", **named, **headers)


def create(server: ScriptedServer, key: str | None, **body: Any) -> Answer:
    return post(server, key, "/v1/responses", {"model": "counting", "input": "Hi", **body})


def asked(server: ScriptedServer) -> int:
    """How often a model was asked."""
    return len(server.backend.requests)


def lasting(answer: Answer) -> dict[str, str]:
    """The headers that belong to an answer, and not to its delivery."""
    delivery = ("x-request-id", "openai-processing-ms", "date", REPLAY, "content-length", "transfer-encoding")
    return {name: value for name, value in answer.headers.items() if name not in delivery}


def is_replay(answer: Answer, first: Answer) -> bool:
    """Whether an answer is the first one again, and says so."""
    same = (answer.status, lasting(answer), answer.body) == (first.status, lasting(first), first.body)
    return same and answer.headers.get(REPLAY) == "true" and REPLAY not in first.headers


@contextmanager
def sent(server: ScriptedServer, key: str, body: Any, path: str = "/v1/responses") -> Iterator[RawClient]:
    """A request that a model works on; leaving the block hangs up."""
    before = asked(server)
    data = json.dumps(body).encode()
    with RawClient(server.port) as client:
        head = f"POST {path} HTTP/1.1\r\nhost: ore\r\nidempotency-key: {key}\r\ncontent-length: {len(data)}"
        client.send(head.encode() + b"\r\n\r\n" + data)
        wait_for(lambda: asked(server) > before)
        yield client


def first_id(data: bytes) -> bytes:
    """The id of the response that is told of first."""
    found = re.search(rb"resp_[0-9a-f]+", data)
    assert found is not None
    return found[0]


SILENT: dict[str, Any] = {"model": "silent", "input": "Hi"}


class TestReplays:
    @pytest.mark.parametrize("what", CREATES)
    def test_the_same_request_gets_the_same_answer(self, server: ScriptedServer, key: str, what: str) -> None:
        """Status, headers and body, byte for byte, however often it is sent; and no model is asked again."""
        path, body = CREATES[what]
        first = post(server, key, path, body)
        assert first.status == 200
        if body.get("background"):
            wait_for(lambda: server.parts.supervisor.active == 0)
        before = asked(server)
        for _ in range(2):
            assert is_replay(post(server, key, path, body), first)
        assert asked(server) == before

    def test_items_are_added_once(self, server: ScriptedServer, key: str) -> None:
        """Adding to a conversation twice under one key adds once."""
        made = post(server, None, "/v1/conversations", {}).json()["id"]
        path, body = f"/v1/conversations/{made}/items", {"items": [{"role": "user", "content": "Hi"}]}
        first = post(server, key, path, body)
        assert is_replay(post(server, key, path, body), first)
        assert len(ask(server.port, "GET", path).json()["data"]) == 1

    def test_a_stream_is_whole(self, server: ScriptedServer, key: str) -> None:
        """What is given again of a stream ends as a stream does."""
        create(server, key, stream=True)
        again = create(server, key, stream=True)
        assert again.headers["content-type"].startswith("text/event-stream")
        assert again.body.startswith(b"event: response.created\n")
        assert again.body.endswith(b"data: [DONE]\n\n")

    def test_keep_alives_are_part_of_a_stream(self, tmp_path: Path, key: str) -> None:
        """Comment lines that went out go out again: bytes are bytes."""
        with ScriptedServer(tmp_path, Settings(server=ServerSettings(sse_keep_alive=0.01))) as server:
            server.scripts["counting"] = [0.2, *says("At last.")]
            first = create(server, key, stream=True)
            assert b": keep-alive" in first.body
            assert is_replay(create(server, key, stream=True), first)

    def test_a_compressed_body_is_the_same_body(self, server: ScriptedServer, key: str) -> None:
        """What counts is what the body says, not how it was sent."""
        body = json.dumps({"model": "counting", "input": "Hi"}).encode()
        first = post(server, key, "/v1/responses", body)
        assert is_replay(post(server, key, "/v1/responses", gzip.compress(body), content_encoding="gzip"), first)

    @pytest.mark.parametrize("fault", [ModelFailed("Broken."), ValueError("a bug"), DeadlineExceeded("Late.")])
    def test_faults_of_ours_are_given_again(self, server: ScriptedServer, key: str, fault: Exception) -> None:
        """500, 502 and 504 say that something was done: the answer stands."""
        server.scripts["faulty"] = [fault]
        first = create(server, key, model="faulty")
        assert first.status in (500, 502, 504)
        server.scripts["faulty"] = says("Better.")
        assert is_replay(create(server, key, model="faulty"), first)

    def test_a_bug_outside_of_a_run_is_given_again(
        self, server: ScriptedServer, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An exception that no endpoint caught is answered as 500, and that answer too is kept."""

        def broken(*_: Any) -> None:
            raise ValueError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(server.parts.supervisor, "start", broken)
            first = create(server, key)
        assert first.status == 500
        assert is_replay(create(server, key), first)

    def test_without_a_key_nothing_is_remembered(self, server: ScriptedServer) -> None:
        """Two requests, two answers, and no mark."""
        one, two = create(server, None), create(server, None)
        assert one.json()["id"] != two.json()["id"]
        assert REPLAY not in two.headers

    def test_other_paths_have_no_keys(self, server: ScriptedServer, key: str) -> None:
        """Where nothing is made, the header means nothing."""
        for path in ("/v1/responses/input_tokens", "/v1/conversations/conv_1"):
            post(server, key, path, {"model": "counting", "input": "Hi", "metadata": {}})
        assert REPLAY not in create(server, key).headers


class TestConflicts:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/responses", {"model": "counting", "input": "Other"}),
            ("/v1/responses/compact", {"model": "counting", "input": "Hi"}),
            ("/v1/responses?x=1", {"model": "counting", "input": "Hi"}),
        ],
        ids=["body", "path", "query"],
    )
    def test_a_key_belongs_to_one_request(self, server: ScriptedServer, key: str, path: str, body: Any) -> None:
        """Anything else under the key is a 400 that does not ask for a retry, and the first answer stays."""
        first = create(server, key)
        refused = post(server, key, path, body)
        assert refused.status == 400
        error = refused.error()
        assert (error["code"], error["param"]) == ("idempotency_key_reused", None)
        assert "new key" in error["message"].replace("\n", " ")
        assert refused.headers["x-should-retry"] == "false"
        assert is_replay(create(server, key), first)

    @pytest.mark.parametrize("stream", [True, False])
    def test_who_comes_too_early_is_told_when_to_come_back(
        self, server: ScriptedServer, key: str, stream: bool
    ) -> None:
        """409, Retry-After 1, and SDKs may repeat it; another body is a 400 all the same. No model is asked."""
        body = {**SILENT, "stream": stream}
        with sent(server, key, body):
            before = asked(server)
            early, other = post(server, key, "/v1/responses", body), create(server, key)
            assert asked(server) == before
        assert early.status == 409
        assert early.error()["code"] == "idempotency_key_in_use"
        assert early.headers["retry-after"] == "1"
        assert early.headers["x-should-retry"] == "true"
        assert other.error()["code"] == "idempotency_key_reused"

    @pytest.mark.parametrize("bad", ["", "x" * 256, "ä", "a\tb"])
    def test_keys_are_printable_ascii(self, server: ScriptedServer, bad: str) -> None:
        """Anything else is a 400 before the body means anything."""
        refused = create(server, bad)
        assert (refused.status, refused.error()["code"]) == (400, "invalid_idempotency_key")

    def test_the_longest_key_is_a_key(self, server: ScriptedServer) -> None:
        """255 characters."""
        first = create(server, "~" * 255)
        assert is_replay(create(server, "~" * 255), first)


class TestFreeKeys:
    @pytest.mark.parametrize(
        ("body", "status"),
        [({"temperature": 9}, 400), ({"model": "unknown"}, 404), ({"previous_response_id": "resp_x"}, 400)],
    )
    def test_a_refused_request_leaves_its_key(self, server: ScriptedServer, key: str, body: Any, status: int) -> None:
        """After a 4xx the mended request may use the same key."""
        assert create(server, key, **body).status == status
        mended = create(server, key)
        assert (mended.status, REPLAY in mended.headers) == (200, False)

    @pytest.mark.parametrize("fault", [TooManyRequests("Full."), Unavailable("Full.")])
    def test_who_is_sent_away_may_come_back(self, server: ScriptedServer, key: str, fault: Exception) -> None:
        """429 and 503 ask for the same request again."""
        server.scripts["full"] = [fault]
        assert create(server, key, model="full").status in (429, 503)
        server.scripts["full"] = says("Room again.")
        assert create(server, key, model="full").status == 200

    def test_a_body_that_is_too_large_is_refused_as_ever(self, tmp_path: Path, key: str) -> None:
        """The limits on bodies hold, and cost nobody a key."""
        with ScriptedServer(tmp_path, Settings(server=ServerSettings(max_body_bytes=2000))) as server:
            server.scripts["counting"] = says("Hello.")
            with RawClient(server.port) as client:
                head = f"POST /v1/responses HTTP/1.1\r\nhost: a\r\nidempotency-key: {key}\r\ntransfer-encoding: chunked"
                client.send(head.encode() + b"\r\n\r\nfa0\r\n" + b" " * 4000 + b"\r\n0\r\n\r\n")
                assert client.answer().status == 413
            assert create(server, key).status == 200

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_client_that_leaves_frees_its_key(self, server: ScriptedServer, key: str, stream: bool) -> None:
        """Its work was cancelled, so whoever sends the request again is the first."""
        with sent(server, key, {**SILENT, "stream": stream}):
            pass
        wait_for(lambda: create(server, key).status == 200)

    def test_a_client_that_leaves_a_compaction_frees_its_key(self, server: ScriptedServer, key: str) -> None:
        """No summary, no answer to keep."""
        with sent(server, key, SILENT, "/v1/responses/compact"):
            pass
        wait_for(lambda: create(server, key).status == 200)

    def test_a_client_that_leaves_in_the_middle_of_its_body_has_no_key(self, server: ScriptedServer, key: str) -> None:
        """There was no request."""
        with RawClient(server.port) as client:
            head = f"POST /v1/responses HTTP/1.1\r\nhost: ore\r\nidempotency-key: {key}\r\ncontent-length: 99"
            client.send(head.encode() + b'\r\n\r\n{"model":')
        assert create(server, key).status == 200

    def test_answers_beyond_the_limit_are_not_kept(
        self, server: ScriptedServer, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They go out whole all the same."""
        monkeypatch.setattr(idempotency, "MAX_ANSWER_BYTES", 1000)
        first = create(server, key, stream=True)
        assert first.body.endswith(b"data: [DONE]\n\n")
        again = create(server, key, stream=True)
        assert (again.status, REPLAY in again.headers) == (200, False)
        assert again.body != first.body

    def test_an_answer_that_is_old_enough_is_forgotten(self, tmp_path: Path, key: str) -> None:
        """After `idempotency_hours` the key is new."""
        settings = Settings(server=ServerSettings(idempotency_hours=1e-9))
        with ScriptedServer(tmp_path, settings) as server:
            server.scripts["counting"] = says("Hello.")
            first = create(server, key).json()["id"]
            wait_for(lambda: create(server, key).json()["id"] != first)


@pytest.mark.parametrize("stream", [True, False])
def test_what_runs_in_the_background_is_answered_for_who_left(server: ScriptedServer, key: str, stream: bool) -> None:
    """The run goes on, so the client's next try gets the same response, and its stream to the end."""
    server.scripts["later"] = [0.1, *says("Whole.", pieces=2)]
    body = {"model": "later", "input": "Hi", "background": True, "stream": stream}
    with sent(server, key, body) as client:
        begun = client._until(b'"object":"response"')
    wait_for(lambda: post(server, key, "/v1/responses", body).status == 200)
    before = asked(server)
    again = post(server, key, "/v1/responses", body)
    assert again.headers[REPLAY] == "true"
    assert asked(server) == before
    if stream:
        assert b"event: response.completed" in again.body
        assert again.body.endswith(b"data: [DONE]\n\n")
    assert first_id(begun) == first_id(again.body)


def test_pages_may_read_the_mark(tmp_path: Path, key: str) -> None:
    """A browser is allowed to send the key and to see whether the answer was given before."""
    page = "https://app.example"
    with ScriptedServer(tmp_path, Settings(server=ServerSettings(cors_origins=(page,)))) as server:
        asks = {"origin": page, "access_control_request_method": "POST"}
        wanted = "authorization, idempotency-key"
        preflight = ask(server.port, "OPTIONS", "/v1/responses", **asks, access_control_request_headers=wanted)
        assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
        server.scripts["counting"] = says("Hello.")
        body = {"model": "counting", "input": "Hi"}
        post(server, key, "/v1/responses", body, origin=page)
        again = post(server, key, "/v1/responses", body, origin=page)
        assert again.headers[REPLAY] == "true"
        assert again.headers["access-control-allow-origin"] == page
        assert REPLAY in again.headers["access-control-expose-headers"]


def test_a_store_that_fails_at_the_end_keeps_nobody_from_an_answer(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is there, and the response is stored: only the key is lost."""

    async def full(*_: Any, **__: Any) -> None:
        raise StorageFailed("Full.")

    with ScriptedServer(tmp_path) as server:
        server.scripts["counting"] = says("Hello.")
        monkeypatch.setattr(server.parts.store, "complete", full)
        assert create(server, key).json()["status"] == "completed"
