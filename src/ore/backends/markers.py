"""Markers in a text that comes in pieces: what is certain before the next piece. It knows no marker by name."""


def certain(text: str, marker: str) -> int:
    """How many characters at the start of `text` cannot belong to a marker that is still being written."""
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:size]):
            return len(text) - size
    return len(text)
