"""Runs the process of a server: binds, serves what `ore.app` builds with uvicorn, hardened, and stops it in order.

At a signal: readiness false, running responses finish or get their terminal event, then the process ends. It builds
nothing of its own.
"""

import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import anyio
import uvicorn
from anyio.abc import TaskGroup
from msgspec import Struct
from starlette.applications import Starlette

from ore.app import opened
from ore.engines import Progress
from ore.errors import StartupError
from ore.protocol.wire import WIRES
from ore.runs.supervisor import Supervisor
from ore.server.protocol import hardened_protocol
from ore.server.websocket import WebSockets
from ore.server.websocket_protocol import websocket_protocol
from ore.settings import Settings
from ore.telemetry import configure_logging
from ore.whereabouts import announced

logger = logging.getLogger("ore")

LAST_WORDS = 2.0
"""Seconds that WebSockets have at shutdown, when all runs have ended, to take what was said to them."""


class BoundAddress(Struct, frozen=True):
    """Where a server listens, and what it serves."""

    host: str
    port: int
    url: str
    models: list[str]


def run(
    settings: Settings, *, ready: Callable[[BoundAddress], None] | None = None, progress: Progress | None = None
) -> None:
    """Serve until SIGTERM or SIGINT. Raises `StartupError` when there is nothing to serve with."""
    configure_logging(settings.log.level, settings.log.format)
    with bind(settings.server.host, settings.server.port) as sock:
        try:
            anyio.run(_serve, settings, sock, ready, progress, backend="asyncio", backend_options=_event_loop())
        except* StartupError as group:
            raise group.exceptions[0] from None


async def _serve(
    settings: Settings, sock: socket.socket, ready: Callable[[BoundAddress], None] | None, progress: Progress | None
) -> None:
    async with anyio.create_task_group() as tasks:
        stopping = _Stopping(settings.server.shutdown_grace, tasks)
        tasks.start_soon(stopping.on_signals)
        async with opened(settings, progress) as (app, parts):
            address = _address(sock, await parts.router.served())
            with ExitStack() as listening:

                def on_started() -> None:
                    listening.enter_context(announced(settings.data_path(), address.url))
                    if ready:
                        ready(address)

                server = _Server(uvicorn_config(app, settings), on_started)
                stopping.server, stopping.supervisor, stopping.sockets = server, parts.supervisor, app.state.websockets
                await server.serve(sockets=[sock])
        tasks.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: draining comes before its shutdown, not after."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what is here now stays: a full collection need not look at it, in the middle of a stream
        self._on_started()


class _Stopping:
    """The first signal drains, a second one does not wait; before the server is up, one is enough."""

    def __init__(self, grace: float, tasks: TaskGroup) -> None:
        self._grace = grace
        self._tasks = tasks
        self.server: _Server | None = None
        self.supervisor: Supervisor | None = None
        self.sockets: WebSockets | None = None

    async def on_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if self.server is None or self.supervisor is None or self.sockets is None:
                    self._tasks.cancel_scope.cancel()
                elif not self.supervisor.draining:
                    self._tasks.start_soon(self._drain, self.server, self.supervisor, self.sockets)
                else:
                    await self.supervisor.drain(0)
                    self.server.should_exit = self.server.force_exit = True

    async def _drain(self, server: _Server, supervisor: Supervisor, sockets: WebSockets) -> None:
        logger.info("stopping: %d running responses have %g s to finish", supervisor.active, self._grace)
        sockets.drain()
        await supervisor.drain(self._grace)
        with anyio.move_on_after(LAST_WORDS):
            await sockets.closed()
        server.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not yet listening, so that nobody connects while models load. Raises `StartupError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only over what says that it is TCP: else a kept connection waits 40 ms for each answer
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} on {host} is in use. Stop the other program, or take a free port with --port 0."
            raise StartupError(message) from None
        raise StartupError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose --host and --port."
        ) from None
    return sock


def _address(sock: socket.socket, models: list[str]) -> BoundAddress:
    host, port = sock.getsockname()[:2]
    named = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    url = f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"
    return BoundAddress(host=host, port=port, url=url, models=models)


def uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    server, wire = settings.server, WIRES[settings.server.wire]
    return uvicorn.Config(
        app,
        http=hardened_protocol(
            max_header_bytes=server.max_header_bytes,
            header_timeout=server.header_timeout,
            body_timeout=server.body_timeout,
            write_timeout=server.write_timeout,
            wire=wire,
        ),
        ws=websocket_protocol(write_timeout=server.write_timeout, wire=wire) if server.websocket else "none",
        ws_max_size=server.max_body_bytes,
        ws_ping_interval=server.websocket_ping,
        ws_ping_timeout=server.write_timeout,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("server", "ore")],
        timeout_keep_alive=round(server.keep_alive),
        timeout_graceful_shutdown=5,
    )


def _event_loop() -> dict[str, object]:
    return {"use_uvloop": sys.platform != "win32" and sys.implementation.name == "cpython"}
