"""The composition root: builds everything from `Settings`. The only file that knows every room.

`create_app` gives an ASGI application for any server; `ore.serving` has one of its own.
"""

import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import anyio
from msgspec import Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from ore.backends.base import Backend
from ore.core.sealing import KEY_BYTES, Sealer
from ore.engines import Progress, make_backends
from ore.errors import StartupError
from ore.hosts import is_loopback
from ore.ids import new_id
from ore.protocol.wire import WIRES
from ore.routing.cache import ResponseCache
from ore.routing.router import Alias, Router
from ore.routing.rules import Rule
from ore.runs.guard import Guard
from ore.runs.supervisor import BackgroundLimits, Supervisor
from ore.server.conversations import ConversationEndpoints
from ore.server.docs_page import docs_routes
from ore.server.embeddings import EmbeddingEndpoints
from ore.server.endpoints import Endpoints
from ore.server.errors import exception_handlers
from ore.server.idempotency import Idempotency
from ore.server.middleware import middleware_stack
from ore.server.openapi import openapi_routes
from ore.server.websocket import WebSockets, elsewhere
from ore.settings import (
    AliasSettings,
    ProviderSettings,
    Settings,
    load,
    resolve_models,
    resolved_headers,
    resolved_key,
)
from ore.stores.base import Store
from ore.stores.sqlite import SQLiteStore
from ore.telemetry import Metrics
from ore.tools.base import Tool

if TYPE_CHECKING:
    from ore.backends.classical import Labelling, Refusing
    from ore.backends.dialect import Dialect
    from ore.backends.upstream import UpstreamOptions

logger = logging.getLogger("ore")

LONGEST_WAIT = 600.0
"""Seconds beside its run that an answer may take until it is with its client, at most."""


def create_app(settings: Settings | None = None) -> Starlette:
    """An ASGI application that opens its store and engines in its lifespan.

    Without settings it takes what `ore serve` would: the configuration file and the environment.
    """

    @asynccontextmanager
    async def lifespan(outer: Starlette) -> AsyncIterator[None]:
        async with opened(settings or resolve_models(load(environ=os.environ).settings)) as (inner, _):
            outer.router.routes.append(Mount("/", inner))
            yield

    return Starlette(lifespan=lifespan)


class Parts(Struct):
    """What is alive while a server runs."""

    router: Router
    store: Store
    sealer: Sealer
    supervisor: Supervisor
    metrics: Metrics


@asynccontextmanager
async def opened(settings: Settings, progress: Progress | None = None) -> AsyncIterator[tuple[Starlette, Parts]]:
    """Store and engines up, in this order; down again in the other."""
    store = SQLiteStore(store_path(settings))
    await store.start()
    try:
        sealer = Sealer(sealing_key(settings.data_path() / "sealing.key"))
        metrics = Metrics()
        engines = await make_backends(settings, progress)
        classifiers, refusing = make_classifiers(settings, engines), make_refusing(settings, engines)
        router = Router(
            engines,
            make_providers(settings, os.environ),
            make_aliases(settings),
            default_model=settings.default_model or None,
            classifiers=classifiers,
            cache=make_cache(settings),
            metrics=metrics,
        )
        try:
            await router.start()
            for labelling in (*classifiers.values(), *filter(None, [refusing])):
                labelling.check()
            async with Supervisor(
                router,
                store,
                sealer,
                new_id=new_id,
                now=_now,
                run_seconds=settings.server.request_timeout,
                background=background_limits(settings),
                wire=WIRES[settings.server.wire],
                tools=make_tools(settings),
                guard=make_guard(settings, refusing),
            ) as supervisor:
                parts = Parts(router, store, sealer, supervisor, metrics)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_warmed_up, router)
                    yield make_app(settings, parts), parts
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await router.stop()
    finally:
        with anyio.CancelScope(shield=True):
            await store.stop()


async def _warmed_up(router: Router) -> None:
    """Ask providers what they can do, before anybody else does. Nobody needs that yet: a bug there ends nothing."""
    try:
        await router.models()
    except Exception:
        logger.exception("the providers could not be asked for their models")


