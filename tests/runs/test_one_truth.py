"""One truth: a stream, a waiting call and a later `GET` are the same response, for random scripts and faults anywhere.

Everything goes over real HTTP, and what is compared is bytes: only ids are replaced by the order of their appearance.
"""

import http.client
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.writing import scripts
from ore.backends.scripted import Step
from ore.core.deltas import Finish, Usage
from ore.errors import ModelFailed, Unavailable
from ore.ids import PREFIXES
from servers import ScriptedServer

OURS = re.compile(rb'"((?:%s)_[0-9a-f]{32})"' % "|".join(sorted(set(PREFIXES.values()))).encode())
MEMORY = Path("/dev/shm")  # noqa: S108
DONE = b"data: [DONE]\n\n"
FRAME = re.compile(rb"event: ([a-z_.]+)\ndata: ([^\r\n]+)\n\n")
ENDINGS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


Answer = tuple[int, bytes]


class Client:
    """Connections that are kept alive; what is asked at once goes out at once, each on its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def post(self, *bodies: dict[str, Any]) -> list[Answer]:
        kind = {"content-type": "application/json"}
        return self._ask([("POST", "/v1/responses", msgspec.json.encode(body), kind) for body in bodies])

    def get(self, *ids: str) -> list[Answer]:
        return self._ask([("GET", f"/v1/responses/{one}", None, {}) for one in ids])

    def _ask(self, requests: list[tuple[str, str, bytes | None, dict[str, str]]]) -> list[Answer]:
        while len(self._connections) < len(requests):
            self._connections.append(http.client.HTTPConnection("127.0.0.1", self._port, timeout=30))
        used = self._connections[: len(requests)]
        for connection, request in zip(used, requests, strict=True):
            connection.request(*request)
        answers = [connection.getresponse() for connection in used]
        return [(answer.status, answer.read()) for answer in answers]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    """A scripted server that is fast enough for thousands of answers: its database lies in memory where it can."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        ScriptedServer(Path(folder)) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def client(server: ScriptedServer) -> Iterator[Client]:
    one = Client(server.port)
    yield one
    one.close()


def anonymous(body: bytes) -> bytes:
    """The same bytes with each id of ours replaced by its place in the order of appearance."""
    seen: dict[bytes, bytes] = {}
    return OURS.sub(lambda found: seen.setdefault(found[1], b'"id_%d"' % len(seen)), body)


def frames(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The events of a stream, framed as 8.1 says: LF only, `event` and one `data` line each, `[DONE]` last."""
    assert b"\r" not in stream
    assert stream.endswith(DONE)
    found = list(FRAME.finditer(stream))
    assert b"".join(frame[0] for frame in found) + DONE == stream
    return [(frame[1], frame[2]) for frame in found]


def check_stream(stream: bytes) -> bytes:
    """Check the events of a stream, and give the response of its terminal event as it stood on the wire."""
    events = frames(stream)
    heads = [_head.decode(data) for _, data in events]
    assert [head.type.encode() for head in heads] == [name for name, _ in events]
    assert [head.sequence_number for head in heads] == list(range(len(heads)))
    assert [head.type for head in heads[:2]] == ["response.created", "response.in_progress"]
    assert [head.type in ENDINGS for head in heads].count(True) == 1
    terminal = bytes(heads[-1].response)
    assert msgspec.json.decode(terminal)["status"] == ENDINGS[heads[-1].type]
    return terminal


class Head(msgspec.Struct):
    """What all events have, and the response of some as it stood on the wire."""

    type: str
    sequence_number: int
    response: msgspec.Raw = msgspec.Raw()


_head = msgspec.json.Decoder(Head)


FAULTS = st.sampled_from(
    [
        ModelFailed("The engine is gone.", code="engine_gone"),
        Unavailable("The engine is full."),
        ValueError("a bug that nobody may see"),
        None,
    ]
)
"""What happens at a step; None: the backend's stream just ends there."""

FINISHES = st.builds(
    Finish,
    st.sampled_from(["stop", "tool_calls", "max_output_tokens", "content_filter"]),
    st.builds(Usage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
)


def faulty(steps: list[Step], fault: Exception | None) -> Iterator[list[Step]]:
    """The script as it is, and then with the fault at every place."""
    yield steps
    for at in range(len(steps)):
        yield [*steps[:at], *([fault] if fault else [])]


# For any script and a fault at any step: the stream's last response, the waiting call and both GETs are the same bytes.
@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(deltas=scripts(max_size=3), finish=FINISHES, fault=FAULTS)
def test_a_stream_a_waiting_call_and_a_get_are_the_same(
    server: ScriptedServer, client: Client, deltas: list[Any], finish: Finish, fault: Exception | None
) -> None:
    """However a client asks, and whatever goes wrong, there is one response."""
    told = {f"truth-{at}": steps for at, steps in enumerate(faulty([*deltas, finish], fault))}
    server.scripts.update(told)
    asked = [{"model": name, "input": "Hi", "stream": stream} for name in told for stream in (True, False)]
    answers = client.post(*asked)
    responses: list[bytes] = []
    for steps, streamed, waited in zip(told.values(), answers[::2], answers[1::2], strict=True):
        assert b"nobody may see" not in streamed[1] + waited[1]
        if steps and isinstance(steps[0], Exception):  # refused before anything began: a plain error either way
            assert streamed == waited
            assert streamed[0] >= 500
            continue
        assert streamed[0] == waited[0] == 200
        last = check_stream(streamed[1])
        assert anonymous(last) == anonymous(waited[1])
        responses += last, waited[1]
    assert client.get(*map(id_of, responses)) == [(200, response) for response in responses]
    assert server.backend.active == 0


def id_of(response: bytes) -> str:
    return str(msgspec.json.decode(response)["id"])


def both(client: Client, **body: Any) -> list[Answer]:
    """What a stream and a waiting call answer."""
    return client.post(body | {"stream": True}, body)


def test_what_is_not_stored_is_the_same_too(server: ScriptedServer, client: Client) -> None:
    """With `store: false` the stream and the waiting call agree as well, and `GET` finds neither."""
    server.scripts["truth"] = [Finish("stop")]
    (_, stream), (_, waited) = both(client, model="truth", input="Hi", store=False)
    streamed = check_stream(stream)
    assert anonymous(streamed) == anonymous(waited)
    assert [status for status, _ in client.get(id_of(streamed), id_of(waited))] == [404, 404]


REFUSED: list[dict[str, Any]] = [
    {"input": 5},
    {"model": "none", "input": "Hi"},
    {"tools": {}},
    {"previous_response_id": "resp_x"},
]


@pytest.mark.parametrize("body", REFUSED, ids=str)
def test_a_refusal_is_the_same(server: ScriptedServer, client: Client, body: dict[str, Any]) -> None:
    """A request that is refused gets the same plain error, with a status, whether it asked for a stream or not."""
    server.scripts["truth"] = [Finish("stop")]
    streamed, waited = both(client, **({"model": "truth"} | body))
    assert streamed == waited
    assert streamed[0] in (400, 404)
    assert set(msgspec.json.decode(streamed[1])) == {"error"}
