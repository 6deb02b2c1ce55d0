"""`ore models`: what a server with these settings can serve, and what each can do; and small models to try. Downloads
nothing.

Nobody is asked over the network unless `--discover` says so.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from ore.commands.model_rows import RULES, Row, discovered, list_models
from ore.commands.options import config_option, data_dir_option, load_settings
from ore.errors import StartupError


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table; sizes in bytes.")
@click.option("--discover", is_flag=True, help="Ask the providers which models they have.")
@data_dir_option
@config_option
@click.pass_context
def models(context: click.Context, as_json: bool, discover: bool, data_dir: str | None, config: Path | None) -> None:
    """List the models here, the aliases and the models of providers, and what each can do."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(config, data_dir=data_dir).settings
    rows = list_models(settings, discovered(settings) if discover else {})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_table([_HEADER, *(_line(row) for row in rows)])


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Rows of cells, the header first, in columns."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@models.command("train-demo")
@click.argument("name", required=False)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file. Default: NAME.skops.")
def train_demo(name: str | None, out: Path | None) -> None:
    """Train a small classical model, in seconds, and say how to serve it.

    NAME is wine (the default), diabetes or intents.
    """
    from ore.backends.classical import demos

    name = name or next(iter(demos.DEMOS))
    if name not in demos.DEMOS:
        raise StartupError(f"There is no demo {name}; there is {', '.join(demos.DEMOS)}.")
    out = out or Path(f"{name}.skops")
    if out.suffix != ".skops":
        raise StartupError(f"The file {out} would be served as something else; let its name end in .skops.")
    trained = demos.train_demo(name, out)
    body = shlex.quote(json.dumps({"model": out.stem, "input": trained.example}))
    click.echo(f"{out}: {demos.DEMOS[name].what}. Score on rows that it has not seen: {trained.score:.2f}.")
    click.echo(f"\nServe it, and ask it:\n\nore serve {shlex.quote(str(out))}")
    click.echo(f"curl http://127.0.0.1:8000/v1/responses -H 'content-type: application/json' -d {body}")


_HEADER: Final = ("MODEL", "KIND", "ENGINE", "CONTEXT", "CAN", "SIZE", "FILE", "WHERE")


def _line(row: Row) -> tuple[str, ...]:
    name = f"{row['name']} (default)" if row["default"] else str(row["name"])
    context = str(row["context_window"] or "-")
    can = ", ".join(ability for ability in ("tools", "images", "reasoning") if row[ability]) or "-"
    engine = (row["engine"] or "not installed") if "engine" in row else "-"
    return (name, row["kind"], engine, context, can, human_size(row.get("size")), _state(row), _where(row))


def _state(row: Row) -> str:
    if "present" not in row:
        return "-"
    if row["present"]:
        return "here"
    return "not downloaded" if row["kind"] == "hub" else "missing"


def _where(row: Row) -> str:
    if "targets" in row:
        rules = ", ".join(f"{key} {row[key]}" for key in RULES[2:] if key in row)
        return f"{row['route']}: {_targets(row)}{f'; {rules}' if rules else ''}"
    if "base_url" in row:
        return str(row["base_url"])
    return str(row["file"] if row["kind"] == "bundled" else row["path"])


def _targets(row: Row) -> str:
    if "weights" not in row:
        return ", ".join(row["targets"])
    return ", ".join(f"{weight:g} {name}" for name, weight in zip(row["targets"], row["weights"], strict=True))


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
