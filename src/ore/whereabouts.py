"""Which server has a data folder, and where it listens: a small file that the server keeps there while it is up.

The lock on the store decides whether there is a server; the file only says where. What a killed server left behind is
not believed, because the process that it names no longer has the lock.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FILE: Final = "server.url"
"""In the data folder: a URL, and the number of the process that listens there."""

LOCK: Final = "ore.db.lock"
"""In the data folder: held by the process that has the store, whose number it contains."""


@contextmanager
def announced(folder: Path, url: str) -> Iterator[None]:
    """Say in `folder` that this process listens at `url`. A disk that refuses that hinders nobody."""
    file, draft = folder / FILE, folder / f"{FILE}.new"
    try:
        with suppress(OSError):
            draft.write_text(f"{url} {os.getpid()}\n", "utf-8")
            draft.replace(file)
        yield
    finally:
        with suppress(OSError):
            file.unlink()


def is_held(folder: Path) -> bool:
    """Whether a process has the store in `folder`. Makes no file."""
    import fcntl

    try:
        lock = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def announced_url(folder: Path) -> str | None:
    """Where the process that has the store listens; None when it does not say."""
    try:
        url, process = (folder / FILE).read_text("utf-8").split()
        holder = (folder / LOCK).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return url if process == holder else None
