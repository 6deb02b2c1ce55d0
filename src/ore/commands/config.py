"""`ore config`: writes the template, shows what is in force, finds mistakes. Replaces no file unless told to."""

from pathlib import Path

import click

from ore import settings
from ore.commands.address import refuse_public_bind
from ore.commands.options import config_option, data_dir_option, environ, load_settings
from ore.commands.serve import refuse_missing_files, refuse_missing_keys
from ore.errors import StartupError


@click.group()
def config() -> None:
    """Write, show and check the settings file."""


@config.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("ore.toml"))
@click.option("--force", is_flag=True, help="Replace a file that exists.")
def init(path: Path, force: bool) -> None:
    """Write a settings file with every setting, explained and commented out, to PATH (default: ore.toml)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(settings.template())
    except FileExistsError:
        raise StartupError(f"{path} exists already; --force replaces it.") from None
    except OSError as error:
        raise StartupError(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {path}. Change what you like, then: ore config check --config {path}")


@config.command()
@click.option("--origin", is_flag=True, help="Say for each value where it comes from.")
@data_dir_option
@config_option
def show(origin: bool, data_dir: str | None, config: Path | None) -> None:
    """Print the settings in force, as a settings file."""
    click.echo(settings.effective(load_settings(config, data_dir=data_dir), origin=origin), nl=False)


@config.command()
@data_dir_option
@config_option
def check(data_dir: str | None, config: Path | None) -> None:
    """Find mistakes in the settings; exit status 2 if there is one."""
    loaded = load_settings(config, data_dir=data_dir)
    served = settings.resolve_models(loaded.settings)
    refuse_public_bind(served.server)
    refuse_missing_files(served)
    refuse_missing_keys(served, environ())
    where = loaded.path or "no settings file, so the defaults"
    models = ", ".join([*settings.configured_names(served), *(f"{name}/*" for name in served.providers)])
    click.echo(f"Good: {where}; serves {models} on {served.server.host}, port {served.server.port}.")
