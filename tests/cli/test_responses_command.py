"""`ore responses` and `ore chat --resume` over one store: with the server that has it, and without any."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clients.wire import call, create, get
from ore.backends.scripted import says
from ore.commands import chat as chat_module
from ore.commands import stored as stored_module
from ore.commands.stored import told
from ore.core.deltas import Finish, Text, ToolArguments, ToolCall
from ore.errors import ModelFailed
from servers import OreProcess, ScriptedServer

Made = Callable[..., Any]
HOLD = 600.0


@pytest.fixture
def server(folder: Path) -> Iterator[ScriptedServer]:
    (folder / "data").mkdir()
    with ScriptedServer(folder / "data") as server:
        server.scripts["m"] = says("Hello there.")
        server.scripts["bad"] = [Text("x"), ModelFailed("It broke.")]
        yield server


@pytest.fixture
def made(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a response; the settings say where the store is, and that says where its server is."""
    monkeypatch.setenv("ORE_DATA_DIR", "data")
    return lambda **body: create(server.url, **{"model": "m", "input": "Hi", **body}).json()


def both(ore: Any, server: ScriptedServer, *arguments: str) -> str:
    """What a command prints: the same from the server that has the store, and from the store when it is gone."""
    asked = ore(*arguments)
    server.__exit__(None, None, None)
    read = ore(*arguments)
    assert (asked.exit_code, asked.stderr) == (0, "")
    assert (read.exit_code, read.stderr, read.stdout) == (0, "", asked.stdout)
    return str(read.stdout)


def test_the_list_is_lines_newest_first(ore: Any, server: ScriptedServer, made: Made) -> None:
    """Elsewhere than on a terminal: fields with tabs between them, and nothing that breaks the line."""
    first, second = made(), made(model="bad", input="Why\t\x1b[2J?\nWhy")
    lines = [line.split("\t") for line in both(ore, server, "responses", "list").splitlines()]
    assert [line[0] for line in lines] == [second["id"], first["id"]]
    assert lines[0][2:] == ["failed", "bad", "Why [2J? Why", "-"]
    assert lines[1][1:] == ["2026-11-18T11:06:40Z", "completed", "m", "Hi", str(first["usage"]["output_tokens"])]