@asynccontextmanager
async def at_rest(settings: Settings) -> AsyncIterator[Starlette]:
    """The endpoints over a store that no server has: what is stored can be read and deleted, and nothing runs.

    Raises `StoreTaken` when a server has it after all.
    """
    store = SQLiteStore(store_path(settings))
    await store.start()
    try:
        router, sealer = Router({}), Sealer(secrets.token_bytes(KEY_BYTES))
        supervisor = Supervisor(router, store, sealer, new_id=new_id, now=_now, run_seconds=0)  # never entered
        yield make_app(settings, Parts(router, store, sealer, supervisor, Metrics()))
    finally:
        with anyio.CancelScope(shield=True):
            await store.stop()


def store_path(settings: Settings) -> Path:
    return settings.data_path() / "ore.db"


def background_limits(settings: Settings) -> BackgroundLimits:
    """The settings in the supervisor's words."""
    store, background = settings.store, settings.background
    return BackgroundLimits(
        lease=background.lease,
        run=background.timeout,
        attempts=background.attempts,
        keep_events=store.keep_event_hours * 3600 or None,
        keep_responses=store.keep_days * 86400 or None,
    )


def sealing_key(path: Path) -> bytes:
    """The key of what clients carry for us, made at the first start. Raises `StartupError` when it is damaged."""
    try:
        if not path.exists():
            draft = path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                os.fsync(file.fileno())
            draft.rename(path)
        key = path.read_bytes()
    except OSError as error:
        raise StartupError(
            f"The key {path} cannot be read or made: {error.strerror}. Mend that, and start again."
        ) from error
    if len(key) != KEY_BYTES:
        raise StartupError(
            f"The key {path} is damaged. Restore it from a backup; or move it away to get a new one, which cannot open "
            "the compaction items that clients have."
        )
    return key


def make_app(settings: Settings, parts: Parts) -> Starlette:
    """The routes and middleware over parts that are up."""
    server, wire = settings.server, WIRES[settings.server.wire]
    endpoints = Endpoints(
        supervisor=parts.supervisor,
        router=parts.router,
        store=parts.store,
        sealer=parts.sealer,
        metrics=parts.metrics,
        new_id=new_id,
        sse_idle=server.sse_keep_alive,
        sse_done=wire.done_marker if server.sse_done_marker is None else server.sse_done_marker,
        strict_fields=server.strict_fields,
        websocket=server.websocket,
    )
    sockets = WebSockets(
        supervisor=parts.supervisor,
        new_id=new_id,
        strict_fields=server.strict_fields,
        seconds=server.websocket_seconds,
        max_waiting_bytes=server.max_body_bytes,
    )
    conversations = ConversationEndpoints(
        store=parts.store, new_id=new_id, now=_now, strict_fields=server.strict_fields
    )
    embeddings = EmbeddingEndpoints(
        router=parts.router, strict_fields=server.strict_fields, seconds=server.request_timeout
    )
    app = Starlette(
        routes=[
            *endpoints.routes(),
            *embeddings.routes(),
            *conversations.routes(),
            *(sockets.routes() if server.websocket else []),
            *([*docs_routes(), *openapi_routes()] if server.docs else []),
        ],
        middleware=[
            *middleware_stack(
                is_draining=lambda: parts.supervisor.draining,
                max_body_bytes=server.max_body_bytes,
                cors_origins=server.cors_origins,
                guard_origins=is_loopback(server.host) or server.insecure_no_auth,
                wire=wire,
            ),
            Middleware(
                Idempotency,
                store=parts.store,
                keep_seconds=server.idempotency_hours * 3600,
                hold_seconds=max(server.request_timeout, settings.background.timeout) + LONGEST_WAIT,
            ),
        ],
        exception_handlers=exception_handlers(),
    )
    app.state.websockets = sockets
    app.router.default = elsewhere(app.router.default)
    app.router.redirect_slashes = False  # clients that follow a redirect send a POST again as a GET
    return app


def make_classifiers(settings: Settings, engines: Mapping[str, Backend]) -> "dict[str, Labelling]":
    """The classical models that pick targets, with the labels that any alias relies on."""
    wanted: dict[str, list[str]] = {}
    for alias in settings.aliases.values():
        if alias.classifier is not None:
            wanted.setdefault(alias.classifier, []).extend(alias.labels or ())
    if not wanted:
        return {}
    from ore.backends.classical import Classical, Labelling

    return {name: Labelling(cast(Classical, engines[name]), labels) for name, labels in wanted.items()}


