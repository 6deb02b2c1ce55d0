"""`ore models`: every model that could be served, and whether its file is here."""

import json
from pathlib import Path
from typing import Any

import pytest

from ore import settings
from ore.commands.models import human_size


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
    """Name, kind, path, file, size and presence of configured and bundled models."""
    rows = {row.pop("name"): row for row in json.loads(ore("models", "--json").output)}
    assert list(rows) == ["here", "gone", "hub", "ore-tiny"]
    assert rows["here"] == {
        "kind": "file",
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
    assert lines[0].split() == ["MODEL", "KIND", "SIZE", "FILE", "PATH"]
    assert lines[1].split()[:5] == ["here", "file", "2.0", "KiB", "here"]
    assert [line.split()[0] for line in lines[1:]] == ["here", "gone", "hub", "ore-tiny"]
    assert ["missing" in line for line in lines[1:]] == [False, True, False, True]
    assert "hub (default)" in lines[3]
    assert "not downloaded" in lines[3]
    assert lines[4].split()[-1] == str(folder / "tiny.gguf")


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (9_876_543, "9.4 MiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_sizes_for_people(size: int | None, text: str) -> None:
    """Binary units, one decimal."""
    assert human_size(size) == text
