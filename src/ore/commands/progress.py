"""Progress of downloads, on standard error: a bar on a terminal, plain lines elsewhere. Never on standard output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from ore.commands.models import human_size

if TYPE_CHECKING:
    import rich.progress

Progress = Callable[[str, int, int | None], None]
"""Told `(name, done_bytes, total_bytes)` as often as you like; the total is None while it is not known."""

_STEP: Final = 64 * 1024 * 1024
"""Bytes between two plain lines when the total is not known."""


@contextmanager
def download_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """A callback that draws on `stream` (standard error) until the block ends."""
    stream = stream or sys.stderr
    if stream.isatty():
        with closing(_Bars(stream)) as bars:
            yield bars
    else:
        yield _Lines(stream)


class _Bars:
    """Bars that are on the screen only while something is being downloaded: a server logs to the same terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if self._bars is None:
            self._bars = _new_bars(self._stream)
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)
        if self._bars.finished:
            self.close()

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks = {}


def _new_bars(stream: TextIO) -> "rich.progress.Progress":
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(file=stream),
    )


class _Lines:
    """At most one line for 5 percent of a file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        step = done * 20 // total if total else done // _STEP
        if step == self._told.get(name):
            return
        self._told[name] = step
        share = f"{step * 5:>3} %  {human_size(done)} of {human_size(total)}" if total else human_size(done)
        self._stream.write(f"{name}  {share}\n")
        self._stream.flush()
