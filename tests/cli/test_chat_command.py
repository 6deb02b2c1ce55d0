"""`ore chat` against a scripted server: what it sends, what it shows, and how it ends when things go wrong."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ore.commands import chat as chat_module
from ore.commands.child import child_server
from ore.commands.conversation import Conversation, Piece, events_of, pieces_of, served_models
from ore.commands.screen import Terminal
from ore.errors import StartupError

Event = dict[str, Any]


def said(*pieces: str, id: str = "resp_1") -> list[Event]:
    """An answer that says these pieces."""
    return [
        {"type": "response.created", "response": {"id": id}},
        *({"type": "response.output_text.delta", "delta": piece} for piece in pieces),
        {"type": "response.completed", "response": {"id": id}},
    ]


CALL = {"type": "function_call", "name": "weather", "arguments": '{"city": "Oslo"}', "call_id": "c"}
ERROR = {"type": "error", "error": {"message": "It broke.", "code": "server_error"}, "message": "It broke."}
FAILED = {"type": "response.failed", "response": {"id": "resp_f", "error": {"message": "It broke."}}}


class Server(ThreadingHTTPServer):
    """Answers each POST with the next of `answers`: a list of events, or a status and a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers: list[Any] = []
        self.received: list[Any] = []
        self.models = ["tiny", "other"]
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Exchange(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        self._send(200 if found else 404, json.dumps({"data": [{"id": name} for name in self.server.models]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(json.loads(body) if self.path == "/v1/responses" else self.path)
        answer = self.server.answers.pop(0)
        if isinstance(answer, tuple):
            self._send(*answer)
            return
        stream = b": hello\n\n" + b"".join(
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in answer
        )
        self._send(200, stream + b"data: [DONE]\n\n")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_one_question_prints_the_answer_alone(ore: Any, server: Server) -> None:
    """Standard output is the answer and a newline; the request is a streamed one with the system text."""
    server.answers = [said("Hel", "lo.")]
    found = ore("chat", "--url", server.url, "--once", "Hi", "--system", "Be brief.")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "Hello.\n", "")
    assert server.received == [{"model": "tiny", "input": "Hi", "stream": True, "instructions": "Be brief."}]


def test_messages_are_chained(ore: Any, server: Server) -> None:
    """Each turn names the response before it, and /exit ends the chat before the rest of the input."""
    server.answers = [said("One.", id="resp_1"), said("Two.", id="resp_2"), said("Three.", id="resp_3")]
    found = ore("chat", "other", "--url", server.url + "/v1/", stdin="a\n\n  b \nc\n/exit\nd\n")
    assert found.stdout == "One.\nTwo.\nThree.\n"
    assert [body["input"] for body in server.received] == ["a", "b", "c"]
    assert [body.get("previous_response_id") for body in server.received] == [None, "resp_1", "resp_2"]
    assert {body["model"] for body in server.received} == {"other"}


def test_unknown_commands_are_not_for_the_model(ore: Any, server: Server) -> None:
    """They are answered with those there are; a path is a message."""
    server.answers = [said("A file.")]
    found = ore("chat", "--url", server.url, stdin="/help\n/model tiny\n/etc/hosts is what?\n")
    assert (found.exit_code, found.stdout) == (0, "A file.\n")
    assert found.stderr.splitlines()[1:] == [
        "There is no /help here. /exit or Ctrl-D leaves; Ctrl-C stops an answer.",
        "There is no /model here. /exit or Ctrl-D leaves; Ctrl-C stops an answer.",
    ]


def test_tool_calls_and_cut_answers_are_shown_beside_the_answer(ore: Any, server: Server) -> None:
    """They go to standard error; an incomplete answer still continues the chain."""
    server.answers = [
        [
            {"type": "response.reasoning.delta", "delta": "hm"},
            {"type": "response.output_text.delta", "delta": "Let me"},
            {"type": "response.output_item.done", "item": CALL},
            {
                "type": "response.incomplete",
                "response": {"id": "resp_i", "incomplete_details": {"reason": "max_output_tokens"}},
            },
        ],
        said("Done."),
    ]
    found = ore("chat", "--url", server.url, stdin="a\nb")
    assert found.stdout == "Let me\nDone.\n"
    assert 'tool: weather({"city": "Oslo"})\nnote: The answer was cut short: max_output_tokens.\n' in found.stderr
    assert server.received[1]["previous_response_id"] == "resp_i"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([ERROR, FAILED], "error: It broke.\n"),
        ([FAILED], "error: It broke.\n"),
        ([{**ERROR, "error": None}], "error: It broke.\n"),
        ((400, json.dumps({"error": {"message": "No such model."}}).encode()), "error: No such model.\n"),
        ((502, b"<html>"), "error: The server answered with HTTP status 502.\n"),
        ([{"type": "response.created"}], "error: The server ended the stream before the answer was complete.\n"),
        ((200, b"data: nonsense\n\n"), "is no stream of Responses events"),
        ((200, b'data: {"no": "type"}\n\n'), "is no stream of Responses events"),
        ((200, b"data: []\n\n"), "is no stream of Responses events"),
    ],
)
def test_a_failed_answer_is_one_line_and_status_1(ore: Any, server: Server, answer: Any, message: str) -> None:
    """Whether the server says so before the stream, in it, or just stops; and it is said once."""
    server.answers = [answer]
    found = ore("chat", "--url", server.url, "--once", "Hi")
    assert found.exit_code == 1
    assert message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_failed_answer_leaves_no_trace_in_the_chain(ore: Any, server: Server) -> None:
    """The next message continues from the last answer that was complete."""
    server.answers = [said("One."), [ERROR, FAILED], said("Three.")]
    ore("chat", "--url", server.url, stdin="a\nb\nc")
    assert [body.get("previous_response_id") for body in server.received] == [None, "resp_1", "resp_1"]


def test_a_forgotten_conversation_starts_anew(ore: Any, server: Server) -> None:
    """When the server no longer has the chain, the chat says so and goes on without it."""
    gone = {"error": {"message": "Not found.", "code": "previous_response_not_found"}}
    server.answers = [said("One."), (400, json.dumps(gone).encode()), said("Three.")]
    found = ore("chat", "--url", server.url, stdin="a\nb\nc")
    assert "the next message starts anew" in found.stderr
    assert "previous_response_id" not in server.received[2]


def test_ctrl_c_stops_one_answer(ore: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat goes on; with `--once` it ends with the status that shells use for Ctrl-C."""

    def interrupted(self: Conversation, text: str) -> Iterator[Piece]:
        yield Piece("text", "Well")
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "ask", interrupted)
    found = ore("chat", "--url", server.url, stdin="a\nb")
    assert (found.exit_code, found.stdout) == (0, "Well\nWell\n")
    assert found.stderr.count("note: Stopped.") == 2
    assert ore("chat", "--url", server.url, "--once", "a").exit_code == 130


def test_leaving_an_answer_closes_its_connection(server: Server) -> None:
    """That is how the server learns that nobody wants the rest."""
    server.answers = [said("One.", "Two.")]
    conversation = Conversation(server.url, "tiny")
    answer = conversation.ask("Hi")
    assert next(answer) == Piece("text", "One.")
    answer.close()
    assert conversation.previous_response_id is None


def test_no_server_at_the_url_is_one_sentence(ore: Any, server: Server) -> None:
    """Nothing listens, no URL at all, a server without models."""
    server.models = []
    assert "lists no models" in ore("chat", "--url", server.url).stderr
    assert "No server answers" in ore("chat", "--url", "http://127.0.0.1:1").stderr
    refused = ore("chat", "--url", "localhost:8000")
    assert (refused.exit_code, "is no URL" in refused.stderr) == (2, True)
    refused = ore("chat", "--url", "http://localhost:port")
    assert (refused.exit_code, "is no URL" in refused.stderr) == (2, True)


def test_a_running_server_of_these_settings_is_used(ore: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --url, the address of the settings is tried first, and a server there with the model is taken."""
    monkeypatch.setattr(chat_module, "child_server", None)
    monkeypatch.setenv("ORE_SERVER__PORT", server.url.rsplit(":", 1)[1])
    monkeypatch.setenv("ORE_MODELS__OTHER__PATH", "/other.gguf")
    server.answers = [said("Yes.")]
    assert ore("chat", "--once", "There?").stdout == "Yes.\n"
    assert server.received[0]["model"] == "other"


def test_without_a_server_one_is_started_for_the_chat(
    ore: Any, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same model, settings file and data folder."""
    from contextlib import contextmanager

    (folder / "small.gguf").touch()

    started: list[list[str]] = []

    @contextmanager
    def child(arguments: list[str]) -> Iterator[str]:
        started.append(arguments)
        yield server.url

    monkeypatch.setattr(chat_module, "child_server", child)
    monkeypatch.setenv("ORE_SERVER__PORT", "0")
    server.answers = [said("Yes.")]
    assert ore("chat", "./small.gguf", "--data-dir", "d", "--once", "There?").stdout == "Yes.\n"
    assert started == [["./small.gguf", "--data-dir", "d", "--log-level", "warning"]]
    assert server.received[0]["model"] == "small"


def test_the_running_server_is_used_with_what_it_serves(
    ore: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without MODEL the chat takes what is there: a second server could not have the data folder anyway."""
    monkeypatch.setenv("ORE_SERVER__PORT", server.url.rpartition(":")[2])
    server.models = ["mine", "other"]
    server.answers = [said("Yes.")]
    assert ore("chat", "--once", "There?").stdout == "Yes.\n"
    assert server.received[0]["model"] == "mine"


def test_a_model_of_a_provider_need_not_be_listed(ore: Any, server: Server) -> None:
    """A provider may have more models than it lists: the server is asked, and knows."""
    server.models = ["openai/gpt-5"]
    server.answers = [said("Yes.")]
    assert ore("chat", "openai/gpt-5-new", "--url", server.url, "--once", "There?").stdout == "Yes.\n"
    assert server.received[0]["model"] == "openai/gpt-5-new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope", "--url", "URL"], "has no model nope; it has tiny, other."),
        (["--url", "URL", "--data-dir", "d"], "leave --data-dir and --config out"),
        (["nope.gguf"], "has no file"),
        (["Is it true?"], "There is no model 'Is it true?'; to ask that: ore chat --once 'Is it true?'\n"),
        (["Is it true?", "--url", "URL"], "to ask that: ore chat --once 'Is it true?'\n"),
    ],
)
def test_what_cannot_work_is_one_sentence(ore: Any, server: Server, arguments: list[str], message: str) -> None:
    """Before anything is asked or started."""
    found = ore("chat", *[server.url if word == "URL" else word for word in arguments], stdin="Hi\n")
    assert (found.exit_code, found.stdout) == (2, "")
    assert message in found.stderr
    assert server.received == []


