"""`ore bench`: one model in every installed engine that takes its file, measured on this machine, side by side.

Starts no server and changes no settings; a model on a hub is downloaded first.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import to_builtins
from msgspec.structs import replace

from ore.commands.options import config_option, data_dir_option, load_settings
from ore.commands.progress import download_progress
from ore.errors import StartupError
from ore.settings import ModelSettings, Settings, resolve_models

if TYPE_CHECKING:
    from ore.commands.bench_measures import Measured, Plan, Step

SPARE_CONTEXT: Final = 512
"""Tokens of a slot beside the prompt and the answer, for the template."""


@click.command()
@click.argument("model")
@click.option("--engines", metavar="A,B", help="Engines to compare. Default: all that are installed and take the file.")
@click.option("--clients", default="1,8,32", show_default=True, metavar="N,N", help="Numbers of clients at once.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(1), help="Tokens of each answer, at most.")
@click.option("--prompt", default=512, show_default=True, type=click.IntRange(8), help="Tokens of the prompt, about.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table and bars.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write an SVG picture.")
@data_dir_option
@config_option
def bench(
    model: str,
    engines: str | None,
    clients: str,
    tokens: int,
    prompt: int,
    as_json: bool,
    plot: Path | None,
    data_dir: str | None,
    config: Path | None,
) -> None:
    """Measure MODEL in the installed engines: loading, first token, throughput, memory.

    MODEL is what `ore serve` takes, but for models of providers and aliases.
    """
    import asyncio

    from ore.commands.bench_measures import Plan, recommended

    settings = resolve_models(load_settings(config, data_dir=data_dir).settings, model)
    name = settings.default_model
    if name not in settings.models:
        raise StartupError(f"ore bench measures models on this machine, and {model} is none.")
    plan = Plan(clients=_counts(clients), tokens=tokens, prompt=prompt)
    measured, bandwidth = asyncio.run(_measure_all(settings, name, engines, plan))
    if plot is not None:
        from ore.commands.bench_pictures import svg

        plot.write_text(svg(name, measured), "utf-8")
    if as_json:
        engines_found = {each.engine: to_builtins(each, str_keys=True) for each in measured}
        found = {"model": name, "bytes_per_second": bandwidth, "engines": engines_found}
        click.echo(json.dumps({**found, "recommended": recommended(measured)}, indent=2))
    else:
        _show(name, measured, recommended(measured))
    sys.exit(0 if any(each.problem is None for each in measured) else 1)


async def _measure_all(
    settings: Settings, name: str, wanted: str | None, plan: "Plan"
) -> "tuple[list[Measured], float]":
    """One engine after the other: together they would measure each other."""
    from ore.backends.local.auto import kind_of
    from ore.commands.bench_measures import copied_bytes_per_second, measure
    from ore.engines import fetched

    model = settings.models[name]
    with download_progress() as download:
        path = await fetched(settings, name, model.path, download)
    if kind_of(path) == "classical":
        raise StartupError("ore bench measures language models, and this file is none.")
    if not path.exists():
        raise StartupError(f"The model {name} has no file {model.path}; correct its path.")
    chosen = _engines(path, wanted)
    bandwidth = copied_bytes_per_second()
    sized = _sized(model, plan)
    with _progress(len(chosen) * plan.steps) as say:
        found = [
            await measure(engine, path, sized, settings, plan, bandwidth, _prefixed(say, engine)) for engine in chosen
        ]
    return found, bandwidth


def _sized(model: ModelSettings, plan: "Plan") -> ModelSettings:
    """With a slot for each client, and room for what is asked."""
    room = 2 * plan.prompt + plan.tokens + SPARE_CONTEXT
    return replace(model, slots=min(256, max(plan.clients)), context=room)


def _engines(path: Path, wanted: str | None) -> list[str]:
    """Those to compare. Raises `StartupError` for one that is not here."""
    from ore.backends.local.auto import takers
    from ore.engines import install_command, is_installed

    if wanted is None:
        able = takers(path)
        return [engine for engine in able if is_installed(engine)] or _none_of(able)
    asked = [name.strip() for name in wanted.split(",") if name.strip()]
    for engine in asked:
        if not is_installed(engine):
            raise StartupError(f"The engine {engine} is not installed; install it with: {install_command(engine)}")
    return asked


def _none_of(able: list[str]) -> list[str]:
    from ore.engines import install_command

    raise StartupError(f"No engine for it is installed; install one with: {install_command(able[0])}")


def _counts(clients: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(count) for count in clients.split(",")}))
    except ValueError:
        counts = ()
    if not counts or not 1 <= counts[0] <= counts[-1] <= 256:
        raise StartupError(f"--clients is {clients!r}, and must be numbers from 1 to 256 with commas: 1,8,32.")
    return counts


def _prefixed(say: "Step", engine: str) -> "Step":
    return lambda what: say(f"{engine}: {what}")


@contextmanager
def _progress(steps: int) -> "Iterator[Step]":
    """On standard error: a bar on a terminal, a line for each step elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what: click.echo(what, err=True)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task: Any = bars.add_task("", total=steps)
        bars.advance(task, -1)

        def say(what: str) -> None:
            bars.update(task, description=what, advance=1)

        yield say


def _show(name: str, measured: "list[Measured]", sentence: str) -> None:
    from rich.console import Console

    from ore.commands.bench_pictures import draw

    console = Console() if sys.stdout.isatty() else Console(width=160)
    draw(console, name, measured)
    click.echo(sentence)
