"""A key is in no output of any command, whatever goes wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.asked_providers import Stub, free_port, speak_plainly
from ore import settings
from ore.commands import doctor as doctor_module
from ore.commands.finding import Finding
from providers.stub_server import as_json

CANARY = "sk-canary-93f1"
COMMANDS = (
    ("config", "show"),
    ("config", "show", "--origin"),
    ("config", "check"),
    ("doctor",),
    ("doctor", "--json"),
    ("models",),
    ("models", "--json"),
    ("models", "--discover"),
    ("serve",),
)


@pytest.fixture(autouse=True)
def keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in every place that may have one. A server would not start: its bundled model is not there."""
    speak_plainly(monkeypatch)
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", folder / "gone.gguf")
    monkeypatch.setitem(doctor_module.CHECKS, "engine", lambda _: Finding("ok", "not tried"))
    monkeypatch.setenv("ORE_SERVER__PORT", "0")
    monkeypatch.setenv("SOME_KEY", CANARY)
    (folder / "some.key").write_text(CANARY)


def outputs(ore: Any) -> str:
    """All that the commands say. None of them breaks."""
    said = ""
    for command in COMMANDS:
        found = ore(*command)
        assert found.exception is None or isinstance(found.exception, SystemExit), command
        said += found.output
    return said


def section(url: str, name: str, key: str) -> str:
    return (
        f'[providers.{name}]\nkind = "responses"\nbase_url = "{url}/v1"\napi_key = "{key}"\n'
        f'headers = ["Authorization: Bearer env:SOME_KEY"]\n'
    )


def test_providers_that_repeat_the_key(ore: Any, folder: Path, stub: Stub) -> None:
    """One refuses every request, and says what it was sent."""
    with stub(lambda asked: as_json({"error": {"message": json.dumps(asked.headers)}}, 401)) as server:
        (folder / "ore.toml").write_text(
            section(server.url, "one", "env:SOME_KEY") + section(server.url, "two", "file:some.key")
        )
        said = outputs(ore)
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {CANARY}"}
    assert CANARY not in said
    assert "env:SOME_KEY" in said
    assert "does not accept the key" in said
    assert "has no ore-tiny" in said


def test_providers_that_are_away(ore: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured, and from the environment."""
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    (folder / "ore.toml").write_text(section(url, "openai", "env:OPENAI_API_KEY"))
    said = outputs(ore)
    assert CANARY not in said
    assert "cannot be reached" in said


@pytest.mark.parametrize(
    "lines",
    [
        f'api_key = "{CANARY}"',
        f'headers = ["x-api-key: {CANARY}"]',
        f'base_url = "http://{CANARY}@127.0.0.1/v1"',
    ],
)
def test_keys_that_are_written_into_the_settings(ore: Any, folder: Path, lines: str) -> None:
    """Every command refuses them without repeating them."""
    (folder / "ore.toml").write_text(f'[providers.one]\nkind = "openai"\n{lines}\n')
    said = outputs(ore)
    assert CANARY not in said
    assert "must not" in said


def test_a_start_whose_key_is_missing(ore: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ore serve` and `ore config check` say which, in one sentence."""
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", folder / "tiny.gguf")
    (folder / "ore.toml").write_text(section("http://127.0.0.1:1", "one", "env:GONE"))
    sentence = "[providers.one] api_key is env:GONE, but that variable is not set; set it, or correct the reference."
    for command in (("serve",), ("config", "check")):
        found = ore(*command)
        assert (found.exit_code, found.output) == (2, f"Error: {sentence}\n")
