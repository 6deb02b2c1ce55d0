"""Reads the few facts that are needed before a GGUF file is loaded: is it one, and its trained context.

It walks the key-value header only, and refuses to read tensors or the vocabulary into memory.
"""

import struct
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

_STRING, _ARRAY = 8, 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_KEYS = 100_000
_MAX_STRING = 64 * 1024 * 1024


class NotGguf(ValueError):
    """The file is not a readable GGUF; the message says why, without its path."""


class GgufHeader(Struct, frozen=True):
    """`context_length` is in tokens, 0 when the file does not say."""

    architecture: str
    context_length: int


def read_header(path: Path) -> GgufHeader:
    """Read the header up to the context length. Raises `NotGguf` or `OSError`."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NotGguf("it does not begin like a GGUF file")
        version, _tensors, keys = _unpack(file, "<IQQ")
        if not 2 <= version <= 16 or keys > _MAX_KEYS:
            raise NotGguf(f"its GGUF version {version} is not known, or its header is damaged")
        return _scan(file, keys)


def _scan(file: BinaryIO, keys: int) -> GgufHeader:
    architecture = ""
    for _ in range(keys):
        key = _read_string(file)
        (kind,) = _unpack(file, "<I")
        value = _read_value(file, kind)
        if key == "general.architecture":
            architecture = str(value)
        elif architecture and key == f"{architecture}.context_length" and isinstance(value, int):
            return GgufHeader(architecture, value)
    return GgufHeader(architecture, 0)


def _read_value(file: BinaryIO, kind: int) -> object:
    """The value, or None for an array, which is skipped."""
    if kind == _STRING:
        return _read_string(file)
    if kind in _NUMBERS:
        return _unpack(file, "<" + _NUMBERS[kind])[0]
    if kind != _ARRAY:
        raise NotGguf(f"its header holds a value of the unknown type {kind}")
    inner, count = _unpack(file, "<IQ")
    if inner in _NUMBERS:
        file.seek(struct.calcsize(_NUMBERS[inner]) * count, 1)
        return None
    for _ in range(count):
        if inner == _STRING:
            (size,) = _unpack(file, "<Q")
            file.seek(size, 1)
        else:
            _read_value(file, inner)
    return None


def _read_string(file: BinaryIO) -> str:
    (size,) = _unpack(file, "<Q")
    if size > _MAX_STRING:
        raise NotGguf("its header is damaged")
    return file.read(size).decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    raw = file.read(size)
    if len(raw) < size:
        raise NotGguf("it ends in the middle of its header")
    return struct.unpack(layout, raw)
