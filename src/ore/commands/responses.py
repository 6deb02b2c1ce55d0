"""`ore responses`: lists, shows and deletes what is stored, with or without a server that runs."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ore.commands.options import config_option, data_dir_option
from ore.commands.screen import CONTROL
from ore.commands.stored import Refused, stored_responses, told

Command = TypeVar("Command", bound=Callable[..., Any])

_COLORS: Final = {"user": "green", "tool": "cyan", "result": "cyan", "error": "red", "note": "yellow"}


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
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _draw(found)
    else:
        for one in found:
            click.echo("\t".join(_cells(one)))


@responses.command()
@click.argument("response_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The response object as GET gives it.")
@_where
def show(response_id: str, as_json: bool, url: str | None, data_dir: str | None, config: Path | None) -> None:
    """Show a response: what was said before it, and what it said."""
    with stored_responses(url, data_dir, config) as stored:
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


def _draw(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("ID", "CREATED", "STATUS", "MODEL", "INPUT", "TOKENS", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = column.header != "INPUT"
    for one in found:
        table.add_row(*map(Text, _cells(one)))
    Console().print(table)


def _cells(one: dict[str, Any]) -> list[str]:
    tokens = "-" if one["output_tokens"] is None else str(one["output_tokens"])
    row = (one["id"], _time(one), one["status"], one["model"], one["input"], tokens)
    return [CONTROL.sub("", str(cell)).replace("\t", " ").replace("\n", " ") for cell in row]


def _time(response: dict[str, Any]) -> str:
    """To the second; in the time zone of this machine on a terminal, else in UTC."""
    made = datetime.fromtimestamp(response["created_at"], UTC)
    return f"{made.astimezone():%Y-%m-%d %H:%M:%S}" if sys.stdout.isatty() else f"{made:%Y-%m-%dT%H:%M:%SZ}"
