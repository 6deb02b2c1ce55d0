"""`ore responses`: lists, shows and deletes what is stored, with or without a server that runs."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Final, TypeVar

import click

from ore.commands.options import config_option, data_dir_option
from ore.commands.screen import CONTROL
from ore.commands.stored import Refused, stored_responses, told

Command = TypeVar("Command", bound=Callable[..., Any])

_COLORS: Final = {"user": "green", "tool": "cyan", "result": "cyan", "error": "red", "note": "yellow"}
_COLUMNS: Final = ("ID", "CREATED", "STATUS", "MODEL", "INPUT", "TOKENS")
_NARROW: Final = ("ID", "CREATED", "STATUS", "INPUT")
_SMALLEST_INPUT: Final = 12
"""Columns of the terminal without which INPUT says nothing."""


def _where(command: Command) -> Command:
    """The options that say where the responses are."""
    url = click.option("--url", metavar="URL", help="The server to ask. Default: the one that has the data folder.")
    return url(data_dir_option(config_option(command)))


@click.group()
def responses() -> None:
    """List, show and delete stored responses.

    A server need not run. If one has the data folder, it is asked.
    """


@responses.command(name="list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@_where
def list_(limit: int, as_json: bool, url: str | None, data_dir: str | None, config: Path | None) -> None:
    """List stored responses, newest first."""
    with stored_responses(url, data_dir, config) as stored:
        found = stored.newest(limit)
    if not found:
        click.echo(f"Nothing is stored in {stored.where}.", err=True)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found and sys.stdout.isatty():
        _draw(found, get_terminal_size().columns)
    else:
        for one in found:
            click.echo("\t".join(_cell(name, one) for name in _COLUMNS))


@responses.command()
@click.argument("response_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The response object as GET gives it.")
@_where
def show(response_id: str, as_json: bool, url: str | None, data_dir: str | None, config: Path | None) -> None:
    """Show a response: what was said before it, and what it said."""
    with stored_responses(url, data_dir, config) as stored:
        response_id = stored.named(response_id)
        body = stored.read(response_id)
        given = [] if as_json else stored.given(response_id)
    if as_json:
        click.echo(body)
        return
    response = json.loads(body)
    click.echo(f"{response_id}  {_time(response)}  {response['status']}  {response['model']}\n")
    for who, text in _said(given, response):
        _say(who, text)


@responses.command()
@click.argument("response_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_where
def delete(
    response_ids: tuple[str, ...], yes: bool, url: str | None, data_dir: str | None, config: Path | None
) -> None:
    """Delete responses, together with their items.

    What continues from them can be read afterwards, but not continued.
    """
    if not yes and sys.stdin.isatty():
        what = response_ids[0] if len(response_ids) == 1 else f"{len(response_ids)} responses"
        click.confirm(f"Delete {what}?", abort=True, err=True)
    kept = False
    with stored_responses(url, data_dir, config) as stored:
        for response_id in response_ids:
            try:
                response_id = stored.named(response_id)
                stored.delete(response_id)
                click.echo(f"Deleted {response_id}.")
            except Refused as refusal:
                refusal.show()
                kept = True
    if kept:
        sys.exit(1)


def _said(given: list[dict[str, Any]], response: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The conversation, and how it ended where that was not well."""
    for item in (*given, *response["output"]):
        yield told(item)
    if error := response.get("error"):
        yield "error", error["message"]
    if details := response.get("incomplete_details"):
        yield "note", f"The answer was cut short: {details['reason']}."


def _say(who: str, text: str) -> None:
    if sys.stdout.isatty():
        click.echo(f"{click.style(who, fg=_COLORS.get(who), bold=True)}: {CONTROL.sub('', text)}")
    else:
        click.echo(f"{who}: {text}")


def _draw(found: list[dict[str, Any]], width: int) -> None:
    """A table no wider than the terminal: columns are left out, times and inputs cut short, but never an id."""
    for columns, short in (_COLUMNS, False), (_NARROW, False), (_NARROW, True):
        rows = [columns, *([_cell(name, one, short) for name in columns] for one in found)]
        widths = _widths(rows, width)
        if widths[columns.index("INPUT")] >= _SMALLEST_INPUT:
            break
    for row in rows:
        line = "  ".join(_fitted(cell, wide) for cell, wide in zip(row, widths, strict=True))
        click.secho(line.rstrip(), bold=row is columns)


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """As wide as what stands there, but for INPUT, which has the rest of the line at most."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    at = rows[0].index("INPUT")
    rest = width - sum(widths) - 2 * (len(widths) - 1) + widths[at]
    return [min(widths[at], max(rest, 0)) if n == at else wide for n, wide in enumerate(widths)]


def _fitted(cell: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return f"{set_cell_size(cell, width - 1).rstrip()}…" if width > 0 else ""


def _cell(name: str, one: dict[str, Any], short: bool = False) -> str:
    """One thing of a response, without anything that breaks a line or steers a terminal."""
    if name == "CREATED":
        return _time(one)[5:16] if short else _time(one)
    if name == "TOKENS":
        return "-" if one["output_tokens"] is None else str(one["output_tokens"])
    return CONTROL.sub("", str(one[name.lower()])).replace("\t", " ").replace("\n", " ")


def _time(response: dict[str, Any]) -> str:
    """To the second; in the time zone of this machine on a terminal, else in UTC."""
    made = datetime.fromtimestamp(response["created_at"], UTC)
    return f"{made.astimezone():%Y-%m-%d %H:%M:%S}" if sys.stdout.isatty() else f"{made:%Y-%m-%dT%H:%M:%SZ}"
