"""Markers in a text that comes in pieces: what is certain before the next piece. It knows no marker by name."""

from collections.abc import Collection


def certain(text: str, marker: str) -> int:
    """How many characters at the start of `text` cannot belong to a marker that is still being written."""
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:size]):
            return len(text) - size
    return len(text)


def certain_of(text: str, markers: Collection[str]) -> int:
    """The same for several markers."""
    return min((certain(text, marker) for marker in markers), default=len(text))


def first_of(text: str, markers: Collection[str]) -> tuple[int, str]:
    """Where the first of the markers stands, and which it is; -1 and nothing where there is none."""
    found = [(at, marker) for marker in markers if (at := text.find(marker)) >= 0]
    return min(found, default=(-1, ""))