def test_a_failed_line_of_a_pipe_is_status_1(ore: Any, server: Server) -> None:
    """The lines after it are asked all the same."""
    server.answers = [[ERROR, FAILED], said("Two.")]
    found = ore("chat", "--url", server.url, stdin="a\nb\n")
    assert (found.exit_code, found.stdout) == (1, "Two.\n")


SERVES = """
import sys
print(*sys.argv[1:], file=open("arguments", "w"))
print("ORE     1\\nURL     http://127.0.0.1:77/v1", flush=True)
sys.stdin.read()
"""


def test_a_child_server_is_asked_for_a_free_port_and_stopped(folder: Path) -> None:
    """Its URL is read from what it prints; at the end it is gone."""
    with child_server(["tiny"], program=[sys.executable, "-c", SERVES]) as url:
        assert url == "http://127.0.0.1:77/v1"
    asked = (folder / "arguments").read_text().split()
    assert asked == ["serve", "tiny", "--host", "127.0.0.1", "--port", "0", "--until-stdin-closes"]


def test_a_child_server_that_cannot_start_is_one_sentence() -> None:
    """Its own message has gone to standard error before."""
    with (
        pytest.raises(StartupError, match="could not start"),
        child_server([], program=[sys.executable, "-c", "exit(2)"]),
    ):
        pass


