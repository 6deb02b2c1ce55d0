"""`ore chat`: a conversation in the terminal, with a running server or with one of its own.

Answers go to standard output and everything about them to standard error, so that `ore chat --once` can be piped.
On a terminal, control characters in an answer are dropped: a model must not steer the terminal.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import click

from ore.commands.child import child_server
from ore.commands.conversation import Conversation, Piece, served_models
from ore.commands.options import config_option, data_dir_option, load_settings
from ore.commands.serve import refuse_missing_files
from ore.errors import StartupError
from ore.settings import Settings, resolve_models


@click.command()
@click.argument("model", required=False)
@click.option("--url", metavar="URL", help="The server to talk to. Default: the one on this machine, or a new one.")
@click.option("--system", metavar="TEXT", help="Instructions for the model.")
@click.option("--once", metavar="PROMPT", help="Ask this alone, print the answer and leave.")
@data_dir_option
@config_option
def chat(
    model: str | None, url: str | None, system: str | None, once: str | None, data_dir: str | None, config: Path | None
) -> None:
    """Talk to a model.

    MODEL is what `ore serve` takes. Ctrl-C stops an answer; Ctrl-D or /exit leaves. Without --url, a server of these
    settings is used if it runs, else one is started for as long as the chat lasts.
    """
    with _server(model, url, data_dir, config) as (address, name):
        conversation = Conversation(address, name, system)
        screen = _screen()
        if once is not None:
            sys.exit(_once(conversation, screen, once))
        click.echo(f"Talking to {name} at {address}. Ctrl-C stops an answer; Ctrl-D or /exit leaves.", err=True)
        ended = [_answer(conversation, screen, prompt) for prompt in _prompts()]
        if "failed" in ended and not sys.stdin.isatty():
            sys.exit(1)


@contextmanager
def _server(model: str | None, url: str | None, data_dir: str | None, config: Path | None) -> Iterator[tuple[str, str]]:
    """The URL of a server that has the model, and the model's name there."""
    if url is not None:
        if data_dir is not None or config is not None:
            raise StartupError("--url names a server that runs already; leave --data-dir and --config out.")
        yield url, _model_at(url, model)
        return
    settings = resolve_models(load_settings(config, data_dir=data_dir).settings, model)
    running = _url_of(settings)
    here = (served_models(running) if running else None) or []
    wanted = settings.default_model or next(iter(settings.models))
    if here and model is None and wanted not in here:
        wanted = here[0]
    if running and wanted in here:
        yield running, wanted
        return
    refuse_missing_files(settings)
    options = {"--data-dir": data_dir, "--config": config, "--log-level": "warning"}
    given = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    with child_server([*([model] if model else []), *given]) as started:
        yield started, wanted


def _url_of(settings: Settings) -> str | None:
    """Where a server with these settings listens; None when only it would know."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.server.host, settings.server.host)  # noqa: S104
    bracketed = f"[{host}]" if ":" in host else host
    return f"http://{bracketed}:{settings.server.port}" if settings.server.port else None


def _model_at(url: str, model: str | None) -> str:
    if not _is_url(url):
        raise StartupError(f"--url is {url}, which is no URL; write it like http://127.0.0.1:8000.")
    models = served_models(url, timeout=10)
    if models is None:
        raise StartupError(f"No server answers at {url}; start one with `ore serve`, or leave --url out.")
    if model is None and not models:
        raise StartupError(f"The server at {url} lists no models; name one: ore chat MODEL --url {url}.")
    if model and models and model not in models:
        raise StartupError(f"The server at {url} has no model {model}; it has {', '.join(models[:16])}.")
    return model or models[0]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _prompts() -> Iterator[str]:
    """What the user types, or the lines of standard input, until /exit or the end."""
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):  # Windows has its own line editor
            import readline  # noqa: F401 (arrow keys and history for input())
    while True:
        try:
            text = input("> " if terminal else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            click.echo("\nCtrl-D or /exit leaves.", err=True)
            continue
        if text == "/exit":
            return
        if text:
            yield text


def _once(conversation: Conversation, screen: "_Screen", prompt: str) -> int:
    """The exit status: 0 answered, 1 failed, 130 stopped by Ctrl-C."""
    return {"answered": 0, "failed": 1, "stopped": 130}[_answer(conversation, screen, prompt)]


def _answer(conversation: Conversation, screen: "_Screen", prompt: str) -> str:
    ended = "answered"
    with closing(conversation.ask(prompt)) as pieces:
        try:
            for piece in pieces:
                screen.show(piece)
                if piece.kind == "error":
                    ended = "failed"
        except KeyboardInterrupt:
            screen.show(Piece("note", "Stopped."))
            ended = "stopped"
    screen.end()
    return ended


class _Screen(Protocol):
    """Where pieces are shown. `end` closes an answer."""

    def show(self, piece: Piece) -> None: ...

    def end(self) -> None: ...


def _screen() -> _Screen:
    return _Terminal() if sys.stdout.isatty() else _Plain()


class _Plain:
    """The answer to standard output as it comes, the rest to standard error; reasoning is left out."""

    def __init__(self) -> None:
        self._line_open = False

    def show(self, piece: Piece) -> None:
        if piece.kind == "text":
            click.echo(piece.text, nl=False)
            self._line_open = not piece.text.endswith("\n")
        elif piece.kind != "reasoning":
            self.end()
            click.echo(f"{piece.kind}: {piece.text}", err=True)

    def end(self) -> None:
        if self._line_open:
            click.echo()
        self._line_open = False


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLES: Final = {"text": "", "reasoning": "dim italic", "tool": "cyan", "note": "yellow", "error": "red"}


class _Terminal:
    """Everything in its own style. Text flows; a change of kind starts a new line."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._line_open = False
        self._kind = ""

    def show(self, piece: Piece) -> None:
        if piece.kind != self._kind:
            self.end()
        self._kind = piece.kind
        text = _CONTROL.sub("", piece.text)
        if piece.kind in ("tool", "note", "error"):
            text = f"{piece.kind}: {text}\n"
        if text:
            self._console.print(text, style=_STYLES[piece.kind], end="")
            self._line_open = not text.endswith("\n")

    def end(self) -> None:
        if self._line_open:
            self._console.print()
        self._line_open = False
        self._kind = ""
