"""The command as a whole: quick to import, documented, and a mistake is one sentence and a status."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ore import __version__
from ore.cli import cli

HEAVY = {
    "starlette",
    "uvicorn",
    "aiohttp",
    "apsw",
    "xllamacpp",
    "rich",
    "jinja2",
    "llguidance",
    "jsonschema_rs",
    "anyio",
    "asyncio",
    "http.client",
    "ore.app",
    "ore.serving",
    "ore.server",
    "ore.backends",
    "ore.stores",
}


def process(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "ore", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["config", "show"]])
def test_the_command_imports_nothing_heavy(arguments: list[str]) -> None:
    """`ore --help` and its like must not pay for the server, the engine or the terminal's decorations."""
    command = [sys.executable, "-X", "importtime", "-m", "ore", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in found.stderr.splitlines() if line.startswith("import time:")}
    assert "click" in imported
    assert not {name for name in imported if name in HEAVY or name.split(".")[0] in HEAVY}


def test_the_version_is_told() -> None:
    """`ore --version` prints one line."""
    assert process("--version").stdout == f"ore {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--host", "::"], "others may reach"),
        (["serve", "nonsense"], "The model nonsense is not configured"),
        (["serve", "missing.gguf"], "has no file"),
        (["serve", "--config", "missing.toml"], "does not exist; write one with `ore config init"),
        (["config", "check", "--config", "wrong.toml"], "did you mean server.port?"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(folder: Path, arguments: list[str], message: str) -> None:
    """On standard error, with nothing on standard output and never a traceback."""
    (folder / "wrong.toml").write_text("[server]\nprt = 1\n")
    found = process(*arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert message in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serv"], "Did you mean 'serve'?"),
        (["serve", "--prt", "1"], "Did you mean '--port'?"),
        (["serve", "--port", "70000"], "70000"),
    ],
)
def test_wrong_usage_is_told_with_the_nearest_right_one(ore: Any, arguments: list[str], message: str) -> None:
    """Status 2 as well, for a command, an option and a value."""
    found = ore(*arguments)
    assert (found.exit_code, message in found.stderr) == (2, True)


def commands(group: click.Group, prefix: str = "ore") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands(cli)))
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    """docs/cli.md has a heading for each command, and names each of its options below it; each has a help text."""
    document = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")
    sections = dict(re.findall(r"^## `(ore [a-z -]+?)(?: [^`a-z][^`]*)?`\n(.*?)(?=^## |\Z)", document, re.M | re.S))
    assert command.help
    assert name in sections
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter
            assert all(f"`{option}" in sections[name] for option in parameter.opts), parameter


def test_help_lists_every_command(ore: Any) -> None:
    """`ore`, `ore -h` and `ore --help` show the same list."""
    texts = {ore(*arguments).output for arguments in (["-h"], ["--help"])}
    assert len(texts) == 1
    assert all(f"\n  {name}" in texts.copy().pop() for name in cli.commands)
