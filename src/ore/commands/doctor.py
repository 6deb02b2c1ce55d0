"""`ore doctor`: looks at everything a server needs, and says for each what to do. Changes nothing, downloads nothing.

Only providers are asked over the network, one question each.

A check is a function from `Subject` to a `Finding`; one that breaks is a finding of its own, so that a strange machine
still gets the rest of the report.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import click

from ore.commands.address import port_problem
from ore.commands.finding import Finding
from ore.commands.models import human_size
from ore.commands.options import config_option, data_dir_option, default_settings, environ, load_settings
from ore.commands.provider_check import provider_finding
from ore.errors import StartupError
from ore.hosts import is_loopback
from ore.settings import (
    BUNDLED_MODELS,
    ModelSettings,
    Settings,
    is_classical,
    model_file,
    model_kind,
    resolve_models,
)

_GIB: Final = 1024**3
_WAL_RESET_FIXED: Final = (3, 51, 3)
"""The first SQLite without the bug that could corrupt a database when its write-ahead log is reset."""


class Subject(NamedTuple):
    """What is looked at. `problem` says why the settings are the defaults instead of the user's."""

    settings: Settings
    path: Path | None
    problem: str
    picked_up: frozenset[str] = frozenset()
    """Providers that nobody configured: they are in the environment."""


Check = Callable[[Subject], Finding]


@click.command()
@click.option("--json", "as_json", is_flag=True, help='One JSON object, {"ok", "checks"}.')
@data_dir_option
@config_option
def doctor(as_json: bool, data_dir: str | None, config: Path | None) -> None:
    """Check this machine, this installation and the settings; exit status 1 if something must be mended."""
    subject = _subject(config, data_dir)
    found = [(name, _looked_at(check, subject)) for name, check in _checks(subject.settings).items()]
    well = all(finding.status != "fail" for _, finding in found)
    if as_json:
        checks = [{"name": name, **finding._asdict()} for name, finding in found]
        click.echo(json.dumps({"ok": well, "checks": checks}, indent=2))
    else:
        width = max(len(name) for name, _ in found)
        for name, finding in found:
            fix = f"; {finding.fix}" if finding.fix else ""
            click.echo(f"{finding.status:<5} {name:<{width}}  {finding.detail}{fix}")
    sys.exit(0 if well else 1)


def _checks(settings: Settings) -> dict[str, Check]:
    """Those of every machine, then those of what is configured."""
    models = [name for name, model in settings.models.items() if model_kind(model.path) != "bundled"]
    return {
        **CHECKS,
        **{f"model {name}": partial(_model, name=name) for name in models},
        **{f"provider {name}": partial(_provider, name=name) for name in settings.providers},
    }


def _subject(config: Path | None, data_dir: str | None) -> Subject:
    try:
        loaded = load_settings(config, data_dir=data_dir)
        names = frozenset(name for name in loaded.settings.providers if loaded.is_picked_up(name))
        return Subject(resolve_models(loaded.settings), loaded.path, "", names)
    except StartupError as error:
        return Subject(resolve_models(default_settings()), None, error.message)


def _looked_at(check: Check, subject: Subject) -> Finding:
    try:
        return check(subject)
    except Exception as error:
        return Finding("fail", f"could not be looked at ({type(error).__name__}: {error})", "please report this")


def _python(_: Subject) -> Finding:
    import platform

    version = f"{platform.python_implementation()} {platform.python_version()}"
    if (3, 11) <= sys.version_info < (3, 15) and platform.python_implementation() == "CPython":
        return Finding("ok", version)
    return Finding("warn", version, "ORE is made for CPython 3.11 to 3.14")


def _platform(_: Subject) -> Finding:
    import platform

    pair = (platform.system(), platform.machine().lower())
    if pair[0] == "Windows":
        return Finding("fail", "Windows", "run ORE in WSL")
    detail = f"{platform.system()} {platform.release()}, {platform.machine()}"
    tested = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
    return Finding("ok", detail) if pair in tested else Finding("warn", detail, "the engine may have no wheel for it")


