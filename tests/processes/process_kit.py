"""Real server processes, and what tests ask of them. Not a test by itself."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw

from clients.wire import LONG, get, wait_until

SCRIPTED = Path(__file__).with_name("scripted_serve.py")


class Server:
    """A server process over `folder` that is killed at the end of a `with` block, if it still lives.

    `engine` decides between `ore serve` of the bundled model and `scripted_serve.py`. `url` is there once it is ready.
    """

    def __init__(self, folder: Path, *arguments: str, engine: bool = False, **settings: object) -> None:
        self.folder = folder
        anything = folder / "scripted.gguf"
        for file in (anything, folder / "ore.toml"):  # the second one keeps the user's own settings out
            file.touch()
        program = ["-m", "ore", "serve"] if engine else [str(SCRIPTED), "serve", str(anything)]
        names = {f"ORE_{name.upper()}": str(value) for name, value in settings.items()}
        self._log = (folder / "log").open("ab")
        self._mark = self._log.tell()
        self.process = subprocess.Popen(
            [sys.executable, *program, "--port", "0", "--data-dir", str(folder / "data"), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "ORE_CONFIG": "", "TMPDIR": str(folder), **names},
            cwd=folder,
        )

    def wait_until_ready(self) -> Self:
        """Until it says where it listens. Fails when it ends instead."""
        assert self.process.stdout is not None
        said = b""
        while not (found := re.search(rb"http://127\.0\.0\.1:\d+", said)):
            line = self.process.stdout.readline()
            assert line, f"the server did not start:\n{said.decode()}{self.log}"
            said += line
        self.url = found[0].decode()
        return self

    @property
    def log(self) -> str:
        """What this process wrote to stderr."""
        return (self.folder / "log").read_bytes()[self._mark :].decode()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = LONG) -> int:
        """The exit status."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and the end."""
        self.send(signal.SIGKILL)
        self.wait()

    def engine_pid(self) -> int | None:
        """The process that has the model; None while there is none, or one that has not even begun to be it."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"llama_cpp_server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        return None

    def readiness(self) -> dict[str, Any]:
        return dict(get(self.url, "/readyz?verbose").json())

    def wait_until_idle(self) -> None:
        """Until no run is there, and no model works."""
        wait_until(lambda: self.readiness()["active_runs"] == 0 and not any(map(_busy, self._backends())))

    def wait_until_busy(self, runs: int = 1) -> None:
        """Until so many runs are there."""
        wait_until(lambda: self.readiness()["active_runs"] == runs)

    def stored(self) -> list[tuple[str, str]]:
        """Id and status of all that is in the database, oldest first."""
        db = apsw.Connection(str(self.folder / "data" / "ore.db"), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            return [(str(i), str(status)) for i, status in db.execute("SELECT id, status FROM responses ORDER BY seq")]
        finally:
            db.close()

    def _backends(self) -> list[dict[str, int]]:
        return list(self.readiness()["backends"].values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        if error is None:
            assert "Traceback" not in self.log, self.log


@contextmanager
def serving(folder: Path, *arguments: str, engine: bool = False, **settings: object) -> Iterator[Server]:
    """A server that is ready."""
    with Server(folder, *arguments, engine=engine, **settings) as server:
        yield server.wait_until_ready()


def _busy(detail: dict[str, int]) -> bool:
    return any(detail.get(name) for name in ("active", "running", "waiting"))
