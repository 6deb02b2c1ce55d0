"""`ore ps`: the models of a server that runs, which of them are in memory, and what they are doing."""

import json
from pathlib import Path
from typing import Any, Final

import click

from ore.commands.address import refuse_no_url, refuse_two_places
from ore.commands.conversation import connection_to
from ore.commands.holder import holder_of
from ore.commands.models import human_size, print_table
from ore.commands.options import config_option, data_dir_option, load_settings
from ore.errors import StartupError
from ore.whereabouts import is_held

SECONDS: Final = 10.0
_HEADER: Final = ("MODEL", "ENGINE", "STATE", "MEMORY", "RUNNING", "WAITING", "IDLE", "UNTIL")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table; sizes in bytes.")
@click.option("--url", metavar="URL", help="The server to ask. Default: the one that has the data folder.")
@data_dir_option
@config_option
def ps(as_json: bool, url: str | None, data_dir: str | None, config: Path | None) -> None:
    """List the models of a running server that it runs itself: which are in memory, and what they do."""
    if url is not None:
        refuse_two_places(data_dir, config)
        refuse_no_url(url)
    rows = _models(url or _server_of(load_settings(config, data_dir=data_dir).settings.data_path()))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table([_HEADER, *map(_line, rows)])


def _server_of(folder: Path) -> str:
    if not is_held(folder):
        raise StartupError(f"No server has {folder}. Start one with ore serve, or name another with --url.")
    return holder_of(folder)


def _models(url: str) -> list[dict[str, Any]]:
    """What the server tells of each backend that has a state in memory. Raises `StartupError`."""
    from http.client import HTTPException

    connection = connection_to(url, SECONDS)
    try:
        connection.request("GET", "/readyz?verbose", headers={"accept": "application/json"})
        backends = json.loads(connection.getresponse().read())["backends"]
        return [{"name": name, **detail} for name, detail in backends.items() if "state" in detail]
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"No ORE answers at {url}; is it running?") from error
    finally:
        connection.close()


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["engine"],
        row["state"],
        human_size(row["memory_bytes"] or None),
        str(row["running"]),
        str(row["waiting"]),
        _seconds(row.get("idle_seconds")),
        _until(row),
    )


def _seconds(seconds: float | None) -> str:
    """`12 s`, `3 min`, `2 h`."""
    if seconds is None:
        return "-"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _until(row: dict[str, Any]) -> str:
    """When it leaves memory, if nobody asks for it."""
    if row["state"] != "loaded":
        return "-"
    if row["keep_alive"] < 0:
        return "needed by others"
    return _seconds(max(0.0, row["keep_alive"] - row.get("idle_seconds", 0.0)))
