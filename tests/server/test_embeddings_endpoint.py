"""`POST /v1/embeddings` over scripted models: errors, aliases, keys, clients that leave."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live_server import Answer, RawClient, ask, wait_for

from ore.backends.base import Capabilities, Embedded, EmbeddingRequest
from ore.backends.scripted import ScriptedBackend, says
from ore.errors import InvalidRequest, ModelFailed, TooManyRequests, Unavailable
from ore.routing.router import Alias
from servers import ScriptedServer

EMBEDS = Capabilities(responses=False, embeddings=2)


class Embedder(ScriptedBackend):
    """A provider that embeds, or raises `fault`, or stops until `go`."""

    def __init__(self) -> None:
        super().__init__({"m": says("hello")})
        self.capabilities = EMBEDS
        self.fault: Exception | None = None
        self.stuck = False
        self.left = threading.Event()
        self.asked: list[EmbeddingRequest] = []

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        import anyio

        self.asked.append(request)
        if self.fault is not None:
            raise self.fault
        if self.stuck:
            try:
                await anyio.sleep_forever()
            finally:
                self.left.set()
        return Embedded(vectors=[[0.6, 0.8]] * len(request.inputs), input_tokens=3)


Parts = tuple[ScriptedServer, Embedder, Embedder]
"""A server, and its providers `one` and `two`."""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    first, second = Embedder(), Embedder()
    aliases = {"both": Alias(targets=("one/m", "two/m")), "mixed": Alias(targets=("chat", "two/m"))}
    server = ScriptedServer(tmp_path, providers={"one": first, "two": second}, aliases=aliases)
    server.scripts["chat"] = says("hello")
    with server:
        yield server, first, second


def embed(server: ScriptedServer, body: dict[str, Any], **headers: str) -> Answer:
    return ask(
        server.port, "POST", "/v1/embeddings", msgspec.json.encode(body), content_type="application/json", **headers
    )


def test_the_answer(parts: Parts) -> None:
    """It names the model as the client did; options reach the backend."""
    server, first, _ = parts
    answer = embed(server, {"model": "one/m", "input": ["a", "b"], "dimensions": 2, "user": "u"})
    assert answer.status == 200
    assert answer.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [0.6, 0.8]} for index in (0, 1)],
        "model": "one/m",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    (asked,) = first.asked
    assert (asked.model, asked.inputs, asked.dimensions, asked.user) == ("m", ("a", "b"), 2, "u")
    numbers = ask(server.port, "GET", "/metrics").body
    assert b'ore_embedded_inputs_total{target="one"} 2.0' in numbers
    assert b'ore_embedded_tokens_total{target="one"} 3.0' in numbers


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({"model": "chat", "input": "a"}, 400, "model", "makes no embeddings"),
        ({"model": "nobody", "input": "a"}, 404, "model", "does not exist"),
        ({"input": "a"}, 400, "model", "Missing"),
        ({"model": "one/m", "input": ""}, 400, "input", "nothing"),
    ],
)
def test_refusals(parts: Parts, body: Any, status: int, param: str, said: str) -> None:
    answer = embed(parts[0], body)
    assert (answer.status, answer.error()["param"]) == (status, param)
    assert said in answer.error()["message"]


def test_models_show_who_embeds(parts: Parts) -> None:
    listed = {model["id"]: model["capabilities"] for model in ask(parts[0].port, "GET", "/v1/models").json()["data"]}
    assert (listed["one/m"]["embeddings"], listed["one/m"]["responses"]) == (2, False)
    assert (listed["chat"]["embeddings"], listed["chat"]["responses"]) == (None, True)


@pytest.mark.parametrize("fault", [ModelFailed("no"), TooManyRequests("no"), Unavailable("no")])
def test_a_target_that_fails_is_replaced(parts: Parts, fault: Exception) -> None:
    """By the next one of the alias."""
    server, first, second = parts
    first.fault = fault
    assert embed(server, {"model": "both", "input": "a"}).json()["model"] == "both"
    assert (len(first.asked), len(second.asked)) == (1, 1)


def test_when_all_fail_the_last_fault_is_the_answer(parts: Parts) -> None:
    server, first, second = parts
    first.fault, second.fault = ModelFailed("no"), ModelFailed("broken")
    answer = embed(server, {"model": "both", "input": "a"})
    assert (answer.status, answer.error()["message"]) == (502, "broken")


def test_what_the_client_can_mend_is_told_first(parts: Parts) -> None:
    server, first, second = parts
    first.fault, second.fault = InvalidRequest("too long", param="input[0]"), ModelFailed("broken")
    assert embed(server, {"model": "both", "input": "a"}).error()["param"] == "input[0]"


def test_targets_that_do_not_embed_are_passed_over(parts: Parts) -> None:
    """For an answer the other way round: one that only embeds is not asked."""
    server, _, second = parts
    assert embed(server, {"model": "mixed", "input": "a"}).status == 200
    assert len(second.asked) == 1
    body = msgspec.json.encode({"model": "mixed", "input": "Hi"})
    answer = ask(server.port, "POST", "/v1/responses", body, content_type="application/json")
    assert answer.json()["output"][0]["content"][0]["text"] == "hello"


def test_one_that_has_failed_is_left_alone(parts: Parts) -> None:
    """After five failures in a row the client is told when to come again, and the provider is not asked."""
    server, first, _ = parts
    first.fault = ModelFailed("broken")
    assert [embed(server, {"model": "one/m", "input": "a"}).status for _ in range(6)] == [502] * 5 + [503]
    assert len(first.asked) == 5


def test_the_same_key_gets_the_same_answer(parts: Parts) -> None:
    server, first, _ = parts
    answers = [embed(server, {"model": "one/m", "input": "a"}, idempotency_key="k") for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert answers[1].headers["x-ore-idempotent-replay"] == "true"
    assert len(first.asked) == 1


def test_a_client_that_leaves_stops_the_work(parts: Parts) -> None:
    server, first, _ = parts
    first.stuck = True
    body = b'{"model":"one/m","input":"a"}'
    with RawClient(server.port) as client:
        client.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        wait_for(lambda: first.asked)
    assert first.left.wait(10)