def make_refusing(settings: Settings, engines: Mapping[str, Backend]) -> "Refusing | None":
    """What refuses texts for the guard, where there is one."""
    guard = settings.guard
    if not guard.model:
        return None
    from ore.backends.classical import Classical, Refusing

    return Refusing(cast(Classical, engines[guard.model]), guard.refuse_labels, guard.threshold)


def make_guard(settings: Settings, refusing: "Refusing | None") -> Guard | None:
    """The settings in the guard's words."""
    if refusing is None:
        return None
    guard = settings.guard
    inputs, outputs = guard.on in ("input", "both"), guard.on in ("output", "both")
    return Guard(model=guard.model, refuses=refusing.refuses, inputs=inputs, outputs=outputs)


DIALECTS: Final = {
    "openai": ("ore.backends.responses", "Responses"),
    "responses": ("ore.backends.responses", "Responses"),
    "anthropic": ("ore.backends.messages", "Messages"),
    "ollama": ("ore.backends.chat_completions", "ChatCompletions"),
    "chat_completions": ("ore.backends.chat_completions", "ChatCompletions"),
}
"""The way of speaking of each kind of provider, by module and class."""


def make_providers(settings: Settings, environ: Mapping[str, str]) -> dict[str, Backend]:
    """One backend for each configured provider. Asks nobody. Raises `StartupError` for a key that is not there."""
    from ore.backends.provider import Provider, ProviderOptions
    from ore.backends.upstream import Upstream

    backends: dict[str, Backend] = {}
    for name, provider in settings.providers.items():
        dialect = make_dialect(provider.kind)
        options = ProviderOptions(
            kind=provider.kind,
            models=provider.models,
            discover=provider.discover,
            max_concurrent=provider.max_concurrent,
            queue=provider.queue,
        )
        backends[name] = Provider(dialect, Upstream(name, upstream_options(name, provider, dialect, environ)), options)
    return backends


def make_aliases(settings: Settings) -> dict[str, Alias]:
    """The operator's names for several targets, in the router's words."""
    return {
        name: Alias(targets=alias.targets, rule=make_rule(alias), classifier=alias.classifier, picks=alias.labels or {})
        for name, alias in settings.aliases.items()
    }


def make_cache(settings: Settings) -> ResponseCache | None:
    """The response cache, where it is wanted."""
    cache = settings.cache
    return ResponseCache(ttl=cache.ttl, max_bytes=cache.max_mib * 2**20, new_id=new_id) if cache.enabled else None


def make_rule(alias: AliasSettings) -> Rule:
    return Rule(
        order=alias.route,
        weights=alias.weights or (),
        spill_waiting=alias.spill_waiting,
        spill_seconds=alias.spill_seconds,
        spill_tokens=alias.spill_tokens,
        after_output=alias.after_output,
        retries=alias.retries,
    )


def make_dialect(kind: str) -> "Dialect":
    """How providers of a kind are spoken to."""
    module, name = DIALECTS[kind]
    dialect: Dialect = getattr(import_module(module), name)()
    return dialect


def upstream_options(
    name: str, provider: ProviderSettings, dialect: "Dialect", environ: Mapping[str, str]
) -> "UpstreamOptions":
    """Where a provider is and what it is sent each time, its key too. Headers of the settings go over the dialect's."""
    from ore.backends.upstream import UpstreamOptions

    key, own = resolved_key(name, provider, environ), resolved_headers(name, provider, environ)
    said = {header.lower() for header in own}
    dialects = {header: value for header, value in dialect.key_headers(key).items() if header.lower() not in said}
    return UpstreamOptions(
        base_url=provider.base_url,
        headers={**dialects, **own},
        connect_timeout=provider.connect_timeout,
        first_byte_timeout=provider.first_byte_timeout,
        idle_timeout=provider.idle_timeout,
    )


def make_tools(_: Settings) -> dict[str, Tool]:
    """What runs here for models, by type. Nothing can be configured yet."""
    return {}


def _now() -> int:
    return int(time.time())
