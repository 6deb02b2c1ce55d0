"""Reads server-sent events (WHATWG HTML, 9.2) as providers really send them.

Any line ends, any cuts between chunks, a byte-order mark, comments; bounded in memory. Only `data` matters: every
dialect says in it what kind of event it is. What the data means, and whether it is text at all, is for a decoder. A
body that is no stream is read as one event.
"""

from typing import Final

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""A finished response may carry images; more than this is no event."""

_BOM: Final = b"\xef\xbb\xbf"

_BLANKS: Final = (b"\n\n", b"\n\r", b"\r\r")
"""What an empty line, which ends an event, always has in it."""


class EventTooLong(Exception):
    """One event, or a body that stands for one, has more bytes than it may have."""


class EventReader:
    """Chunks in, the `data` of whole events out. Work is linear in the bytes, however they are cut."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._pieces: list[bytes] = []
        self._last = b""
        """The last two bytes of them."""
        self._size = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes. Raises `EventTooLong`."""
        if not self._size and self._begun and _is_one_event(chunk):  # nearly all chunks
            return [chunk[6:-2]]
        seam = self._last + chunk
        self._last = seam[-2:]
        self._pieces.append(chunk)
        self._size += len(chunk)
        if not any(blank in seam for blank in _BLANKS):
            return self._bounded([])
        text = b"".join(self._pieces) if len(self._pieces) > 1 else chunk
        if not self._begun:
            text, self._begun = text.removeprefix(_BOM), True
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # perhaps half of a CRLF
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *frames, rest = text.split(b"\n\n")
        left = rest + held
        self._pieces, self._size, self._last = [left], len(left), left[-2:]
        return self._bounded([data for frame in frames if (data := _data(frame)) is not None])

    def end(self) -> list[bytes]:
        """What was cut off before its empty line; some servers leave that out at the end."""
        left = self.feed(b"\n\n") if self._size else []
        self._pieces, self._size, self._last = [], 0, b""
        return left

    def _bounded(self, events: list[bytes]) -> list[bytes]:
        if self._size > self._max:
            raise EventTooLong
        return events


class BodyReader:
    """Chunks in, the whole body out, as the `data` of one event."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max = max_body_bytes
        self._body = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Nothing yet. Raises `EventTooLong`."""
        self._body += chunk
        if len(self._body) > self._max:
            raise EventTooLong
        return []

    def end(self) -> list[bytes]:
        """The body; nothing when it has been given."""
        body, self._body = bytes(self._body), bytearray()
        return [body] if body else []


def _is_one_event(chunk: bytes) -> bool:
    """Whether it is one event of one line of data, and nothing else."""
    is_whole = chunk.startswith(b"data: ") and chunk.endswith(b"\n\n")
    return is_whole and chunk.count(b"\n") == 2 and b"\r" not in chunk


def _data(frame: bytes) -> bytes | None:
    """The data of one event; None for comments and for events without any."""
    if frame.startswith(b"data: ") and b"\n" not in frame:
        return frame[6:]
    lines = [line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
