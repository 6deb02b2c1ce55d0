"""What real clients sent once, sent again: their recorded requests, in order, each answered so that they could go on.

The recordings lie beside the project and are no part of it. They were made against a stub, so its model and its ids
are replaced by ours. Against the bundled model, what it says is nobody's business; a scripted one makes the very calls
that a recording then answers.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.judging import Json, Judge, check_stream, without_schema
from clients.sockets import Socket
from clients.wire import Answer, Exchange, closed, final, get, stream, suite_events
from ore.backends.base import ModelRequest
from ore.backends.scripted import Step, says
from ore.core.deltas import Finish, ToolArguments, ToolCall
from servers import OreProcess, ScriptedServer

RECORDINGS = Path(__file__).parents[3] / "shared" / "clients"
CHAINED = "codex-ws"
"""It sends the output of a call by the id of the response alone: only a model that made the call can be answered."""
STATELESS = [
    *("aisdk7-openai", "codex-http", "langchain", "llamaindex"),
    *("openai-agents-py", "openai-npm", "openai-python"),
]
STUB = "stub-model"
NAMED = re.compile(r"\b(resp|conv)_\w+")
GIVEN = re.compile(r"\w+_[0-9a-f]{32}")
"""An id that the stub gave. What the recorder made up is shorter."""
OUTSIDE = ("/v1/chat/completions", "/v1/files", "/v1/vector_stores")
HOSTED = ("web_search", "file_search", "code_interpreter", "mcp")
OF_THE_CONNECTION = ("host", "connection", "content-", "accept-encoding", "upgrade", "sec-websocket")


def recording(name: str) -> list[Json]:
    """The requests of one client; without the recordings, a visible skip."""
    path = RECORDINGS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"the recording {path.name} is not here")
    requests: list[Json] = json.loads(path.read_text())["requests"]
    assert len(requests) >= 2
    return requests


class Lenient:
    """The published schema as a judge of everything but tools that it does not know, which go back as they came."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def check(self, name: str, value: Any) -> None:
        self._judge.check(name, known(value))


def known(value: Json) -> Json:
    """A response or an event with functions for its only tools."""
    if "response" in value:
        return {**value, "response": known(value["response"])}
    if "tools" not in value:
        return value
    return {**value, "tools": [tool for tool in value["tools"] if tool["type"] == "function"]}


class Replay:
    """One recording against one server. `send` gives the output of the response that was made, if one was."""

    def __init__(self, url: str, model: str, judge: Judge) -> None:
        self.url = url
        self.model = model
        self.judge = Lenient(judge)
        self.socket: Socket | None = None
        self.ids: dict[str, str] = {}
        """Ours, by the id that was recorded."""
        self.newest: dict[str, str] = {}
        """The last id of each kind that we gave: what a client names next is what it was given last."""

    def send(self, sent: Json) -> list[Json]:
        """Send one recorded request; its answer has to be what the client needs to go on."""
        match sent["kind"]:
            case "ws_open":
                self.socket = Socket(self.url, sent["path"], additional_headers=dict(headers(sent)))
            case "ws_message":
                return self._turn(self._body(sent["body"]))
            case "ws_close":
                self._connected().ws.close()
            case _:
                return self._exchange(sent)
        return []

    def _connected(self) -> Socket:
        assert self.socket is not None
        return self.socket

    def _turn(self, body: Json) -> list[Json]:
        self._connected().say(body)
        return self._made(check_stream(self.judge, self._connected().rest()))

    def _exchange(self, sent: Json) -> list[Json]:
        path = NAMED.sub(lambda found: self._id(found[0]), sent["path"]).replace(STUB, self.model)
        query = "?" + sent["query"] if "query" in sent else ""
        lines = [f"{name}: {value}" for name, value in headers(sent)]
        body = self._body(sent.get("body"))
        with Exchange(self.url, body, method=sent["method"], path=path + query, headers=lines) as exchange:
            status, head = exchange.head()
            if wants_stream(sent) and status == 200:
                assert head["content-type"].partition(";")[0] == "text/event-stream"
                return self._made(check_stream(self.judge, closed(list(suite_events(exchange.chunks())))))
            answer = Answer(status, head, exchange.rest())
        return self._judged(answer, sent, path)

    def _judged(self, answer: Answer, sent: Json, path: str) -> list[Json]:
        """An answer at once. What is not served says what is; what nobody streamed cannot be replayed."""
        if path in OUTSIDE:
            assert answer.status == 404
            assert "POST /v1/responses" in answer.error()["message"]
            return []
        if wants_stream(sent):
            assert not get(self.url, path).json().get("stream")
            assert (sent["method"], answer.status, answer.error()["param"]) == ("GET", 400, "stream")
            return []
        assert answer.status == 200, answer.body
        asked = {tool["type"] for tool in (sent.get("body") or {}).get("tools") or []}
        assert [kind in answer.headers.get("x-ore-warning", "") for kind in HOSTED] == [
            kind in asked for kind in HOSTED
        ]
        return self._object(answer.json(), sent, path)

    def _object(self, value: Json, sent: Json, path: str) -> list[Json]:
        """Each object by its name, and each path has its object."""
        last = path.rpartition("/")[2]
        if sent["method"] == "DELETE":
            assert (value["id"], value["deleted"]) == (last, True)
        elif last in ("items", "input_items", "models"):
            assert (value["object"], type(value["data"])) == ("list", list)
        elif last == "input_tokens":
            assert (value["object"], value["input_tokens"] > 0) == ("response.input_tokens", True)
        elif last == "compact":
            self.judge.check("CompactResource", value)
        elif "/models/" in path:
            assert (value["object"], value["id"]) == ("model", self.model)
        elif "/conversations" in path:
            assert value["object"] == "conversation"
            self.newest["conv"] = value["id"]
        else:
            self.judge.check("ResponseResource", without_schema(value))
            return self._made(value)
        return []

    def _made(self, response: Json) -> list[Json]:
        assert response["error"] is None
        assert response["model"] == self.model
        self.newest["resp"] = response["id"]
        return list(response["output"])

    def _body(self, body: Json | None) -> Any:
        """With our model, kept brief, for a small one may go on for ever; and with our id."""
        if body is None or "_raw" in body:
            return body and body["_raw"].encode()
        changed = dict(body)
        if "model" in body:
            changed |= {"model": self.model, "max_output_tokens": body.get("max_output_tokens") or 48}
        if body.get("previous_response_id"):
            changed["previous_response_id"] = self._id(body["previous_response_id"])
        return changed

    def _id(self, recorded: str) -> str:
        """Ours for a recorded one; one that the recorder made up is made for it here."""
        kind = recorded.partition("_")[0]
        if recorded not in self.ids:
            self.ids[recorded] = self.newest[kind] if GIVEN.fullmatch(recorded) else self._needed(kind)
        return self.ids[recorded]

    def _needed(self, kind: str) -> str:
        if kind == "conv":
            return self.newest["conv"]
        return str(final(stream(self.url, model=self.model, input="Hi", background=True, max_output_tokens=16))["id"])


