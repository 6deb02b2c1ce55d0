"""The server that has a data folder, found by what it says there. Starts nothing, and waits for nothing."""

from pathlib import Path

import click

from ore.commands.conversation import served_models
from ore.errors import StartupError
from ore.whereabouts import announced_url


def holder_of(folder: Path) -> str:
    """The URL of the server that has `folder`. Raises `StartupError` when none answers."""
    url = announced_url(folder)
    if url is None:
        raise StartupError(
            f"Another ore process has {folder}, and does not say that it listens; it may be about to start or to end. "
            f"Try again in a moment, or name a server: {_command()} --url http://127.0.0.1:8000"
        )
    if served_models(url, timeout=10) is None:
        raise StartupError(
            f"The server that has {folder} does not answer at {url}. Try again in a moment, or name another: "
            f"{_command()} --url http://127.0.0.1:8000"
        )
    return url


def _command() -> str:
    """The command that runs, such as `ore responses list`."""
    context = click.get_current_context(silent=True)
    return context.command_path if context else "ore"
