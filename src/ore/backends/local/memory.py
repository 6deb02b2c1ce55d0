"""How much memory there is for models, and how much a process takes. Linux tells; elsewhere estimates have to do.

Nothing here decides anything.
"""

import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
_SPARE_BYTES: Final = 64 * 2**20
"""What an engine takes beside the weights, at least."""


def resident_bytes(pid: int | None) -> int | None:
    """Bytes of memory that a process takes now; None where that cannot be told, or when it is gone."""
    try:
        pages = 0 if pid is None else int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") or None


def machine_bytes() -> int | None:
    """Bytes of memory that this machine, or this container, has; None where that cannot be told."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(physical, int(_CGROUP.read_text("ascii")))
    except (OSError, ValueError):  # no container, or "max"
        return physical


def expected_bytes(path: Path) -> int:
    """About what a model will take, by the size of its file or folder."""
    return stored_bytes(path) + _SPARE_BYTES


def stored_bytes(path: Path) -> int:
    """Bytes of a model's file, or of all files in its folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)
