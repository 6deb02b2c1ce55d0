"""Commands run in an empty folder, with an empty home and without the settings of whoever runs the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.asked_providers import Stub, stub_beside
from ore.cli import cli

Ore = Callable[..., Result]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is also the home."""
    for variable in [name for name in os.environ if name.startswith(("ORE_", "XDG_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ore() -> Ore:
    """Run `ore ARGUMENTS` in this process."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name="ore", input=stdin)

    return run


@pytest.fixture
def stub() -> Stub:
    """`with stub(answer) as server:` a provider's server on loopback."""
    return stub_beside