def test_the_list_as_json(ore: Any, server: ScriptedServer, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summaries, as many as asked for, over as many pages as it takes."""
    monkeypatch.setattr(stored_module, "PAGE", 2)
    ids = [made()["id"] for _ in range(6)]
    found = json.loads(both(ore, server, "responses", "list", "--json", "--limit", "5"))
    assert [one["id"] for one in found] == ids[:0:-1]
    assert found[0]["object"] == "ore:response"


def test_a_response_is_shown_as_a_conversation(ore: Any, server: ScriptedServer, made: Made) -> None:
    """What was said before it, calls with their results, and its own words, in order."""
    server.scripts["calls"] = [ToolCall("c", "look"), ToolArguments('{"at":"sky"}'), Finish("tool_calls")]
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    call = made(model="calls", input="Is it blue?", tools=[tool])
    answer = {"type": "function_call_output", "call_id": "c", "output": "blue"}
    last = made(previous_response_id=call["id"], input=[answer])
    head, empty, *said = both(ore, server, "responses", "show", last["id"]).splitlines()
    assert (head, empty) == (f"{last['id']}  2026-11-18T11:06:40Z  completed  m", "")
    assert said == ["user: Is it blue?", 'tool: look({"at":"sky"})', "result: blue", "assistant: Hello there."]


def test_a_long_conversation_is_shown_whole(
    ore: Any, server: ScriptedServer, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read a page at a time."""
    monkeypatch.setattr(stored_module, "PAGE", 2)
    last = made(input=[{"role": "user", "content": str(n)} for n in range(7)])["id"]
    said = both(ore, server, "responses", "show", last).splitlines()[2:]
    assert said == [*(f"user: {n}" for n in range(7)), "assistant: Hello there."]


def test_how_it_ended_is_shown(ore: Any, made: Made) -> None:
    """A failure and a cut answer have a last line that says so."""
    assert ore("responses", "show", made(model="bad")["id"]).stdout.endswith("error: It broke.\n")


def test_as_json_it_is_what_get_gives(ore: Any, server: ScriptedServer, made: Made) -> None:
    """Byte for byte."""
    response_id = made()["id"]
    body = get(server.url, f"/v1/responses/{response_id}").body.decode()
    assert both(ore, server, "responses", "show", response_id, "--json") == f"{body}\n"


@pytest.mark.parametrize("running", [True, False])
def test_deleting_says_what_is_gone_and_what_never_was(
    ore: Any, server: ScriptedServer, made: Made, running: bool
) -> None:
    """Those that are there are deleted although another is not; the exit status tells of that."""
    first, second, kept = (made()["id"] for _ in range(3))
    if not running:
        server.__exit__(None, None, None)
    found = ore("responses", "delete", first, "resp_0", second)
    assert (found.exit_code, found.stdout) == (1, f"Deleted {first}.\nDeleted {second}.\n")
    assert found.stderr.count("\n") == 1
    assert "resp_0" in found.stderr
    assert [one["id"] for one in json.loads(ore("responses", "list", "--json").stdout)] == [kept]
    assert ore("responses", "delete", kept).exit_code == 0


def test_what_still_runs_is_not_deleted(ore: Any, server: ScriptedServer, made: Made) -> None:
    """It is said so, with status 1."""
    server.scripts["slow"] = [Text("x"), HOLD]
    running = made(model="slow", background=True)["id"]
    found = ore("responses", "delete", running)
    assert (found.exit_code, "still running" in found.stderr) == (1, True)
    call(server.url, "POST", f"/v1/responses/{running}/cancel")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("command", [["responses", "show", "resp_0"], ["chat", "--resume", "resp_0", "--once", "a"]])
def test_an_unknown_id_is_one_sentence(
    ore: Any, server: ScriptedServer, made: Made, command: list[str], running: bool
) -> None:
    """And status 1, from a server and from a store."""
    if not running:
        server.__exit__(None, None, None)
    found = ore(*command)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith("Error: Response with id 'resp_0' not found.")
    assert found.stderr.count("\n") == 1


def test_where_nothing_was_stored_nothing_is_made(ore: Any, folder: Path) -> None:
    """The list is empty, all else is one sentence, and no folder comes of asking."""
    found = ore("responses", "list", "--data-dir", "new")
    assert (found.stdout, found.stderr) == ("", f"Nothing is stored in {folder / 'new'}.\n")
    assert json.loads(ore("responses", "list", "--json", "--data-dir", "new").stdout) == []
    for command in (["responses", "show", "r"], ["responses", "delete", "r"], ["chat", "--resume"]):
        found = ore(*command, "--data-dir", "new")
        assert (found.exit_code, found.stdout) == (1, "")
        assert "Nothing is stored here yet" in found.stderr
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("", "does not say that it listens"),
        ("http://127.0.0.1:1 1\n", "does not say that it listens"),
        (f"http://127.0.0.1:1 {os.getpid()}\n", "does not answer at http://127.0.0.1:1."),
    ],
    ids=["nothing", "of a killed server", "of one that hangs"],
)
@pytest.mark.parametrize("command", [["responses", "list"], ["chat", "--resume"], ["chat", "--once", "Hi"]])
def test_a_store_whose_server_cannot_be_found_is_one_sentence(
    ore: Any, made: Made, folder: Path, left: str, message: str, command: list[str]
) -> None:
    """With a command that can be copied, whatever stands in the file that should say where it is."""
    (folder / "data/server.url").write_text(left)
    found = ore(*command)
    name = f"ore {' '.join(word for word in command if word in ('responses', 'list', 'chat'))}"
    assert (found.exit_code, found.stdout, message in found.stderr) == (2, "", True)
    assert found.stderr.endswith(f": {name} --url http://127.0.0.1:8000\n")


