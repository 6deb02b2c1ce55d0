"""Matrices as the graph takes them: plain, or as whole numbers in groups with a scale each.

`unpacked` knows GGUF's types. Those of eight and four bits that OpenVINO computes with stay as they are; the other
quantised ones, which it does not know, become groups of eight bits: what they lose by that is far below what they lost
when they were made. It refuses types of less than four bits, by name.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from ore.backends.local.openvino.gguf_file import Array, Stored
from ore.errors import StartupError

GROUP: Final = 32
"""Neighbours in a row that share a scale, in every type that is made here."""


class Grouped(NamedTuple):
    """`values` of `bits` bits with a sign, `[rows, groups, group]`, and their `scales`, `[rows, groups, 1]`."""

    values: Array
    scales: Array
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        rows, groups, size = self.values.shape
        return rows, groups * size

    def rows(self, order: Array) -> "Grouped":
        return Grouped(self.values[order], self.scales[order], self.bits)


Matrix: TypeAlias = Array | Grouped


def in_order(matrix: Matrix, order: Array) -> Matrix:
    """The rows of a matrix, or of a vector, in another order."""
    return matrix.rows(order) if isinstance(matrix, Grouped) else matrix[order]


def quantised(values: Array) -> Grouped:
    """Floats as groups of eight bits."""
    groups = values.astype(np.float32).reshape(values.shape[0], -1, GROUP)
    scales = (np.abs(groups).max(axis=2, keepdims=True) / 127).astype(np.float16)
    safe = np.where(scales == 0, np.float16(1), scales).astype(np.float32)
    return Grouped(np.clip(np.rint(groups / safe), -127, 127).astype(np.int8), scales, 8)


def unpacked(name: str, stored: Stored) -> Matrix:
    """A tensor of a GGUF file. Raises `StartupError` for a type that is not known here."""
    if stored.kind not in _KINDS:
        kind = _UNKNOWN.get(stored.kind, f"number {stored.kind}")
        raise StartupError(
            f"the tensor {name} has the type {kind}, which OpenVINO is not given: use another quantisation "
            '(Q8_0, Q4_0, Q4_K_M, Q5_K_M, Q6_K or F16), or engine = "llama_cpp"'
        )
    _, size, unpack = _KINDS[stored.kind]
    return unpack(stored.data[: stored_bytes(stored)].reshape(-1, size), stored.shape)


def stored_bytes(stored: Stored) -> int:
    """What a tensor takes in its file; 0 for a type that is not known."""
    per_block, size, _ = _KINDS.get(stored.kind, (1, 0, None))
    return int(np.prod(stored.shape)) // per_block * size


Unpack = Callable[[Array, tuple[int, ...]], Matrix]


def _numbers(dtype: str) -> Unpack:
    def unpack(blocks: Array, shape: tuple[int, ...]) -> Matrix:
        return np.ascontiguousarray(blocks).view(dtype).reshape(shape)

    return unpack


def _bfloat16(blocks: Array, shape: tuple[int, ...]) -> Matrix:
    """The upper halves of 32-bit floats."""
    halves = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
    return (halves << 16).view(np.float32).reshape(shape)


def _q8_0(blocks: Array, shape: tuple[int, ...]) -> Matrix:
    values = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).reshape(shape[0], -1, GROUP)
    return Grouped(values, _halves(blocks, 0).reshape(shape[0], -1, 1), 8)


def _q4_0(blocks: Array, shape: tuple[int, ...]) -> Matrix:
    values = (_nibbles(blocks[:, 2:]).astype(np.int8) - 8).reshape(shape[0], -1, GROUP)
    return Grouped(values, _halves(blocks, 0).reshape(shape[0], -1, 1), 4)


def _requantised(to_floats: Callable[[Array], Array]) -> Unpack:
    def unpack(blocks: Array, shape: tuple[int, ...]) -> Matrix:
        return quantised(to_floats(blocks).reshape(shape))

    return unpack


def _q4_1(blocks: Array) -> Array:
    return _single(blocks, 0) * _nibbles(blocks[:, 4:]) + _single(blocks, 2)


def _q5_0(blocks: Array) -> Array:
    return _single(blocks, 0) * (_nibbles(blocks[:, 6:]) + 16.0 * _bits(blocks[:, 2:6]) - 16.0)


def _q5_1(blocks: Array) -> Array:
    return _single(blocks, 0) * (_nibbles(blocks[:, 8:]) + 16.0 * _bits(blocks[:, 4:8])) + _single(blocks, 2)


def _q4_k(blocks: Array) -> Array:
    scales, least = _k_scales(blocks)
    return scales * _k_nibbles(blocks[:, 16:]) - least


def _q5_k(blocks: Array) -> Array:
    scales, least = _k_scales(blocks)
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    return scales * (_k_nibbles(blocks[:, 48:]) + 16.0 * fifth) - least


def _q6_k(blocks: Array) -> Array:
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    values = (low | (high << 4)).reshape(-1, 16, 16).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return _single(blocks, 208)[:, :, None] * scales[:, :, None] * values


def _halves(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")


def _single(blocks: Array, at: int) -> Array:
    return _halves(blocks, at).astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """The lower halves of the bytes, then the upper ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _bits(packed: Array) -> Array:
    return np.unpackbits(packed, axis=1, bitorder="little")


def _k_nibbles(packed: Array) -> Array:
    """Eight groups of 32: the lower halves of 32 bytes, then the upper ones, four times."""
    quarters = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([quarters & 15, quarters >> 4], axis=2).reshape(-1, 8, 32)


def _k_scales(blocks: Array) -> tuple[Array, Array]:
    """Scale and offset of each of the eight groups; both have six bits, in twelve bytes."""
    first, second, third = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    least = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return (_single(blocks, 0) * scales)[:, :, None], (_single(blocks, 2) * least)[:, :, None]


_KINDS: Final[dict[int, tuple[int, int, Unpack]]] = {
    0: (1, 4, _numbers("<f4")),
    1: (1, 2, _numbers("<f2")),
    2: (32, 18, _q4_0),
    3: (32, 20, _requantised(_q4_1)),
    6: (32, 22, _requantised(_q5_0)),
    7: (32, 24, _requantised(_q5_1)),
    8: (32, 34, _q8_0),
    12: (256, 144, _requantised(_q4_k)),
    13: (256, 176, _requantised(_q5_k)),
    14: (256, 210, _requantised(_q6_k)),
    30: (1, 2, _bfloat16),
}
"""By GGUF's number of the type: values of a block, its bytes, and what unpacks blocks."""

_UNKNOWN: Final = {10: "Q2_K", 11: "Q3_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL"}
