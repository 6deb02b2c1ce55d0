"""Servers for tests: one in this process over scripted models, and real `ore serve` processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import anyio
import uvicorn

from ore.app import Parts, make_app
from ore.backends.base import Backend
from ore.backends.scripted import Script, ScriptedBackend
from ore.core.sealing import KEY_BYTES, Sealer
from ore.ids import new_id
from ore.protocol.wire import WIRES
from ore.routing.router import Alias, Router
from ore.runs.supervisor import Supervisor
from ore.serving import bind, uvicorn_config
from ore.settings import Settings
from ore.stores.sqlite import SQLiteStore
from ore.telemetry import Metrics
from ore.whereabouts import announced

NOW = 1_795_000_000


class ScriptedServer:
    """`with ScriptedServer(folder) as server: server.scripts["m"] = [...]`, then talk to `server.url`.

    `providers` and `aliases` stand beside the scripted models.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        providers: Mapping[str, Backend] | None = None,
        aliases: Mapping[str, Alias] | None = None,
    ) -> None:
        self.scripts: dict[str, Script] = {}
        self.backend = ScriptedBackend(self.scripts)
        self._providers = providers
        self._aliases = aliases
        self.settings = settings or Settings()
        self._folder = folder
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted server")

    def __enter__(self) -> "ScriptedServer":
        self._socket = bind("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread.start()
        assert self._started.wait(20), "the scripted server did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def _run(self) -> None:
        anyio.run(self._serve)

    async def _serve(self) -> None:
        store = SQLiteStore(self._folder / "ore.db")
        await store.start()
        metrics = Metrics()
        router = Router({"scripted": self.backend}, self._providers, self._aliases, metrics=metrics)
        await router.start()
        sealer = Sealer(bytes(range(KEY_BYTES)))
        wire = WIRES[self.settings.server.wire]
        async with Supervisor(
            router, store, sealer, new_id=new_id, now=lambda: NOW, run_seconds=20, wire=wire
        ) as supervisor:
            self.parts = Parts(router, store, sealer, supervisor, metrics)
            self._server = _Quiet(uvicorn_config(make_app(self.settings, self.parts), self.settings), self._started)
            with announced(self._folder, self.url):
                await self._server.serve(sockets=[self._socket])
        await router.stop()
        await store.stop()


class _Quiet(uvicorn.Server):
    """Runs in a thread: no signal handlers, and says when it listens."""

    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self._started_event = started

    def capture_signals(self):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started_event.set()


class OreProcess:
    """A real `ore serve` on a free port. `url` is known once it is ready; `kill` is SIGKILL, `stop` SIGTERM."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.arguments = arguments
        self._environ = {**os.environ, "ORE_CONFIG": "", **(environ or {})}

    def __enter__(self) -> "OreProcess":
        command = [sys.executable, "-m", "ore", "serve", "--port", "0", "--data-dir", str(self.folder), *self.arguments]
        self.log = (self.folder / "stderr.log").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=self._environ, text=True)
        self.url = self._read_url()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
        return status

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def _read_url(self) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        raise AssertionError(f"ore serve did not start:\n{''.join(seen)}{(self.folder / 'stderr.log').read_text()}")