def test_a_url_where_no_server_is_is_one_sentence(ore: Any) -> None:
    """Nothing listens there, it is no URL, and a second place beside it."""
    found = ore("responses", "list", "--url", "http://127.0.0.1:1")
    assert (found.exit_code, "No server answers at" in found.stderr) == (2, True)
    found = ore("responses", "list", "--url", "nowhere")
    assert (found.exit_code, "is no URL" in found.stderr) == (2, True)
    found = ore("responses", "list", "--url", "http://127.0.0.1:1", "--data-dir", "d")
    assert (found.exit_code, "leave --data-dir and --config out" in found.stderr) == (2, True)


def test_a_server_elsewhere_is_asked(ore: Any, server: ScriptedServer, made: Made) -> None:
    """With and without `/v1`; one that has no list is told apart from an id that is not there."""
    response_id = made()["id"]
    for url in (server.url, f"{server.url}/v1/"):
        assert ore("responses", "show", response_id, "--url", url).stdout.endswith("assistant: Hello there.\n")
    found = ore("responses", "list", "--url", f"{server.url}/elsewhere")
    assert (found.exit_code, "it is no ORE" in found.stderr) == (1, True)


def test_a_chat_goes_on_from_the_newest_response(ore: Any, server: ScriptedServer, made: Made) -> None:
    """With its model and instructions; what was said last is shown beside the answers."""
    server.scripts["other"] = says("Still here.")
    made()
    before = made(model="other", input="My name is Ada.", instructions="Be brief.")
    found = ore("chat", "--resume", stdin="Who am I?\n")
    assert (found.exit_code, found.stdout) == (0, "Still here.\n")
    assert found.stderr.splitlines()[1:] == ["user: My name is Ada.", "assistant: Still here."]
    newest = json.loads(ore("responses", "list", "--json").stdout)[0]
    assert (newest["previous_response_id"], newest["input"]) == (before["id"], "Who am I?")
    request = server.backend.requests[-1]
    assert (request.model, request.instructions) == ("other", "Be brief.")
    assert [item["role"] for item in request.items] == ["user", "assistant", "user"]


def test_a_chat_goes_on_from_a_named_response(ore: Any, server: ScriptedServer, made: Made) -> None:
    """With another model and other instructions, if they are given."""
    server.scripts["other"] = says("Me too.")
    before = made(instructions="Be brief.")["id"]
    made()
    arguments = ["--resume", before, "--once", "And you?", "--system", "Be kind."]
    found = ore("chat", "other", *arguments)
    assert (found.exit_code, found.stdout, found.stderr) == (0, "Me too.\n", "")
    request = server.backend.requests[-1]
    assert (request.model, request.instructions) == ("other", "Be kind.")
    assert ore("responses", "list").stdout.count(before) == 1
    assert json.loads(ore("responses", "list", "--json").stdout)[0]["previous_response_id"] == before


def test_what_cannot_be_continued_is_one_sentence(ore: Any, server: ScriptedServer, made: Made) -> None:
    """A response that failed, and one that runs."""
    server.scripts["slow"] = [Text("x"), HOLD]
    for body, message in (({"model": "bad"}, "failed and cannot"), ({"model": "slow", "background": True}, "running")):
        response = made(**body)
        found = ore("chat", "--resume", stdin="Hi\n")
        assert (found.exit_code, found.stdout, message in found.stderr) == (1, "", True)
        assert found.stderr.count("\n") == 1
    call(server.url, "POST", f"/v1/responses/{response['id']}/cancel")