def _processor(_: Subject) -> Finding:
    import os
    import platform

    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    information = Path("/proc/cpuinfo")
    if platform.machine().lower() not in ("x86_64", "amd64") or not information.exists():
        return Finding("ok", f"{cores}, {platform.processor() or platform.machine()}")
    lines = information.read_text(errors="replace").splitlines()
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    notable = [flag for flag in ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_tile") if flag in flags]
    detail = f"{cores}, {' '.join(notable) or 'no AVX2'}"
    return Finding("ok", detail) if "avx2" in flags else Finding("warn", detail, "models will run slowly without AVX2")


def _memory(_: Subject) -> Finding:
    free = _free_memory()
    if free is None:
        return Finding("ok", "not told by this platform")
    detail = f"{human_size(free)} free"
    if free < _GIB:
        return Finding("warn", detail, "only the bundled model fits; close other programs for larger ones")
    return Finding("ok", detail)


def _free_memory() -> int | None:
    """Bytes that are available, within the limit of the container if there is one (cgroup version 2)."""
    information = Path("/proc/meminfo")
    if not information.exists():
        return None
    lines = dict(line.split(":", 1) for line in information.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 0)


def _disk(subject: Subject) -> Finding:
    import shutil

    folder = _existing(subject.settings.data_path())
    free = shutil.disk_usage(folder).free
    detail = f"{human_size(free)} free at {folder}"
    if free < _GIB // 10:
        return Finding("fail", detail, "make room, or choose another folder with --data-dir")
    if free < 2 * _GIB:
        return Finding("warn", detail, "larger models will not fit; choose another folder with --data-dir")
    return Finding("ok", detail)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _data_folder(subject: Subject) -> Finding:
    import os
    import tempfile

    folder = subject.settings.data_path()
    fix = "choose another folder with --data-dir, or mend its permissions"
    nearest = _existing(folder)
    if not nearest.is_dir():
        return Finding("fail", f"{nearest} is no folder", fix)
    if nearest != folder:
        writable = os.access(nearest, os.W_OK | os.X_OK)
        return Finding("ok", f"{folder} will be made") if writable else Finding("fail", f"{folder} cannot be made", fix)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ore doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding("fail", f"{folder} cannot be written: {error.strerror}", fix)
    return Finding("ok", f"{folder} can be written")


def _sqlite(_: Subject) -> Finding:
    fix = "reinstall ORE: pip install --force-reinstall open-responses-engine"
    try:
        import apsw
    except ImportError as error:
        return Finding("fail", f"apsw cannot be imported ({error})", fix)
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")) < _WAL_RESET_FIXED:
        return Finding("fail", f"SQLite {version} can corrupt a database (WAL reset)", "pip install --upgrade apsw")
    return Finding("ok", f"SQLite {version}, with the WAL-reset fix")


def _engine(_: Subject) -> Finding:
    """In a process of its own, because an engine built for another processor does not raise but dies."""
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    fix = "reinstall it: pip install --force-reinstall xllamacpp"
    try:
        name = f"xllamacpp {version('xllamacpp')}"
    except PackageNotFoundError:
        return Finding("fail", "xllamacpp is not installed", "pip install xllamacpp")
    command = [sys.executable, "-P", "-c", "import xllamacpp"]
    trial = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    if trial.returncode < 0:
        return Finding("fail", f"{name} dies on this processor (signal {-trial.returncode})", fix)
    if trial.returncode:
        reason = (trial.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("fail", f"{name} cannot be imported ({reason})", fix)
    return Finding("ok", f"{name} (llama.cpp)")


def _engines(_: Subject) -> Finding:
    """Those beside llama.cpp, by name: none has to be here."""
    from ore.engines import ENGINES, install_command, is_installed

    here = [engine for engine in ENGINES if is_installed(engine)]
    missing = [install_command(engine) for engine in ENGINES if engine not in here]
    return Finding("ok", f"{', '.join(here) or 'none'}" + (f"; more with {' or '.join(missing)}" if missing else ""))


def _bundled(subject: Subject) -> Finding:
    name, file = next(iter(BUNDLED_MODELS.items()))
    if not file.is_file():
        needed = any(model_kind(model.path) == "bundled" for model in subject.settings.models.values())
        return Finding("fail" if needed else "warn", f"{name} is missing", "reinstall ORE, or name a .gguf file")
    return _gguf(file)


def _gguf(file: Path) -> Finding:
    with file.open("rb") as opened:
        magic = opened.read(4)
    if magic != b"GGUF":
        return Finding("fail", f"{file} is no GGUF file", "fetch it again")
    return Finding("ok", f"{file}, {human_size(file.stat().st_size)}")


def _classical(file: Path) -> Finding:
    needed = "onnxruntime" if file.suffix.lower() == ".onnx" else "skops"
    if find_spec(needed) is None:
        return Finding("fail", f"{file} needs {needed}", "pip install 'open-responses-engine[sklearn]'")
    return Finding("ok", f"{file}, {human_size(file.stat().st_size)}")


def _port(subject: Subject) -> Finding:
    server = subject.settings.server
    problem = port_problem(server.host, server.port)
    if problem is None:
        return Finding("ok", f"{server.port} on {server.host} is free")
    detail, _, fix = problem.rstrip(".").partition("; ")
    return Finding("warn", detail, fix)


def _settings(subject: Subject) -> Finding:
    if subject.problem:
        return Finding("fail", subject.problem.rstrip("."), "the other checks used the defaults")
    server = subject.settings.server
    if not is_loopback(server.host):
        if not server.insecure_no_auth:
            return Finding("fail", f"server.host is {server.host}, without keys", "use 127.0.0.1 or insecure_no_auth")
        return Finding("warn", f"{server.host} answers everybody", "keep it behind a firewall or a proxy with keys")
    return Finding("ok", str(subject.path) if subject.path else "no settings file, so the defaults")


def _model(subject: Subject, name: str) -> Finding:
    model = subject.settings.models[name]
    path, file = model.path, model_file(subject.settings, model.path)
    if file.is_file() and is_classical(path):
        return _classical(file)
    if file.exists():
        return _with_engine(file, model)
    if model_kind(path) == "hub":
        return Finding("ok", f"{path} will be downloaded at the first start")
    return Finding("fail", f"{file} does not exist", f"correct the path of models.{name}")


def _with_engine(file: Path, model: ModelSettings) -> Finding:
    """A model that is here, and what will run it."""
    from ore.engines import chosen

    finding = _gguf(file) if file.suffix == ".gguf" else Finding("ok", str(file))
    try:
        choice = chosen(file, model)
    except StartupError as error:
        problem, _, fix = error.message.partition("; ")
        return Finding("fail", problem, fix)
    return finding._replace(detail=f"{finding.detail}, by {choice.engine} ({choice.why})")


def _provider(subject: Subject, name: str) -> Finding:
    """One that nobody configured is no failure of this server, whatever is the matter with it."""
    finding = provider_finding(name, subject.settings.providers[name], environ())
    return finding._replace(status="warn") if finding.status == "fail" and name in subject.picked_up else finding


CHECKS: Final[dict[str, Check]] = {
    "python": _python,
    "platform": _platform,
    "processor": _processor,
    "memory": _memory,
    "settings": _settings,
    "data folder": _data_folder,
    "disk": _disk,
    "sqlite": _sqlite,
    "engine": _engine,
    "engines": _engines,
    "bundled model": _bundled,
    "port": _port,
}
