"""`ore models`: what a server with these settings can serve, and whether the files are here. Downloads nothing."""

import json
from pathlib import Path
from typing import Any

import click

from ore.commands.options import config_option, data_dir_option, load_settings
from ore.settings import BUNDLED_MODELS, ModelSettings, Settings, model_file, model_kind, resolve_models


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table; sizes in bytes.")
@data_dir_option
@config_option
def models(as_json: bool, data_dir: str | None, config: Path | None) -> None:
    """List configured and bundled models, and whether their files are here."""
    rows = list_models(load_settings(config, data_dir=data_dir).settings)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    header = ("MODEL", "KIND", "SIZE", "FILE", "PATH")
    table = [header, *((_name(row), row["kind"], human_size(row["size"]), _state(row), _path(row)) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def list_models(settings: Settings) -> list[dict[str, Any]]:
    """A row for each model, configured ones first. `size` is in bytes, None where there is no file."""
    known = {name: ModelSettings(path=name) for name in BUNDLED_MODELS if name not in settings.models}
    default = resolve_models(settings).default_model
    return [
        {"name": name, **_facts(settings, model.path), "default": name == default}
        for name, model in [*settings.models.items(), *known.items()]
    ]


def _facts(settings: Settings, path: str) -> dict[str, Any]:
    file = model_file(settings, path)
    size = file.stat().st_size if file.is_file() else None
    return {"kind": model_kind(path), "path": path, "file": str(file), "size": size, "present": size is not None}


def _name(row: dict[str, Any]) -> str:
    return f"{row['name']} (default)" if row["default"] else str(row["name"])


def _path(row: dict[str, Any]) -> str:
    return str(row["file"] if row["kind"] == "bundled" else row["path"])


def _state(row: dict[str, Any]) -> str:
    if row["present"]:
        return "here"
    return "not downloaded" if row["kind"] == "hub" else "missing"


def human_size(size: int | None) -> str:
    """Bytes for people: `9.4 MiB`; `-` for None."""
    if size is None:
        return "-"
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
