"""`ore doctor` of providers: is it there, does it take the key, and what to do if not. Keys are never shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.asked_providers import Stub, free_port, speak_plainly
from ore.backends.dialect import Unintelligible
from ore.commands import doctor as doctor_module
from ore.commands import provider_check
from ore.commands.finding import Finding
from providers.stub_server import Asked, Play, as_json

CANARY = "sk-canary-93f1"
Provider = Callable[[str], dict[str, str]]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only providers are looked at, and all speak the same."""
    speak_plainly(monkeypatch)
    monkeypatch.setenv("SOME_KEY", CANARY)
    for name in doctor_module.CHECKS:
        monkeypatch.setitem(doctor_module.CHECKS, name, lambda _: Finding("ok", "not tried"))


@pytest.fixture
def report(ore: Any, folder: Path) -> Provider:
    """What is said about a provider whose section has these lines, or is in the environment."""

    def run(lines: str = "") -> dict[str, str]:
        (folder / "ore.toml").write_text(f"[providers.box]\n{lines}" if lines else "")
        found = ore("doctor", "--json")
        assert CANARY not in found.output
        (check,) = [check for check in json.loads(found.stdout)["checks"] if check["name"].startswith("provider ")]
        assert (found.exit_code == 1) == (check["status"] == "fail")
        return dict(check)

    return run


def section(url: str, *more: str) -> str:
    return "\n".join(['kind = "chat_completions"', f'base_url = "{url}/v1"', 'api_key = "env:SOME_KEY"', *more])


def answering(asked: Asked) -> Play:
    """Lists two models to those who have the key."""
    if asked.headers.get("authorization") != f"Bearer {CANARY}":
        return as_json({"error": f"{asked.headers.get('authorization')} is wrong"}, 401)
    return as_json({"data": [{"id": "a"}, {"id": "b"}]})


def test_a_provider_that_answers(report: Provider, stub: Stub) -> None:
    """It was asked for its models, with its key, once."""
    with stub(answering) as server:
        found = report(section(server.url))
        assert [(asked.method, asked.path) for asked in server.asked] == [("GET", "/v1/models")]
    assert found["name"] == "provider box"
    assert (found["status"], found["detail"]) == ("ok", f"{server.url}/v1 answers, and lists 2 models")


def test_a_wrong_key_is_told_from_none(report: Provider, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix names where the key is."""
    with stub(answering) as server:
        found = report(section(server.url).replace('api_key = "env:SOME_KEY"', ""))
        assert (found["status"], found["detail"]) == ("fail", f"{server.url}/v1 asks for a key")
        assert found["fix"] == 'give it one: api_key = "env:NAME"'
        monkeypatch.setenv("SOME_KEY", "other")
        found = report(section(server.url))
    assert (found["status"], found["detail"]) == ("fail", f"{server.url}/v1 does not accept the key")
    assert found["fix"] == "correct the key that env:SOME_KEY stands for"


def test_a_key_that_is_not_there(report: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked then."""
    monkeypatch.delenv("SOME_KEY")
    found = report(section("http://127.0.0.1:1"))
    assert (found["status"], found["detail"]) == (
        "fail",
        "[providers.box] api_key is env:SOME_KEY, but that variable is not set",
    )
    assert found["fix"] == "set it, or correct the reference"


def test_a_provider_that_is_away(report: Provider) -> None:
    """Unreachable is another thing than a wrong key."""
    found = report(section(f"http://127.0.0.1:{free_port()}"))
    assert (found["status"], found["detail"]) == ("fail", "The provider 'box' cannot be reached: it does not answer")
    assert found["fix"].startswith("start it, or correct its base_url")


def test_a_provider_that_says_nothing(report: Provider, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for as long as a request would wait."""
    monkeypatch.setattr(provider_check, "_CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(provider_check, "_ANSWER_SECONDS", 0.1)
    with stub(lambda _: Play(["hang"])) as server:
        found = report(section(server.url))
    assert (found["status"], found["detail"]) == ("fail", f"{server.url}/v1 does not answer in time")


@pytest.mark.parametrize(
    ("play", "status", "detail"),
    [
        (as_json({}, 404), "warn", "answers, but has no list of models"),
        (as_json({}, 307, {"Location": "/"}), "fail", "only says that the API is elsewhere (HTTP 307)"),
        (as_json({}, 503), "warn", "answers HTTP 503"),
        (as_json({"data": []}), "ok", "answers, and lists 0 models"),
        (as_json({}), "fail", "answers, but not as one of kind chat_completions"),
    ],
)
def test_other_answers(
    report: Provider, stub: Stub, monkeypatch: pytest.MonkeyPatch, play: Play, status: str, detail: str
) -> None:
    """Each has its own line, and all but a good one a fix."""

    def models(body: bytes) -> list[object]:
        data = json.loads(body)
        if "data" not in data:
            raise Unintelligible
        return list(data["data"])

    monkeypatch.setattr("cli.asked_providers.Plain.models", staticmethod(models))
    with stub(lambda _: play) as server:
        found = report(section(server.url))
    assert (found["status"], found["detail"]) == (status, f"{server.url}/v1 {detail}")
    assert bool(found["fix"]) == (status != "ok")


def test_a_configured_model_that_is_not_listed_is_a_warning(report: Provider, stub: Stub) -> None:
    """Some providers have more than they list."""
    with stub(answering) as server:
        assert report(section(server.url, 'models = ["a"]'))["status"] == "ok"
        found = report(section(server.url, 'models = ["a", "c"]'))
    assert (found["status"], found["detail"]) == ("warn", f"{server.url}/v1 does not list c")


def test_a_provider_that_nobody_configured_is_no_failure(report: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set for other programs must not fail this server's check."""
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    found = report()
    assert (found["name"], found["status"]) == ("provider ollama", "warn")


def test_a_variable_that_makes_no_provider_is_a_finding(ore: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is still looked at, with the defaults."""
    monkeypatch.setenv("OLLAMA_HOST", "ftp://box")
    monkeypatch.setitem(doctor_module.CHECKS, "settings", doctor_module._settings)
    found = json.loads(ore("doctor", "--json").stdout)
    (check,) = [check for check in found["checks"] if check["name"] == "settings"]
    assert check["status"] == "fail"
    assert "OLLAMA_HOST" in check["detail"]
