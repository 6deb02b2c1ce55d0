"""`ore config`: the template it writes is good, what it shows is in force, what it refuses `serve` would refuse."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ore import settings


@pytest.fixture
def bundled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled model is there."""
    file = folder / "bundled.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", file)
    return file


@pytest.mark.usefixtures("bundled")
def test_what_init_writes_check_accepts(ore: Any, folder: Path) -> None:
    """The first two commands a user tries."""
    written = ore("config", "init")
    assert (written.exit_code, written.output.split(".")[0]) == (0, "Wrote ore")
    assert (folder / "ore.toml").read_text() == settings.template()
    checked = ore("config", "check")
    assert (checked.exit_code, checked.output) == (0, "Good: ore.toml; serves ore-tiny on 127.0.0.1, port 8000.\n")


def test_init_replaces_a_file_only_when_told(ore: Any, folder: Path) -> None:
    """Somebody's settings are not overwritten by accident."""
    file = folder / "ore.toml"
    file.write_text("mine")
    refused = ore("config", "init")
    assert (refused.exit_code, refused.output) == (2, "Error: ore.toml exists already; --force replaces it.\n")
    assert file.read_text() == "mine"
    assert ore("config", "init", "--force").exit_code == 0
    assert file.read_text() == settings.template()


def test_init_makes_the_folder(ore: Any, folder: Path) -> None:
    """So that `ore config init ~/.config/ore/config.toml` works on a fresh machine."""
    assert ore("config", "init", "a/b/config.toml").exit_code == 0
    assert (folder / "a/b/config.toml").exists()


def test_init_says_why_it_cannot_write(ore: Any, folder: Path) -> None:
    """A folder in the place of the file, for instance."""
    refused = ore("config", "init", "--force", str(folder))
    assert refused.exit_code == 2
    assert "cannot be written: Is a directory" in refused.output


def test_the_data_folder_may_be_named(ore: Any, folder: Path) -> None:
    """By the flag that the other commands have."""
    shown = ore("config", "show", "--data-dir", "elsewhere").output
    assert tomllib.loads(shown)["data_dir"] == str(folder / "elsewhere")


def test_show_prints_the_settings_in_force(ore: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TOML; with `--origin`, each line ends with where its value comes from."""
    (folder / "ore.toml").write_text('[models.a]\npath = "a.gguf"\n')
    monkeypatch.setenv("ORE_SERVER__PORT", "9")
    shown = ore("config", "show", "--origin").output
    assert tomllib.loads(shown)["server"]["port"] == 9
    comments = {line.split(" = ")[0]: line.split("# ")[1] for line in shown.splitlines() if " = " in line}
    assert comments["port"] == "environment variable ORE_SERVER__PORT"
    assert comments["path"] == "ore.toml, line 2"
    assert comments["host"] == "default"
    assert "#" not in ore("config", "show").output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nhost = '0.0.0.0'", "others may reach"),
        ("default_model = 'x'", "no [models.NAME] section defines"),
        ("[models.a]\npath = 'a.gguf'", "has no file"),
        ("[server]\nprt = 1", "did you mean server.port?"),
    ],
)
@pytest.mark.usefixtures("bundled")
def test_check_refuses_what_serve_would_refuse(ore: Any, folder: Path, text: str, message: str) -> None:
    """Status 2 and the sentence that `ore serve` would print."""
    (folder / "ore.toml").write_text(text)
    checked = ore("config", "check")
    assert checked.exit_code == 2
    assert message in checked.output
