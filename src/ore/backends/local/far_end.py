"""How the far end of an engine begins and ends: one JSON line on stdin, lines on stdout until it is ready.

`main` is for the modules that `engine_process` starts with `python -m`. What an engine does in between is its own. It
refuses to outlive its parent: when stdin ends, so does the process.
"""

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from ore.errors import StartupError

ONE_THREAD_BYTES: Final = 32 * 1024 * 1024
"""A smaller file is decoded by one thread, unless a number was asked for: its layers are so short that threads spend
their time waiting for each other, and on a busy machine a token takes 200 ms instead of 0.2 (measured)."""


class Place(Struct, kw_only=True):
    """What every far end is told: where it listens, and the key that its near end will show."""

    socket: str
    api_key: str


def threads_for(path: Path, asked: int) -> int:
    """How many threads compute a model; 0 lets the engine take one for each core."""
    return asked or int(path.is_file() and path.stat().st_size < ONE_THREAD_BYTES)


P = TypeVar("P", bound=Place)


class NearEnd:
    """What a far end says to its near end while it starts."""

    def progress(self, done: int, total: int) -> None:
        """How far loading is, in any unit."""
        _say({"done": done, "total": total})

    def ready(self) -> None:
        """It listens. The last word."""
        _say({"ready": True})


def main(parameters: type[P], serve: Callable[[P, NearEnd], Any]) -> None:
    """Read the parameters and `serve`, which says that it is ready once it listens, and returns at its end only.

    What `serve` raises before is told to the near end: an `OSError` or `StartupError` in a sentence.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_stdout_for_us()
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=parameters)
    threading.Thread(target=_die_with_parent, args=[Path(told.socket).parent], daemon=True).start()
    try:
        serve(told, NearEnd())
    except StartupError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"the file cannot be read ({error.strerror})")
    except Exception as error:
        traceback.print_exc()
        _fail(str(error) or type(error).__name__)


def _keep_stdout_for_us() -> None:
    """What libraries print goes to stderr: the near end reads one line of ours from stdout, and never again."""
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w")


def _die_with_parent(folder: Path) -> None:
    """A parent that was killed leaves the socket's folder behind; one that was not removes it itself."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _fail(reason: str) -> None:
    _say({"error": reason})
    os._exit(1)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()
