"""What an image says of itself in its first bytes: its format, its size, whether it moves. Nothing is decoded.

A file of a few kilobytes may claim to be of gigabytes, so this is looked at before anything else. Pure; it knows PNG,
JPEG, GIF and WebP, and takes nothing else for an image.
"""

import struct
from typing import Final

from msgspec import Struct


class ImageHeader(Struct, frozen=True):
    """`format` is the media type. The size is in pixels."""

    format: str
    width: int
    height: int
    animated: bool = False


def read_header(data: bytes) -> ImageHeader | None:
    """The header of an image; None for anything else, and for one that is broken before its size is told."""
    for magic, read in _READERS:
        if data.startswith(magic):
            try:
                return read(data)
            except (struct.error, IndexError):
                return None
    return None


MOST_SEGMENTS: Final = 4096
MOST_BLOCKS: Final = 400_000
"""Of a JPEG before its size, and of a GIF of 64 MiB: files with more are made to keep a reader busy."""

_PICTURE, _EXTENSION = 0x2C, 0x21


def _png(data: bytes) -> ImageHeader | None:
    """The first chunk tells the size; one of animation comes before the pixels (PNG, third edition, 11.3.6)."""
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        return None
    pixels = data.find(b"IDAT")
    return ImageHeader("image/png", width, height, b"acTL" in data[: pixels if pixels >= 0 else len(data)])


_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame, which tell its size (ITU T.81, table B.1)."""


def _jpeg(data: bytes) -> ImageHeader | None:
    at = 2
    for _ in range(MOST_SEGMENTS):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return ImageHeader("image/jpeg", width, height)
        elif marker in (0xD9, 0xDA):  # its end, or pixels without a frame
            return None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _gif(data: bytes) -> ImageHeader | None:
    """Walks over the blocks until a second picture begins (GIF89a, section 20)."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, pictures, inside = 13 + _palette(flags), 0, False
    for _ in range(MOST_BLOCKS):
        if pictures > 1 or at >= len(data) or (not inside and data[at] not in (_PICTURE, _EXTENSION)):
            return ImageHeader("image/gif", width, height, pictures > 1)
        if inside:
            inside = data[at] > 0
            at += data[at] + 1
        elif data[at] == _PICTURE:
            pictures, inside = pictures + 1, True
            at += 11 + _palette(data[at + 9])
        else:
            inside = True
            at += 2
    return None


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> ImageHeader | None:
    """Three kinds of first chunk (RFC 9649, 2.5 to 2.7)."""
    if data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("image/webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("image/webp", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        flags, width, height = data[20], data[24:27], data[27:30]
        if len(height) < 3:
            return None
        return ImageHeader(
            "image/webp", int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1, bool(flags & 2)
        )
    return None


_READERS: Final = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
)
