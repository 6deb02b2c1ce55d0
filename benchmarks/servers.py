"""The processes of benchmarks: a real `ore serve`, those that answer lines, and what all of them use of the machine."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Serving:
    """`with Serving(folder, config) as server`: then `server.port`, and `server.resident_bytes()`.

    `config` is what the settings file says beside the data folder and the log.
    """

    def __init__(self, folder: Path, config: str, *, program: Sequence[str] = ("-m", "ore")) -> None:
        self._program = program
        self._config = folder / "ore.toml"
        self._config.write_text(f'data_dir = "{folder / "data"}"\n[log]\nlevel = "error"\n{config}')

    def __enter__(self) -> "Serving":
        command = [sys.executable, *self._program, "serve", "--port", "0", "--config", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return self
        raise RuntimeError("ore serve did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def resident_bytes(self) -> dict[str, int]:
        """RSS of the front and of the engine, in bytes, as the kernel counts it."""
        return {"front": resident(self.pid), "engine": sum(resident(pid) for pid in children(self.pid))}

    def largest_child(self) -> int:
        """The process with the model."""
        return max(children(self.pid), key=resident)


def one_model(model: Path, *, slots: int = 4, context: int = 1024) -> str:
    """Settings for a single GGUF file, served as `bench`."""
    return f"[llama_cpp]\nslots = {slots}\ncontext = {context}\n[models.bench]\npath = '{model}'\n"


class Answering:
    """A process of one of the modules here, which answers each line with a line, and ends with its stdin."""

    def __init__(self, module: str, *, quiet: bool = False) -> None:
        self._module = module
        self._quiet = quiet

    def __enter__(self) -> "Answering":
        command = [sys.executable, "-m", self._module]
        stderr = subprocess.DEVNULL if self._quiet else None
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, line: bytes) -> bytes:
        """The answer to one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> bytes:
        """A line that it says by itself. Raises `RuntimeError` when it has ended."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._module} has ended")
        return line


@contextmanager
def alone_on(core: int) -> Iterator[None]:
    """Processes that are started in the block run on that core only. Linux."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children so far, as the kernel counts it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """Its child processes."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
