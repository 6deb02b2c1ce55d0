"""`ore serve`: settles what to serve and where, hands over to `ore.serving`, and says what is up.

Everything that can be refused before the server is built is refused here, in one sentence.
"""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click
from msgspec.structs import replace

from ore import __version__
from ore.commands.address import refuse_public_bind, refuse_taken_port
from ore.commands.options import config_option, data_dir_option, environ, load_settings
from ore.commands.progress import download_progress
from ore.errors import StartupError
from ore.hosts import is_loopback
from ore.settings import EngineName, Settings, model_file, model_kind, resolve_models, resolved_headers, resolved_key

if TYPE_CHECKING:
    from ore.backends.local.auto import Choice
    from ore.serving import BoundAddress

ENGINE_NAMES: Final = get_args(EngineName)


@click.command()
@click.argument("model", required=False)
@click.option("--host", help="Address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. Default: 8000.")
@data_dir_option
@config_option
@click.option(
    "--engine", type=click.Choice(ENGINE_NAMES), help="What runs MODEL; auto chooses. Default: as configured."
)
@click.option("--insecure-no-auth", is_flag=True, default=None, help="Allow a public address without keys.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least important level shown."
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends.")
def serve(
    model: str | None,
    host: str | None,
    port: int | None,
    data_dir: str | None,
    config: Path | None,
    engine: str | None,
    insecure_no_auth: bool | None,
    log_level: str | None,
    until_stdin_closes: bool,
) -> None:
    """Serve the Responses API until Ctrl-C.

    MODEL is the default model: a name from [models], PROVIDER/MODEL, ore-tiny (bundled), a .gguf file, or
    ORG/REPO:FILE.gguf on a model hub. Without MODEL and configured models, ore-tiny is served.
    """
    loaded = load_settings(
        config,
        data_dir=data_dir,
        server__host=host,
        server__port=port,
        server__insecure_no_auth=insecure_no_auth,
        log__level=log_level,
    )
    settings = with_engine(resolve_models(loaded.settings, model), engine)
    if sys.platform == "win32":
        raise StartupError("ORE runs on Linux and macOS; on Windows, run it in WSL.")
    refuse_public_bind(settings.server)
    refuse_missing_files(settings)
    refuse_missing_keys(settings, environ())
    refuse_taken_port(settings.server)
    if until_stdin_closes:
        _stop_when_stdin_closes()
    _run(settings)


def with_engine(settings: Settings, engine: str | None) -> Settings:
    """The settings with another engine for the default model. Raises `StartupError` when no engine runs that one."""
    if engine is None:
        return settings
    name = settings.default_model
    if name not in settings.models:
        raise StartupError(f"--engine is for a model on this machine, and {name or 'no MODEL'} is none; name one.")
    model = replace(settings.models[name], engine=engine)
    return replace(settings, models={**settings.models, name: model})


def refuse_missing_files(settings: Settings) -> None:
    """Raise `StartupError` for a model whose file should be here and is not. Hub files come with the start."""
    for name, model in settings.models.items():
        kind = model_kind(model.path)
        if kind in {"file", "code"} and not model_file(settings, model.path).exists():
            raise StartupError(f"The model {name} has no file {model.path}; correct its path.")
        if kind == "bundled" and not model_file(settings, model.path).is_file():
            raise StartupError(
                f"This installation has no {model.path}, the bundled model; reinstall ORE, or name a .gguf file."
            )


def refuse_missing_keys(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raise `StartupError` for a provider whose key or header is not where its settings say."""
    for name, provider in settings.providers.items():
        resolved_key(name, provider, environ)
        resolved_headers(name, provider, environ)


def _run(settings: Settings) -> None:
    from ore.serving import run

    def ready(address: "BoundAddress") -> None:
        for line in announcement(settings, address):
            click.echo(line)

    with download_progress() as progress:
        run(settings, ready=ready, progress=progress)


def announcement(settings: Settings, address: "BoundAddress") -> list[str]:
    """What is up, and lines to copy: one fact a line."""
    url = address.url.rstrip("/")
    model = settings.default_model or next(iter(address.models), "")
    names = [f"{name} (default)" if name == settings.default_model else name for name in address.models]
    lines = [
        f"ORE     {__version__}",
        f"URL     {url}/v1",
        f"models  {', '.join(names)}",
        *(f"engine  {name}: {choice.engine} ({choice.why})" for name, choice in engines_of(settings)),
        f"store   {settings.data_path()}",
    ]
    if settings.server.docs:
        lines.append(f"docs    {url}/docs")
    local = is_loopback(settings.server.host)
    key = "none is needed on loopback; give clients any word" if local else "none: whoever reaches it may use it"
    return [*lines, f"key     {key}", "", *_examples(f"{url}/v1", model), ""]


def engines_of(settings: Settings) -> Iterator[tuple[str, "Choice"]]:
    """The engine of each model on this machine, and why."""
    from ore.engines import chosen

    for name, model in settings.models.items():
        yield name, chosen(model_file(settings, model.path), model)


def _examples(url: str, model: str) -> list[str]:
    """A curl and a Python line for any POSIX shell. No "!": interactive shells make history of it."""
    body = json.dumps({"model": model, "input": "Hello"}, ensure_ascii=False)
    python = (
        f"from openai import OpenAI; client = OpenAI(base_url={url!r}, api_key='local'); "
        f"print(client.responses.create(model={model!r}, input='Hello').output_text)"
    )
    quoted = shlex.quote(python) if set(python) & set('"$`\\!') else f'"{python}"'
    return [
        f"curl {url}/responses -H 'content-type: application/json' -d {shlex.quote(body)}",
        f"python -c {quoted}",
    ]


def _stop_when_stdin_closes() -> None:
    """End as by SIGTERM once standard input ends: a parent that dies, however, takes this server with it."""
    import os
    import signal
    import threading

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="until-stdin-closes", daemon=True).start()
