"""Reads what is needed before a GGUF file is loaded: is it one, its trained context, and values that are asked for.

It walks the key-value header only, and refuses to read tensors, or to keep what nobody asked for.
"""

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct

_STRING, _ARRAY = 8, 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_KEYS = 100_000
_MAX_STRING = 64 * 1024 * 1024
_MAX_ARRAY = 16 * 1024 * 1024


class NotGguf(ValueError):
    """The file is not a readable GGUF; the message says why, without its path."""


class GgufHeader(Struct, frozen=True):
    """`context_length` is in tokens, 0 when the file does not say."""

    architecture: str
    context_length: int


def read_header(path: Path) -> GgufHeader:
    """Read the header up to the context length. Raises `NotGguf` or `OSError`."""
    with path.open("rb") as file:
        return _scan(file, _count_keys(file))


def read_values(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """The values of these keys, as far as the file has them; arrays are lists. Raises `NotGguf` or `OSError`."""
    found: dict[str, Any] = {}
    with path.open("rb") as file:
        for _ in range(_count_keys(file)):
            key = _read_string(file)
            (kind,) = _unpack(file, "<I")
            if key in keys:
                found[key] = _read_array(file) if kind == _ARRAY else _read_value(file, kind)
            else:
                _read_value(file, kind)
    return found


def _count_keys(file: BinaryIO) -> int:
    """How many keys follow. The file stands at the first one then."""
    if file.read(4) != b"GGUF":
        raise NotGguf("it does not begin like a GGUF file")
    version, _tensors, keys = _unpack(file, "<IQQ")
    if not 2 <= version <= 16 or keys > _MAX_KEYS:
        raise NotGguf(f"its GGUF version {version} is not known, or its header is damaged")
    return keys


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


def _read_array(file: BinaryIO) -> list[Any]:
    inner, count = _unpack(file, "<IQ")
    if count > _MAX_ARRAY:
        raise NotGguf("its header is damaged")
    if inner in _NUMBERS:
        return list(_unpack(file, f"<{count}{_NUMBERS[inner]}"))
    return [_read_value(file, inner) for _ in range(count)]


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