def test_a_chat_finds_the_server_of_its_data_folder(
    ore: Any, server: ScriptedServer, made: Made, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    """Not the one at the address of the settings, which has another folder and would not know what is continued."""
    made()
    with ScriptedServer(tmp_path_factory.mktemp("elsewhere")) as other:
        other.scripts["m"] = says("Who are you?")
        monkeypatch.setenv("ORE_SERVER__PORT", str(other.port))
        for arguments in ([], ["--resume"], ["--data-dir", "data"], ["m", "--data-dir", "data", "--resume"]):
            assert ore("chat", *arguments, "--once", "Hi").stdout == "Hello there.\n"
        assert other.backend.requests == []
        assert "has no model nope; it has" in ore("chat", "nope", "--once", "Hi").stderr


@pytest.mark.parametrize("arguments", [["--resume"], ["--data-dir", "data"]])
def test_a_chat_over_a_data_folder_without_a_server_starts_one(
    ore: Any, server: ScriptedServer, made: Made, monkeypatch: pytest.MonkeyPatch, arguments: list[str], folder: Path
) -> None:
    """Although one listens at the address of the settings."""
    (folder / "m.gguf").touch()
    monkeypatch.setenv("ORE_MODELS__M__PATH", str(folder / "m.gguf"))
    made()
    server.__exit__(None, None, None)
    started: list[list[str]] = []

    @contextmanager
    def child(given: list[str]) -> Iterator[str]:
        started.append(given)
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(chat_module, "child_server", child)
    (folder / "other").mkdir()
    with ScriptedServer(folder / "other") as other:
        other.scripts["m"] = says("Who are you?")
        monkeypatch.setenv("ORE_SERVER__PORT", str(other.port))
        ore("chat", *arguments, "--once", "Hi")
        assert (len(started), other.backend.requests) == (1, [])


def test_a_server_on_any_port_is_found_by_its_data_folder(ore: Any, folder: Path) -> None:
    """A real one says where it listens while it is up, and no longer."""
    data = folder / "data-of-it"
    data.mkdir()
    with OreProcess(data) as running:
        made = create(running.url, model="ore-tiny", input="Hello!").json()["id"]
        assert (data / "server.url").read_text() == f"{running.url} {running.process.pid}\n"
        assert ore("responses", "list", "--data-dir", "data-of-it").stdout.startswith(made)
    assert not (data / "server.url").exists()


def test_a_chat_of_yesterday_goes_on(ore: Any, folder: Path) -> None:
    """A real server that has ended, its store, and a chat that starts a server of its own over it."""
    with OreProcess(folder) as yesterday:
        before = create(yesterday.url, model="ore-tiny", input="Hello! My name is Ada.").json()["id"]
    listed = ore("responses", "list", "--data-dir", str(folder)).stdout
    assert listed.split("\t")[0] == before
    command = [sys.executable, "-m", "ore", "chat", "--resume", "--data-dir", str(folder), "--once", "What is my name?"]
    answered = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Ada" in answered.stdout
    newest = json.loads(ore("responses", "list", "--json", "--data-dir", str(folder)).stdout)[0]
    assert newest["previous_response_id"] == before


def on_terminal(*arguments: str, typed: str = "", columns: int = 200) -> tuple[int, str]:
    """Run `ore` with a terminal for everything; its exit status, and what stands on the screen."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "ore", *arguments]
    environ = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        os.write(ours, typed.encode())
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # how Linux says that the other side has closed it
            pass
        status = process.wait()
    os.close(ours)
    return status, shown.decode()


def test_on_a_terminal_the_list_is_a_table(server: ScriptedServer, made: Made) -> None:
    """With a header; what a client sent cannot steer the terminal."""
    response_id = made(input="a\x1b[2Jb [red]c")["id"]
    status, shown = on_terminal("responses", "list")
    header, line = shown.splitlines()
    assert status == 0
    assert re.sub(r"\x1b\[[0-9]*m", "", header).split() == ["ID", "CREATED", "STATUS", "MODEL", "INPUT", "TOKENS"]
    assert response_id in line
    assert "a[2Jb [red]c" in line


@pytest.mark.parametrize(
    ("columns", "header", "line"),
    [
        (120, "ID CREATED STATUS MODEL INPUT TOKENS", "completed m Tell me all that you know about w… 1"),
        (80, "ID CREATED STATUS INPUT", "completed Tell me all that…"),
    ],
)
def test_the_table_fits_the_terminal(server: ScriptedServer, made: Made, columns: int, header: str, line: str) -> None:
    """One line for each response, with its whole id; the model, the tokens and the seconds go first."""
    response_id = made(input="Tell me all that you\nknow about whales. " * 9)["id"]
    made(model="bad")
    shown = re.sub(r"\x1b\[[0-9]*m", "", on_terminal("responses", "list", columns=columns)[1]).splitlines()
    assert len(shown) == 3
    assert max(map(len, shown)) <= columns
    assert shown[0].split() == header.split()
    assert shown[2].startswith(f"{response_id}  ")
    assert " ".join(shown[2].split()).endswith(line)


@pytest.mark.parametrize("running", [True, False])
def test_the_beginning_of_an_id_is_enough(ore: Any, server: ScriptedServer, made: Made, running: bool) -> None:
    """Eight digits of it, if no other begins with them."""
    first, second = made()["id"], made(input="Bye")["id"]
    assert ore("chat", "--resume", first[:13], "--once", "And?").stdout == "Hello there.\n"
    assert json.loads(ore("responses", "list", "--json").stdout)[0]["previous_response_id"] == first
    if not running:
        server.__exit__(None, None, None)
    assert ore("responses", "show", first[:13]).stdout.startswith(f"{first}  ")
    assert "not found" in ore("responses", "show", first[:12]).stderr
    assert ore("responses", "delete", second[:20]).stdout == f"Deleted {second}.\n"
    assert "not found" in ore("chat", "--resume", second[:20], "--once", "a").stderr


def test_a_beginning_of_several_ids_is_one_sentence(ore: Any, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names one of them."""
    ids = iter(f"{n:032x}" for n in range(100))
    monkeypatch.setattr("ore.ids.secrets.token_hex", lambda _: next(ids))
    made(), made()
    found = ore("responses", "show", "resp_00000000")
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert "is the beginning of 2 ids, such as resp_0000" in found.stderr


def test_on_a_terminal_a_conversation_cannot_steer_it(server: ScriptedServer, made: Made) -> None:
    """Its control characters are dropped."""
    status, shown = on_terminal("responses", "show", made(input="a\x1b[2Jb")["id"])
    assert (status, "a[2Jb" in shown, "\x1b[2J" in shown) == (0, True, False)


def test_on_a_terminal_deleting_asks_first(ore: Any, server: ScriptedServer, made: Made) -> None:
    """No deletes nothing; `--yes` does not ask."""
    response_id = made()["id"]
    status, shown = on_terminal("responses", "delete", response_id, typed="n\n")
    assert (status, "Aborted" in shown) == (1, True)
    assert response_id in ore("responses", "list").stdout
    assert on_terminal("responses", "delete", response_id, "--yes")[0] == 0
    assert ore("responses", "list").stdout == ""


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": "plain"}, ("user", "plain")),
        ({"type": "message", "role": "user", "content": [{"type": "input_image"}]}, ("user", "[input_image]")),
        ({"type": "message", "role": "assistant", "content": [{"refusal": "No."}]}, ("assistant", "No.")),
        ({"type": "reasoning", "summary": [{"text": "Hm."}]}, ("reasoning", "Hm.")),
        ({"type": "shell_call_output", "output": {"exit": 0}}, ("result", '{"exit": 0}')),
        ({"type": "compaction"}, ("compaction", "")),
    ],
)
def test_items_are_told_with_who_says_them(item: dict[str, Any], expected: tuple[str, str]) -> None:
    """Whatever kind of item."""
    assert told(item) == expected
