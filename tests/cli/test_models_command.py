"""`ore models`: every model that could be served, and whether its file is here."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.asked_providers import Stub, free_port, speak_plainly
from ore import settings
from ore.backends.profiles import profile_of
from ore.commands.models import human_size
from providers.stub_server import as_json


@pytest.fixture
def listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ore.toml").write_text(
        'data_dir = "data"\ndefault_model = "hub"\n[models.here]\npath = "here.gguf"\n'
        '[models.gone]\npath = "gone.gguf"\n'
        '[models.hub]\npath = "org/repo:q4.gguf"\n'
    )
    (folder / "here.gguf").write_bytes(b"GGUF" * 512)
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", folder / "tiny.gguf")


@pytest.mark.usefixtures("listed")
def test_models_as_json(ore: Any, folder: Path) -> None:
    """Name, kind, abilities, path, file, size and presence of configured and bundled models."""
    rows = {row.pop("name"): row for row in json.loads(ore("models", "--json").output)}
    assert list(rows) == ["here", "gone", "hub", "ore-tiny"]
    assert rows["here"] == {
        "kind": "file",
        "context_window": None,
        "tools": True,
        "images": False,
        "reasoning": None,
        "engine": "llama_cpp",
        "why": "a GGUF file",
        "path": str(folder / "here.gguf"),
        "file": str(folder / "here.gguf"),
        "size": 2048,
        "present": True,
        "default": False,
    }
    assert rows["hub"]["file"] == str(folder / "data/models/org/repo/q4.gguf")
    assert [(row["kind"], row["present"], row["default"]) for row in rows.values()][1:] == [
        ("file", False, False),
        ("hub", False, True),
        ("bundled", False, False),
    ]


@pytest.mark.usefixtures("listed")
def test_models_as_a_table(ore: Any, folder: Path) -> None:
    """A line for each, with what is to be known about its file."""
    lines = ore("models").output.splitlines()
    assert lines[0].split() == ["MODEL", "KIND", "ENGINE", "CONTEXT", "CAN", "SIZE", "FILE", "WHERE"]
    assert lines[1].split()[:8] == ["here", "file", "llama_cpp", "-", "tools", "2.0", "KiB", "here"]
    assert [line.split()[0] for line in lines[1:]] == ["here", "gone", "hub", "ore-tiny"]
    assert ["missing" in line for line in lines[1:]] == [False, True, False, True]
    assert "hub (default)" in lines[3]
    assert "not downloaded" in lines[3]
    assert lines[4].split()[-1] == str(folder / "tiny.gguf")


def test_the_context_of_a_model_that_is_here(ore: Any, folder: Path) -> None:
    """What the settings say, else what it was trained with, as far as the engine takes it."""
    (folder / "ore.toml").write_text('[models.a]\npath = "ore-tiny"\n[models.b]\npath = "ore-tiny"\ncontext = 512\n')
    rows = json.loads(ore("models", "--json").output)
    assert [(row["name"], row["context_window"]) for row in rows][:2] == [("a", 4096), ("b", 512)]


PROVIDERS = """\
default_model = "box/qwen"
[models.fast]
targets = ["ore-tiny", "openai/gpt-5", "box/qwen"]
spill_waiting = 4
[models.mix]
targets = ["ore-tiny", "openai/gpt-5"]
route = "weighted"
weights = [3, 0.5]
[providers.openai]
kind = "openai"
models = ["gpt-5", "org/other"]
[providers.box]
kind = "chat_completions"
base_url = "URL/v1"
discover = false
"""


def test_aliases_and_models_of_providers(ore: Any, folder: Path) -> None:
    """Aliases with their rule and what their first target can do; of providers the models that somebody named, and a
    row for others they may have."""
    (folder / "ore.toml").write_text(PROVIDERS.replace("URL", "http://127.0.0.1:1"))
    rows = {row.pop("name"): row for row in json.loads(ore("models", "--json").output)}
    assert list(rows) == ["ore-tiny", "fast", "mix", "openai/gpt-5", "openai/org/other", "box/qwen", "box/*"]
    assert rows["fast"] == {
        "kind": "alias",
        **{key: rows["ore-tiny"][key] for key in ("context_window", "tools", "images", "reasoning")},
        "targets": ["ore-tiny", "openai/gpt-5", "box/qwen"],
        "route": "ordered",
        "spill_waiting": 4,
        "default": False,
    }
    known = profile_of("openai", "gpt-5").capabilities()
    assert rows["openai/gpt-5"] == {
        "kind": "openai",
        "context_window": known.context_window,
        "tools": known.tools,
        "images": known.images,
        "reasoning": known.reasoning,
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "default": False,
    }
    assert [name for name, row in rows.items() if row["default"]] == ["box/qwen"]
    lines = {line.split()[0]: line for line in ore("models").output.splitlines()}
    assert lines["fast"].endswith("ordered: ore-tiny, openai/gpt-5, box/qwen; spill_waiting 4")
    assert lines["mix"].endswith("weighted: 3 ore-tiny, 0.5 openai/gpt-5")
    assert lines["box/*"].split() == ["box/*", "chat_completions", "-", "-", "-", "-", "-", "http://127.0.0.1:1/v1"]


def test_providers_are_asked_for_their_models(ore: Any, folder: Path, stub: Stub, monkeypatch: Any) -> None:
    """With `--discover` alone, those alone whose models are not configured, whatever `discover` says."""
    speak_plainly(monkeypatch)
    with stub(lambda _: as_json({"data": [{"id": "qwen"}, {"id": "org/llama"}]})) as server:
        (folder / "ore.toml").write_text(PROVIDERS.replace("URL", server.url))
        found = ore("models", "--discover", "--json")
        assert [asked.path for asked in server.asked] == ["/v1/models"]
        ore("models")
        assert len(server.asked) == 1
    assert found.stderr == "Asking box for models ...\n"
    names = [row["name"] for row in json.loads(found.stdout)]
    assert names[3:] == ["openai/gpt-5", "openai/org/other", "box/qwen", "box/org/llama"]


def test_a_provider_that_lists_nothing_is_told_of(ore: Any, folder: Path, monkeypatch: Any) -> None:
    """On standard error; the rest is listed all the same."""
    speak_plainly(monkeypatch)
    (folder / "ore.toml").write_text(PROVIDERS.replace("URL", f"http://127.0.0.1:{free_port()}"))
    found = ore("models", "--discover", "--json")
    assert found.exit_code == 0
    assert "box lists none; `ore doctor` says why.\n" in found.stderr
    assert json.loads(found.stdout)[-1]["name"] == "box/*"


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (9_876_543, "9.4 MiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_sizes_for_people(size: int | None, text: str) -> None:
    """Binary units, one decimal."""
    assert human_size(size) == text
