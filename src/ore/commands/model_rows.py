"""What a server with these settings can serve, as rows: models here, aliases, models of providers. Draws nothing.

What providers' models can do is what is known of their families; only `discovered` asks the providers.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from ore.commands.options import environ
from ore.errors import StartupError
from ore.settings import (
    BUNDLED_MODELS,
    AliasSettings,
    ModelSettings,
    Settings,
    is_classical,
    model_file,
    model_kind,
    provider_model,
    resolve_models,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ore.backends.base import Backend, Capabilities

Row = dict[str, Any]
"""A model. All have `name`, `kind`, `default` and what they can do, None where that is not known."""

Discovered = Mapping[str, Mapping[str, "Capabilities"]]
"""By provider, the models that it listed."""


def list_models(settings: Settings, discovered: Discovered) -> list[Row]:
    """A row for each model: those here, the configured ones first; then aliases, then those of providers."""
    served = resolve_models(settings)
    here = {**served.models, **{name: ModelSettings(path=name) for name in BUNDLED_MODELS if name not in served.models}}
    rows = [
        *(_local(settings, name, model) for name, model in here.items()),
        *(row for name in settings.providers for row in _provided(served, name, discovered.get(name, {}))),
    ]
    able = {row["name"]: {key: row[key] for key in _able()} for row in rows}
    rows[len(here) : len(here)] = [
        _alias(name, alias, able.get(alias.targets[0], _able())) for name, alias in settings.aliases.items()
    ]
    return [{**row, "default": row["name"] == served.default_model} for row in rows]


def _local(settings: Settings, name: str, model: ModelSettings) -> Row:
    """`size` is in bytes, None where there is no file. Whether it reasons is known when it is loaded."""
    from ore.backends.local.memory import stored_bytes

    file = model_file(settings, model.path)
    size = stored_bytes(file) if file.exists() else None
    facts = {"path": model.path, "file": str(file), "size": size, "present": size is not None}
    if is_classical(model.path):
        able = _able(tools=False, images=False, reasoning=False)
        return {"name": name, "kind": "classical", **able, **_engine(file, model), **facts}
    context = settings.llama_cpp.context if model.context is None else model.context
    able = _able(context or _trained_context(file), tools=not _embeds(file, model), images=bool(model.projector))
    return {"name": name, "kind": model_kind(model.path), **able, **_engine(file, model), **facts}


def _engine(file: "Path", model: ModelSettings) -> Row:
    """What will run it and why; `engine` is None where nothing can, and `why` says what to do."""
    from ore.engines import chosen

    try:
        return chosen(file, model)._asdict()
    except StartupError as error:
        return {"engine": None, "why": error.message}


def _trained_context(file: "Path") -> int | None:
    """Tokens of context that the engine will give it; None when its file is not here, or is none."""
    from ore.backends.local.gguf_header import NotGguf, read_header
    from ore.backends.local.options import DEFAULT_CONTEXT_CAP

    try:
        return min(read_header(file).context_length or DEFAULT_CONTEXT_CAP, DEFAULT_CONTEXT_CAP)
    except (NotGguf, OSError):
        return None


def _embeds(file: "Path", model: ModelSettings) -> bool:
    """Whether it will be loaded to embed, and can do nothing else."""
    from ore.backends.local.gguf_header import NotGguf, read_header

    try:
        return read_header(file).embeds if model.embeddings is None else model.embeddings
    except (NotGguf, OSError):
        return bool(model.embeddings)


def _alias(name: str, alias: AliasSettings, first: Row) -> Row:
    """What it can do is what its `first` target can, as in `GET /v1/models`."""
    rules = {key: value for key in RULES if (value := getattr(alias, key)) is not None}
    return {"name": name, "kind": "alias", **first, "targets": list(alias.targets), **rules}


RULES: Final = ("route", "weights", "spill_waiting", "spill_seconds", "spill_tokens", "classifier")


def _provided(settings: Settings, name: str, listed: Mapping[str, "Capabilities"]) -> Iterator[Row]:
    """The models of a provider that are configured, listed or named somewhere; and a row for others it may have."""
    from ore.backends.profiles import profile_of

    provider = settings.providers[name]
    known = dict.fromkeys([*provider.models, *listed, *_named(settings, name)])
    where = {"provider": name, "base_url": provider.base_url}
    for model in known:
        can = listed.get(model) or profile_of(provider.kind, model).capabilities()
        able = _able(can.context_window, tools=can.tools, images=can.images, reasoning=can.reasoning)
        yield {"name": f"{name}/{model}", "kind": provider.kind, **able, **where}
    if not provider.models and not listed:
        yield {"name": f"{name}/*", "kind": provider.kind, **_able(), **where}


def _named(settings: Settings, provider: str) -> Iterator[str]:
    """The models of a provider that aliases or the default name."""
    targets = [target for alias in settings.aliases.values() for target in alias.targets]
    for name in (settings.default_model, *targets):
        found = provider_model(settings, name) if name not in settings.models else None
        if found is not None and found.provider == provider:
            yield found.model


def _able(
    context_window: int | None = None,
    *,
    tools: bool | None = None,
    images: bool | None = None,
    reasoning: bool | None = None,
) -> Row:
    return {"context_window": context_window, "tools": tools, "images": images, "reasoning": reasoning}


def discovered(settings: Settings) -> Discovered:
    """What the providers list, asked all at once. One that does not answer is told of on standard error."""
    import anyio

    from ore.app import make_providers

    asked = {
        name: msgspec.structs.replace(provider, discover=True)
        for name, provider in settings.providers.items()
        if not provider.models
    }
    found: dict[str, dict[str, Capabilities]] = {}

    async def ask(name: str, backend: "Backend") -> None:
        await backend.start()
        try:
            found[name] = {model.id: model.capabilities for model in await backend.models()}
        finally:
            await backend.stop()

    async def ask_all(backends: "Mapping[str, Backend]") -> None:
        async with anyio.create_task_group() as tasks:
            for name, backend in backends.items():
                tasks.start_soon(ask, name, backend)

    if asked:
        backends = make_providers(msgspec.structs.replace(settings, providers=asked), environ())
        click.echo(f"Asking {', '.join(asked)} for models ...", err=True)
        anyio.run(ask_all, backends)
        for name in [name for name, listed in found.items() if not listed]:
            click.echo(f"{name} lists none; `ore doctor` says why.", err=True)
    return found