def test_on_a_terminal_a_model_cannot_steer_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and markup in an answer are text or nothing."""
    screen = Terminal()
    for text in ("a\x1b[2Jb", "\x9b31m[red]c\r\n", "\td :smile:"):
        screen.show(Piece("text", text))
    screen.show(Piece("tool", "f(\x07)"))
    screen.end()
    assert capsys.readouterr().out == "a[2Jb31m[red]c\n        d :smile:\ntool: f()\n"


def test_events_are_read_from_lines() -> None:
    """Comments, event names and the marker are skipped; data over several lines is one object."""
    lines = b': hi\n\nevent: x\ndata: {"type":\r\ndata: "x"}\r\n\r\ndata:{"type":"y"}\n\ndata: [DONE]\n\ndata: {"cut'
    assert list(events_of(lines.splitlines(keepends=True))) == [{"type": "x"}, {"type": "y"}]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (CALL, 'weather({"city": "Oslo"})'),
        ({"type": "custom_tool_call", "name": "run", "input": "ls"}, "run(ls)"),
        ({"type": "web_search_call", "action": {"query": "x"}}, 'web_search_call({"query": "x"})'),
    ],
)
def test_calls_are_shown_with_their_arguments(item: Event, text: str) -> None:
    """Whatever kind of call it is."""
    assert pieces_of({"type": "response.output_item.done", "item": item}) == [Piece("tool", text)]


def test_what_is_no_model_list_is_no_server(server: Server) -> None:
    """Another program at the address is not mistaken for one of ours."""
    assert served_models(server.url) == ["tiny", "other"]
    assert served_models(server.url + "/elsewhere") is None
