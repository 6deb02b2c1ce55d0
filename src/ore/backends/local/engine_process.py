"""The near end of an engine process: spawns it, watches it, brings it back when it dies, ends it.

It knows how to start a far end (`python -m MODULE`, see `far_end`) and nothing about requests. It never forks (a fork
after an engine's threads exist is unsafe) and refuses to start a second process while one is alive.
"""

import asyncio
import contextlib
import logging
import secrets
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import msgspec

from ore.backends.base import JsonObject
from ore.errors import StartupError
from ore.timed_process import send_signal

log = logging.getLogger(__name__)

STOP_GRACE: Final = 3.0
"""Seconds between SIGTERM and SIGKILL."""
BACKOFF: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the first, second, ... restart; the last one repeats."""
NOTICE: Final = 1.0
"""Seconds within which the end of a process is known after its socket was closed."""
STEADY_AFTER: Final = 60.0
"""Seconds after which a process counts as healthy and the backoff begins anew."""
LONGEST_FOLDER: Final = 70


Progress = Callable[[int, int], None]
"""Called with how much of a model is loaded, and how much there is, in any unit."""


class Said(msgspec.Struct):
    """A line of the far end: the last one is `ready` or has an `error`; those before tell how far loading is."""

    ready: bool = False
    error: str = ""
    done: int = 0
    total: int = 0


class EngineProcess:
    """One child process, kept alive between `start` and `stop`. `parameters` are what its `far_end` takes."""

    def __init__(
        self,
        name: str,
        far_end: str,
        parameters: JsonObject,
        *,
        backoff: tuple[float, ...] = BACKOFF,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._progress = progress
        self._far_end = far_end
        self._parameters = parameters
        self.api_key = secrets.token_urlsafe(32)
        self.restarts = 0
        self._backoff = backoff
        self._folder: Path | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=40)
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._up = False
        self._came_up, self._went_down = asyncio.Event(), asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether a process is ready to answer."""
        return self._up

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def socket(self) -> str:
        """Path of the Unix socket, the same for every launch. Valid after `start`."""
        return str((self._folder or Path()) / "engine.sock")

    async def start(self) -> None:
        """Launch the process and wait until the model is loaded. Raises `StartupError`."""
        if self._keeper is not None:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="ore-", dir=_short_folder()))
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the process, whoever is cancelled: SIGTERM, then SIGKILL after `STOP_GRACE` seconds. Idempotent."""
        with anyio.CancelScope(shield=True):
            await self._stop()

    async def _stop(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        await self._end_child()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def back(self, seconds: float) -> bool:
        """Wait until a process that died was replaced; False when that takes longer, or when it did not die."""
        with anyio.move_on_after(NOTICE):
            await self._went_down.wait()
        if self._up or self._keeper is None:
            return False
        with anyio.move_on_after(seconds):
            await self._came_up.wait()
        return self._up

    async def _launch(self) -> None:
        await anyio.Path(self.socket).unlink(missing_ok=True)
        self._last_words.clear()
        child = self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._far_end,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None  # noqa: S101
        listener = asyncio.create_task(self._listen(child.stderr))
        self._tasks.add(listener)
        listener.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError):
            child.stdin.write(self._told() + b"\n")
            await child.stdin.drain()
        said = await self._loaded(child.stdout)
        if not said.ready:
            await self._end_child()
            await asyncio.wait([listener])
            raise StartupError(self._reason(said.error))
        self._note(up=True)
        log.info("model %s is loaded", self.name)

    async def _loaded(self, stdout: asyncio.StreamReader) -> Said:
        """The far end's last line; those before it are progress."""
        while (said := _said(await stdout.readline())).total:
            if self._progress is not None:
                self._progress(said.done, said.total)
        return said

    def _told(self) -> bytes:
        return msgspec.json.encode({**self._parameters, "socket": self.socket, "api_key": self.api_key})

    def _reason(self, error: str) -> str:
        said = [line.split(" E ", 1)[1] for line in self._last_words if " E " in line][-2:]
        words = said or ([error] if error else list(self._last_words)[-3:]) or ["the engine ended without a word"]
        reason = "; ".join(" ".join(word.split()) for word in words)
        return f"The model {self.name!r} could not be loaded: {reason}. Check its file, and whether it fits in memory."

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while line := await _next_line(stderr):
            text = line.decode("utf-8", "replace").rstrip()
            self._last_words.append(text[:400])
            log.debug("%s: %s", self.name, text)

    async def _keep(self) -> None:
        """Wait for the process to die; bring it back; until cancelled."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            assert self._child is not None  # noqa: S101
            since = loop.time()
            code = await self._child.wait()
            self._note(up=False)
            failures = 0 if loop.time() - since > STEADY_AFTER else failures
            log.error("the engine of model %s died (%s); last words: %s", self.name, code, list(self._last_words)[-12:])
            while not self._up:
                await asyncio.sleep(self._backoff[min(failures, len(self._backoff) - 1)])
                failures += 1
                self.restarts += 1
                try:
                    await self._launch()
                except (StartupError, OSError) as error:
                    log.error("%s", error)  # noqa: TRY400 - expected, and its traceback says nothing more
                except Exception:
                    log.exception("the engine of model %s could not be restarted", self.name)

    def _note(self, *, up: bool) -> None:
        self._up = up
        here, gone = (self._came_up, self._went_down) if up else (self._went_down, self._came_up)
        here.set()
        gone.clear()

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        self._note(up=False)
        if child is None:
            return
        send_signal(child, signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), STOP_GRACE)
        except TimeoutError:
            send_signal(child, signal.SIGKILL)
            await child.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)


class HasProcess:
    """What an engine says of its process."""

    process: EngineProcess

    @property
    def up(self) -> bool:
        return self.process.up

    @property
    def restarts(self) -> int:
        return self.process.restarts

    @property
    def pid(self) -> int | None:
        return self.process.pid

    async def back(self, seconds: float) -> bool:
        return await self.process.back(seconds)


def _said(line: bytes) -> Said:
    """A line of the far end; anything else is not from us."""
    try:
        return msgspec.json.decode(line, type=Said) if line else Said()
    except msgspec.DecodeError:
        return Said(error=f"the engine said {line[:200]!r}")


def _short_folder() -> str | None:
    """Where sockets go: the path of one has 104 to 108 bytes at most, and TMPDIR may be longer than that."""
    return None if len(tempfile.gettempdir()) < LONGEST_FOLDER else "/tmp"  # noqa: S108 - mkdtemp makes it private


async def _next_line(reader: asyncio.StreamReader) -> bytes:
    """Like `readline`, but a line too long for the buffer comes in pieces instead of raising."""
    try:
        return await reader.readline()
    except ValueError:
        return await reader.read(4096) or b""
