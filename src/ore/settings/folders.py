"""The folders of this platform's user: where the settings file is looked for, and where data goes by default.

The environment is handed in; nothing here creates or reads a file, and the only question asked is whether one exists.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final


def find_config(environ: Mapping[str, str]) -> Path | None:
    """The settings file when nobody named one: `ORE_CONFIG`, `./ore.toml`, `ore/config.toml` in the user's folder."""
    if named := environ.get("ORE_CONFIG"):
        return expanded(named, environ)
    for candidate in (Path("ore.toml"), user_config_file(environ)):
        if candidate.is_file():
            return candidate
    return None


def user_config_file(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/ore/config.toml`, or what this platform has in its place."""
    if sys.platform == "win32":
        return _named(environ, "APPDATA", "AppData/Roaming") / "ore" / "config.toml"
    mac = sys.platform == "darwin"
    return _named(environ, "XDG_CONFIG_HOME", _MAC if mac else ".config") / "ore" / "config.toml"


def user_data_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_DATA_HOME/ore`, or what this platform has in its place."""
    if sys.platform == "win32":
        return _named(environ, "LOCALAPPDATA", "AppData/Local") / "ore"
    return _named(environ, "XDG_DATA_HOME", _MAC if sys.platform == "darwin" else ".local/share") / "ore"


_MAC: Final = "Library/Application Support"


def _named(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """The folder a variable names, if it is absolute (the XDG specification asks for that), else one in the home."""
    folder = Path(environ.get(variable, ""))
    return folder if folder.is_absolute() else _home(environ) / fallback


def _home(environ: Mapping[str, str]) -> Path:
    named = environ.get("USERPROFILE" if sys.platform == "win32" else "HOME", "")
    return Path(named) if named else Path.home()


def expanded(text: str, environ: Mapping[str, str]) -> Path:
    return _home(environ) / text[2:] if text.startswith("~/") or text == "~" else Path(text)
