"""`ore serve` up to the point where the server is built, and what it says once that is up."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ore import __version__, settings
from ore.commands import serve as serve_module
from ore.commands.address import port_holder, port_problem
from ore.commands.serve import announcement
from ore.settings import ModelSettings, ServerSettings, Settings

URL = "http://127.0.0.1:8000"
EVERYWHERE = "0.0.0.0"


@pytest.fixture
def built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the composition root was asked to serve; nothing is really served."""
    asked: list[Settings] = []
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", folder / "tiny.gguf")
    monkeypatch.setattr(serve_module, "_run", asked.append)
    return asked


def test_flags_are_over_variables_and_the_file(
    ore: Any, folder: Path, built: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is served is the file, the environment and the flags together."""
    (folder / "ore.toml").write_text("[server]\nport = 0\nkeep_alive = 7\n[log]\nlevel = 'error'\n")
    monkeypatch.setenv("ORE_LOG__LEVEL", "debug")
    arguments = ["--host", "localhost", "--log-level", "warning", "--data-dir", "here"]
    assert ore("serve", "ore-tiny", *arguments).exit_code == 0
    (served,) = built
    assert served.server == ServerSettings(host="localhost", port=0, keep_alive=7.0)
    assert (served.log.level, served.data_dir) == ("warning", str(folder / "here"))
    assert served.models == {"ore-tiny": ModelSettings(path="ore-tiny")}
    assert served.default_model == "ore-tiny"


def test_a_public_address_is_refused_unless_the_user_insists(ore: Any, built: list[Settings]) -> None:
    """There are no keys yet, and the sentence says so."""
    refused = ore("serve", "--host", EVERYWHERE, "--port", "0")
    assert refused.exit_code == 2
    assert "ORE cannot ask for keys yet" in refused.output
    assert "--insecure-no-auth" in refused.output
    assert built == []
    assert ore("serve", "--host", EVERYWHERE, "--port", "0", "--insecure-no-auth").exit_code == 0
    assert len(built) == 1


def test_a_missing_bundled_model_is_refused(ore: Any, folder: Path, built: list[Settings]) -> None:
    """A checkout without the model says so instead of failing inside the engine."""
    (folder / "tiny.gguf").unlink()
    refused = ore("serve", "--port", "0")
    assert (refused.exit_code, built) == (2, [])
    assert "no ore-tiny, the bundled model" in refused.output


def test_a_taken_port_is_refused_with_the_process_that_has_it(ore: Any, built: list[Settings]) -> None:
    """On Linux the process is told; everywhere the fix is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = ore("serve", "--port", str(port))
        assert port_holder(port) is None or f"(process {os.getpid()})" in refused.output
    assert (refused.exit_code, built) == (2, [])
    assert f"Port {port} on 127.0.0.1 is taken" in refused.output
    assert "--port 0" in refused.output


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells by /proc")
def test_the_holder_of_a_port_is_found() -> None:
    """By its inode in /proc; nobody holds a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (port_holder(port) or "").endswith(f"(process {os.getpid()})")
    assert port_holder(port) is None


def test_addresses_that_cannot_work_are_told_apart() -> None:
    """A name nobody knows, an address of another machine, and one that works."""
    assert "cannot look up" in (port_problem("no host", 0) or "")
    assert "This machine has no address 192.0.2.1" in (port_problem("192.0.2.1", 0) or "")
    assert port_problem("127.0.0.1", 0) is None
    assert port_problem("localhost", 0) is None


def served(**changes: Any) -> Settings:
    return Settings(data_dir="/data", **{"default_model": "tiny", **changes})


def address(*models: str) -> Any:
    return SimpleNamespace(host="127.0.0.1", port=8000, url=URL, models=list(models))


def test_what_is_printed_once_the_server_is_up() -> None:
    """One fact a line, then two lines to copy."""
    assert announcement(served(), address("tiny", "other")) == [
        f"ORE     {__version__}",
        f"URL     {URL}/v1",
        "models  tiny (default), other",
        "store   /data",
        f"docs    {URL}/docs",
        "key     none is needed on loopback; give clients any word",
        "",
        f"curl {URL}/v1/responses -H 'content-type: application/json' -d "
        """'{"model": "tiny", "input": "Hello"}'""",
        f"""python -c "from openai import OpenAI; client = OpenAI(base_url='{URL}/v1', api_key='local'); """
        """print(client.responses.create(model='tiny', input='Hello').output_text)\"""",
        "",
    ]


def test_what_is_off_is_not_promised() -> None:
    """No docs link without docs, no talk of loopback in public."""
    public = served(
        default_model="",
        server=ServerSettings(docs=False, host=EVERYWHERE, insecure_no_auth=True),
    )
    lines = announcement(public, address("a", "b"))
    assert [line for line in lines if line.startswith("docs")] == []
    assert "models  a, b" in lines
    assert "key     none: whoever reaches it may use it" in lines


@pytest.mark.parametrize("model", ["tiny", "it's", 'say "hi"', "$HOME `x` \\"])
def test_the_lines_to_copy_survive_a_shell(model: str) -> None:
    """A model's name may hold anything; the shell gives the program the same text back."""
    lines = announcement(served(default_model=model), address(model))
    curl, python = (shlex.split(line) for line in lines if line.startswith(("curl ", "python ")))
    assert json.loads(curl[-1])["model"] == model
    assert f"model={model!r}" in python[-1]
    compile(python[-1], "copied", "exec")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_server_of_a_chat_ends_with_its_parent() -> None:
    """`--until-stdin-closes` turns the end of standard input into SIGTERM, however the parent ended."""
    script = (
        "import signal; from ore.commands.serve import _stop_when_stdin_closes;"
        "signal.signal(signal.SIGTERM, lambda *_: exit(7)); _stop_when_stdin_closes();"
        "print('up', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        child.stdin.close()
        assert child.wait(20) == 7
