"""Reads a whole GGUF file: every fact of its header, and its tensors as they lie on the disk.

The tensors are mapped into memory, not read. It refuses to interpret either: `gguf_weights` unpacks the tensors, and
`gguf_vocabulary` the tokens.
"""

import mmap
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import Struct

from ore.backends.local.gguf_header import NotGguf

Array = Any
"""An array of numpy. (Where numpy is not installed, a type checker does not know it.)"""

_STRING, _ARRAY = 8, 9
_NUMBERS: Final = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_ALIGNMENT: Final = 32
"""Bytes, unless the file says otherwise."""


class Stored(NamedTuple):
    """A tensor of the file: its shape with the columns last, GGUF's number of its type, its bytes from the first on."""

    shape: tuple[int, ...]
    kind: int
    data: Array


class GgufFile(Struct, frozen=True):
    """The facts of the header by key, and the tensors by name."""

    facts: dict[str, Any]
    tensors: dict[str, Stored]

    @property
    def architecture(self) -> str:
        return str(self.facts.get("general.architecture", ""))

    def of_architecture(self, key: str, default: Any = None) -> Any:
        """A fact whose key begins with the architecture's name."""
        return self.facts.get(f"{self.architecture}.{key}", default)


def read_gguf(path: Path) -> GgufFile:
    """The facts and tensors of a file. Raises `NotGguf` or `OSError`."""
    with path.open("rb") as file:
        reader = _Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _read(reader)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise error if isinstance(error, NotGguf) else NotGguf("its header is damaged") from error


def _read(reader: "_Reader") -> GgufFile:
    if reader.raw[:4] != b"GGUF":
        raise NotGguf("it does not begin like a GGUF file")
    reader.at = 4
    version, tensors, keys = reader.unpack("<IQQ")
    if not 2 <= version <= 3:
        raise NotGguf(f"its GGUF version {version} is not known")
    facts = {reader.string(): reader.value() for _ in range(keys)}
    infos = [reader.tensor_info() for _ in range(tensors)]
    alignment = int(facts.get("general.alignment", _ALIGNMENT))
    start = -(-reader.at // alignment) * alignment
    data = np.frombuffer(reader.raw, np.uint8)
    return GgufFile(facts, {name: Stored(shape, kind, data[start + offset :]) for name, shape, kind, offset in infos})


class _Reader:
    """A place in the header, which moves on with whatever is read."""

    def __init__(self, raw: mmap.mmap) -> None:
        self.raw = raw
        self.at = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self.raw, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (size,) = self.unpack("<Q")
        self.at += size
        return self.raw[self.at - size : self.at].decode("utf-8", "replace")

    def value(self) -> Any:
        (kind,) = self.unpack("<I")
        return self._array() if kind == _ARRAY else self._single(kind)

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Its name, shape, type and offset. The file has the columns first."""
        name = self.string()
        (dimensions,) = self.unpack("<I")
        shape = self.unpack(f"<{dimensions}Q")
        kind, offset = self.unpack("<IQ")
        return name, shape[::-1], kind, offset

    def _single(self, kind: int) -> Any:
        return self.string() if kind == _STRING else self._numbers(_NUMBERS[kind], 1)[0]

    def _array(self) -> list[Any]:
        inner, count = self.unpack("<IQ")
        if inner in _NUMBERS:
            return self._numbers(_NUMBERS[inner], count)
        return [self._array() if inner == _ARRAY else self.string() for _ in range(count)]

    def _numbers(self, dtype: str, count: int) -> list[Any]:
        found = np.frombuffer(self.raw, dtype, count, self.at)
        self.at += found.nbytes
        numbers: list[Any] = found.tolist()
        return numbers
