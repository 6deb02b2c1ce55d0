"""`ore doctor`: each thing that can be wrong is a line with its fix, and only a fail is a failure."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ore import settings
from ore.commands import doctor as doctor_module
from ore.commands.doctor import Finding

Report = Callable[..., tuple[int, dict[str, dict[str, str]]]]


@pytest.fixture(autouse=True)
def healthy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model is there, the port is free, and the engine is not tried again for every test."""
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(settings.BUNDLED_MODELS, "ore-tiny", folder / "tiny.gguf")
    monkeypatch.setenv("ORE_SERVER__PORT", "0")
    monkeypatch.setitem(doctor_module.CHECKS, "engine", lambda _: Finding("ok", "not tried"))


@pytest.fixture
def report(ore: Any) -> Report:
    def run(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
        found = ore("doctor", "--json", *arguments)
        body = json.loads(found.output)
        assert body["ok"] == (found.exit_code == 0)
        return found.exit_code, {check.pop("name"): check for check in body["checks"]}

    return run


def test_a_healthy_machine_passes(report: Report) -> None:
    """Every check has run and none fails."""
    status, checks = report()
    assert status == 0
    assert list(checks) == list(doctor_module.CHECKS)
    assert "fail" not in [check["status"] for check in checks.values()]


def test_the_engine_of_this_installation_can_be_imported(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real check, in its own process."""
    monkeypatch.setitem(doctor_module.CHECKS, "engine", doctor_module._engine)
    assert report()[1]["engine"]["status"] == "ok"


def test_lines_for_people(ore: Any) -> None:
    """Each line begins with ok, warn or fail, and the name of the check."""
    lines = ore("doctor").output.splitlines()
    assert len(lines) == len(doctor_module.CHECKS)
    for line, name in zip(lines, doctor_module.CHECKS, strict=True):
        assert line.split(maxsplit=1)[0] in ("ok", "warn", "fail")
        assert line[6:].startswith(name)


def test_wrong_settings_fail_and_the_rest_is_still_checked(report: Report, folder: Path) -> None:
    """The sentence is the one of `config check`; the other checks use the defaults."""
    (folder / "ore.toml").write_text("[server]\nprt = 1")
    status, checks = report()
    assert status == 1
    assert "did you mean server.port?" in checks["settings"]["detail"]
    assert checks["sqlite"]["status"] == "ok"


def test_a_public_address_without_keys_fails(report: Report, folder: Path) -> None:
    """With `insecure_no_auth` it is a warning."""
    (folder / "ore.toml").write_text("[server]\nhost = '0.0.0.0'")
    status, checks = report()
    assert (status, checks["settings"]["status"]) == (1, "fail")
    (folder / "ore.toml").write_text("[server]\nhost = '0.0.0.0'\ninsecure_no_auth = true")
    assert report()[1]["settings"]["status"] == "warn"


def test_missing_and_broken_model_files_fail(report: Report, folder: Path) -> None:
    """Each configured model has a line; a hub model that will be downloaded is no fault."""
    (folder / "bad.gguf").write_bytes(b"<html>")
    (folder / "good.gguf").write_bytes(b"GGUF")
    (folder / "ore.toml").write_text(
        "".join(f"[models.{name}]\npath = '{name}.gguf'\n" for name in ("bad", "good", "gone"))
        + "[models.hub]\npath = 'org/repo:file.gguf'\n"
    )
    status, checks = report()
    models = {name: check["status"] for name, check in checks.items() if name.startswith("model ")}
    assert status == 1
    assert models == {"model bad": "fail", "model good": "ok", "model gone": "fail", "model hub": "ok"}


def test_a_missing_bundled_model_fails_only_where_it_is_served(report: Report, folder: Path) -> None:
    """Who serves other models can do without it."""
    (folder / "tiny.gguf").unlink()
    assert report()[0] == 1
    (folder / "good.gguf").write_bytes(b"GGUF")
    (folder / "ore.toml").write_text("[models.good]\npath = 'good.gguf'")
    status, checks = report()
    assert (status, checks["bundled model"]["status"]) == (0, "warn")


def test_the_data_folder_is_tried(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to come, a folder that is there, and a file in its place."""
    monkeypatch.setenv("ORE_DATA_DIR", str(folder / "data"))
    assert report()[1]["data folder"]["detail"].endswith("will be made")
    assert not (folder / "data").exists()
    (folder / "data").mkdir()
    assert report()[1]["data folder"]["detail"].endswith("can be written")
    assert list((folder / "data").iterdir()) == []
    monkeypatch.setenv("ORE_DATA_DIR", str(folder / "tiny.gguf"))
    assert report()[1]["data folder"]["status"] == "fail"


def test_another_data_folder_is_tried(report: Report, folder: Path) -> None:
    """The one of the flag."""
    _, found = report("--data-dir", "elsewhere")
    assert found["data folder"]["detail"] == f"{folder / 'elsewhere'} will be made"


def test_a_full_disk_fails(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 100 MiB is too little to keep responses for long; less than 2 GiB is a warning."""
    for free, status in ((1024**2, "fail"), (1024**3, "warn"), (10 * 1024**3, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        assert report()[1]["disk"]["status"] == status


def test_an_old_sqlite_fails(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.51.3, resetting the write-ahead log could corrupt the database."""
    monkeypatch.setattr("apsw.sqlite_lib_version", lambda: "3.51.2")
    assert report()[1]["sqlite"]["status"] == "fail"
    monkeypatch.setattr("apsw.sqlite_lib_version", lambda: "3.51.3")
    assert report()[1]["sqlite"]["status"] == "ok"


def test_a_taken_port_is_a_warning_with_the_fix(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may well be ORE itself that listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("ORE_SERVER__PORT", str(taken.getsockname()[1]))
        status, checks = report()
    assert (status, checks["port"]["status"]) == (0, "warn")
    assert "--port 0" in checks["port"]["fix"]


def test_a_check_that_breaks_is_a_finding(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the report still comes."""

    def broken(_: object) -> Finding:
        raise RuntimeError("strange machine")

    monkeypatch.setitem(doctor_module.CHECKS, "memory", broken)
    status, checks = report()
    assert (status, checks["memory"]["status"]) == (1, "fail")
    assert "strange machine" in checks["memory"]["detail"]
    assert checks["port"]["status"] == "ok"
