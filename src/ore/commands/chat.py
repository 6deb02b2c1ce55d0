"""`ore chat`: a conversation in the terminal, with a running server or with one of its own.

Answers go to standard output and everything about them to standard error, so that `ore chat --once` can be piped.
With `--resume` it goes on from a stored response; what was said before is read, and shown, but not sent again.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from ore.commands.address import refuse_no_url, refuse_two_places, url_of
from ore.commands.child import child_server
from ore.commands.conversation import Conversation, Piece, served_models
from ore.commands.holder import holder_of
from ore.commands.options import config_option, data_dir_option, load_settings
from ore.commands.screen import CONTROL, Screen, screen
from ore.commands.serve import refuse_missing_files
from ore.commands.stored import Earlier, resumable, stored_responses
from ore.errors import StartupError
from ore.settings import Settings, configured_names, provider_model, resolve_models
from ore.whereabouts import is_held

_SLASHED: Final = re.compile(r"/[A-Za-z?]+(\s.*)?")
"""What looks like a command to this chat, and not like a path."""


@click.command()
@click.argument("model", required=False)
@click.option("--url", metavar="URL", help="The server to talk to. Default: the one on this machine, or a new one.")
@click.option("--system", metavar="TEXT", help="Instructions for the model.")
@click.option("--once", metavar="PROMPT", help="Ask this alone, print the answer and leave.")
@click.option(
    "--resume",
    metavar="[ID]",
    is_flag=False,
    flag_value="",
    help="Go on from a stored response; without ID, the newest.",
)
@data_dir_option
@config_option
def chat(
    model: str | None,
    url: str | None,
    system: str | None,
    once: str | None,
    resume: str | None,
    data_dir: str | None,
    config: Path | None,
) -> None:
    """Talk to a model.

    MODEL is what `ore serve` takes. Ctrl-C stops an answer; Ctrl-D or /exit leaves. Without --url, the server that has
    the data folder is used, else one at the address of the settings, else one is started for as long as the chat
    lasts. With --data-dir or --resume it is the data folder that counts, and no address.
    """
    earlier = Earlier()
    if resume is not None:
        with stored_responses(url, data_dir, config) as stored:
            earlier = resumable(stored, resume or None)
    anywhere = data_dir is None and resume is None
    with _server(model or earlier.model, url, data_dir, config, anywhere) as (address, name):
        conversation = Conversation(address, name, system or earlier.instructions)
        conversation.previous_response_id = earlier.id
        shown = screen()
        if once is not None:
            sys.exit(_once(conversation, shown, once))
        click.echo(f"Talking to {name} at {address}. Ctrl-C stops an answer; Ctrl-D or /exit leaves.", err=True)
        for line in earlier.exchange:
            click.secho(CONTROL.sub("", line), dim=True, err=True)
        ended = [_answer(conversation, shown, prompt) for prompt in _prompts()]
        if "failed" in ended and not sys.stdin.isatty():
            sys.exit(1)


@contextmanager
def _server(
    model: str | None, url: str | None, data_dir: str | None, config: Path | None, anywhere: bool
) -> Iterator[tuple[str, str]]:
    """The URL of a server that has the model, and the model's name there; `anywhere`: with whatever data folder."""
    if url is not None:
        refuse_two_places(data_dir, config)
        refuse_no_url(url)
        yield url, _model_at(url, model)
        return
    configured = load_settings(config, data_dir=data_dir).settings
    if is_held(configured.data_path()):
        url = holder_of(configured.data_path())
        yield url, _found_at(url, model, configured) or _model_at(url, model)
        return
    running = url_of(configured.server) if anywhere else None
    if running and (name := _found_at(running, model, configured)):
        yield running, name
        return
    if model not in configured.models:
        _refuse_question(model)
    settings = resolve_models(configured, model)
    refuse_missing_files(settings)
    options = {"--data-dir": data_dir, "--config": config, "--log-level": "warning"}
    given = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    with child_server([*([model] if model else []), *given]) as started:
        yield started, settings.default_model or configured_names(settings)[0]


def _found_at(url: str, model: str | None, configured: Settings) -> str | None:
    """The name that the server at `url` has for the model, or for the one that the settings or it would take."""
    here = served_models(url) or []
    if model in here:  # whatever these settings know of it
        return model
    try:
        settings = resolve_models(configured, model)
    except StartupError:
        return None
    wanted = settings.default_model or configured_names(settings)[0]
    if wanted in here or (here and provider_model(settings, wanted)):  # a provider may have more than it lists
        return wanted
    return here[0] if here and model is None else None


def _model_at(url: str, model: str | None) -> str:
    models = served_models(url, timeout=10)
    if models is None:
        raise StartupError(f"No server answers at {url}; start one with `ore serve`, or talk without one: ore chat.")
    if model is None and not models:
        raise StartupError(f"The server at {url} lists no models; name one: ore chat MODEL --url {url}.")
    if model and models and model not in models:
        _refuse_question(model)
        if "/" not in model:  # of a provider, which may have more than it lists
            raise StartupError(f"The server at {url} has no model {model}; it has {', '.join(models[:16])}.")
    return model or models[0]


def _refuse_question(model: str | None) -> None:
    """Raise `StartupError` for a MODEL that is a sentence."""
    if model and len(model.split()) > 1 and not model.lower().endswith(".gguf"):
        raise StartupError(f"There is no model {model!r}; to ask that: ore chat --once {shlex.quote(model)}")


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
        if _SLASHED.fullmatch(text):
            click.echo(f"There is no {text.split()[0]} here. /exit or Ctrl-D leaves; Ctrl-C stops an answer.", err=True)
        elif text:
            yield text


def _once(conversation: Conversation, screen: Screen, prompt: str) -> int:
    """The exit status: 0 answered, 1 failed, 130 stopped by Ctrl-C."""
    return {"answered": 0, "failed": 1, "stopped": 130}[_answer(conversation, screen, prompt)]


def _answer(conversation: Conversation, screen: Screen, prompt: str) -> str:
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
