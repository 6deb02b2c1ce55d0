"""A real `ore serve` for benchmarks, and the memory of its processes."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class Serving:
    """`with Serving(model, folder, slots=8) as server`: then `server.port`, and `server.resident_bytes()`."""

    def __init__(
        self, model: Path, folder: Path, *, slots: int = 4, context: int = 1024, program: Sequence[str] = ("-m", "ore")
    ) -> None:
        self._program = program
        self._config = folder / "ore.toml"
        self._config.write_text(
            f'data_dir = "{folder / "data"}"\n[llama_cpp]\nslots = {slots}\ncontext = {context}\n'
            f"[log]\nlevel = 'error'\n[models.bench]\npath = '{model}'\n"
        )

    def __enter__(self) -> "Serving":
        command = [sys.executable, *self._program, "serve", "--port", "0", "--config", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
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
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return {"front": _resident(self._process.pid), "engine": sum(_resident(int(pid)) for pid in children)}


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