def headers(sent: Json) -> Iterator[tuple[str, str]]:
    """The client's own headers; not those of the connection, nor those that the recorder cut."""
    for name, value in sent["headers"].items():
        if value.isascii() and not name.lower().startswith(OF_THE_CONNECTION):
            yield name, value


def wants_stream(sent: Json) -> bool:
    return bool((sent.get("body") or {}).get("stream")) or "stream=true" in sent.get("query", "")


@pytest.mark.engine
@pytest.mark.parametrize("name", STATELESS)
def test_the_bundled_model_answers_every_request(name: str, tiny: OreProcess, specification: Judge) -> None:
    """Every recorded request gets the status, the content type and the object that its client waits for."""
    replay = Replay(tiny.url, "ore-tiny", specification)
    for sent in recording(name):
        replay.send(sent)


class Caller:
    """A scripted model that makes the calls which are waiting, and else says something that fits."""

    def __init__(self) -> None:
        self.waiting: list[Json] = []

    def __call__(self, request: ModelRequest) -> list[Step]:
        if not self.waiting:
            return says(fitting(request.text_format.get("schema")))
        calls: list[Step] = []
        for call in self.waiting:
            calls += [ToolCall(call["call_id"], call["name"]), ToolArguments(call["arguments"])]
        self.waiting = []
        return [*calls, Finish("tool_calls")]


def fitting(schema: Json | None) -> str:
    """Text, or an object of strings and numbers."""
    if schema is None:
        return "Hello."
    return json.dumps({key: "x" if kind["type"] == "string" else 1 for key, kind in schema["properties"].items()})


def answered(sent: Json) -> list[Json]:
    """The calls whose outputs a recorded request holds; one that it does not repeat runs a command."""
    items = (sent.get("body") or {}).get("input")
    items = items if isinstance(items, list) else []
    calls = {item["call_id"]: item for item in items if item.get("type") == "function_call"}
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    chained = {"name": "exec_command", "arguments": '{"cmd": "ls"}'}
    return [calls.get(call_id) or {"call_id": call_id, **chained} for call_id in outputs]


@pytest.mark.parametrize("name", [*STATELESS, CHAINED])
def test_a_call_that_is_answered_was_made(name: str, scripted: ScriptedServer, specification: Judge) -> None:
    """Where the recording goes on with the output of a call, our answer before it holds that call."""
    model = scripted.scripts[STUB] = Caller()
    replay = Replay(scripted.url, STUB, specification)
    requests = recording(name)
    for sent, later in zip(requests, [*requests[1:], {}], strict=True):
        model.waiting = answered(later)
        expected = [(call["name"], call["call_id"]) for call in model.waiting]
        made = [(item["name"], item["call_id"]) for item in replay.send(sent) if item["type"] == "function_call"]
        assert made == expected
        if calls := answered(sent):
            assert scripted.backend.requests[-1].items[-1]["call_id"] == calls[-1]["call_id"]
    del scripted.scripts[STUB]
