"""Options that several commands take, and the settings they make. The only module that reads the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from ore import settings

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file. Without it: $ORE_CONFIG, ./ore.toml, then ore/config.toml in your configuration folder.",
)
data_dir_option = click.option(
    "--data-dir", metavar="FOLDER", help="Folder for the database and downloaded models. Default: your data folder."
)


def environ() -> Mapping[str, str]:
    """The environment, for what the settings refer to."""
    return os.environ


def load_settings(config: Path | None, **flags: object) -> settings.LoadedSettings:
    """Settings from the file, the environment and flags; a flag's name has `__` for the dot (`server__port`)."""
    return settings.load(config, os.environ, {name.replace("__", "."): value for name, value in flags.items()})


def default_settings() -> settings.Settings:
    """The defaults on this machine, whatever the file and the environment say."""
    said = ("ORE_", *settings.PROVIDER_VARIABLES)
    folders = {name: value for name, value in os.environ.items() if not name.startswith(said)}
    return settings.load(Path(os.devnull), folders, {}).settings
