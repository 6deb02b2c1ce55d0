"""Builds OpenVINO's graph of a decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3) out of its matrices.

The graph keeps keys and values in variables, as models in OpenVINO's own format do, so that `paged` makes the same of
both. It refuses to know where matrices come from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from msgspec import Struct
from openvino import Type
from openvino import opset15 as ops
from openvino.op import util

from ore.backends.local.openvino.weights import Grouped, Matrix

Node = Any
"""A node of the graph, or one of its outputs: OpenVINO's Python types are not told apart here."""


class Shape(Struct, frozen=True, kw_only=True):
    """The sizes of a model and its constants."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    norm_epsilon: float
    rope_base: float
    rope_divisor: float = 1.0
    """What positions are divided by (linear scaling)."""
    context: int


class Missing(LookupError):
    """A matrix that every such model has is not there; the message is its name."""


Weight = Callable[[str], Matrix | None]
"""A matrix or vector by its name (`layers.0.attention.q.weight`); None where the model has none."""


def build(shape: Shape, weight: Weight) -> openvino.Model:
    """The stateful graph: from `input_ids` and `position_ids` to `logits`."""
    ids = _input("input_ids", Type.i64, [-1, -1])
    positions = _input("position_ids", Type.i64, [-1, -1])
    beams = _input("beam_idx", Type.i32, [-1])
    builder = _Builder(shape, weight, beams)
    hidden = builder.embedded(ids)
    turned = builder.rotation(positions)
    for layer in range(shape.layers):
        hidden = builder.layer(f"layers.{layer}", hidden, ids, turned)
    logits = builder.output(builder.norm("output_norm", hidden))
    logits.output(0).get_tensor().set_names({"logits"})
    return openvino.Model([ops.result(logits)], builder.sinks, [ids, positions, beams], "ore")


class _Builder:
    def __init__(self, shape: Shape, weight: Weight, beams: Node) -> None:
        self.shape = shape
        self.sinks: list[Node] = []
        self._weight = weight
        self._beams = beams

    def embedded(self, ids: Node) -> Node:
        table = self._required("embedding.weight")
        zero = _int(0)
        if not isinstance(table, Grouped):
            return ops.convert(ops.gather(_constant(table), ids, zero), Type.f32)
        values = ops.convert(ops.gather(_constant(table.values), ids, zero), Type.f32)
        scales = ops.convert(ops.gather(_constant(table.scales), ids, zero), Type.f32)
        return ops.reshape(ops.multiply(values, scales), _ints(0, 0, -1), True)

    def rotation(self, positions: Node) -> tuple[Node, Node]:
        """Cosine and sine of every position, `[batch, 1, tokens, head]`."""
        half = self.shape.head_width // 2
        steps = self.shape.rope_base ** (-np.arange(half, dtype=np.float64) / half) / self.shape.rope_divisor
        slower = self._weight("rope_divisors")
        if slower is not None:
            steps = steps / np.asarray(slower, np.float64)
        angles = ops.matmul(
            ops.unsqueeze(ops.convert(positions, Type.f32), _int(2)),
            _constant(steps.astype(np.float32).reshape(1, 1, half)),
            False,
            False,
        )
        both = ops.unsqueeze(ops.concat([angles, angles], 2), _int(1))
        return ops.cos(both), ops.sin(both)

    def layer(self, at: str, hidden: Node, ids: Node, turned: tuple[Node, Node]) -> Node:
        hidden = ops.add(hidden, self._attention(at, self.norm(f"{at}.attention_norm", hidden), ids, turned))
        within = self.norm(f"{at}.feed_forward_norm", hidden)
        gate = self._linear(f"{at}.gate", within)
        inner = ops.multiply(ops.swish(gate), self._linear(f"{at}.up", within))
        return ops.add(hidden, self._linear(f"{at}.down", inner))

    def output(self, hidden: Node) -> Node:
        matrix = self._weight("output.weight")
        return _product(hidden, self._required("embedding.weight") if matrix is None else matrix)

    def norm(self, name: str, hidden: Node) -> Node:
        """Divided by the root of the mean square along the last axis."""
        scale = np.asarray(self._required(f"{name}.weight"), np.float32)
        mean = ops.reduce_mean(ops.power(hidden, _float(2.0)), _ints(-1), True)
        root = ops.sqrt(ops.add(mean, _float(self.shape.norm_epsilon)))
        return ops.multiply(ops.multiply(hidden, ops.divide(_float(1.0), root)), _constant(scale))

    def _attention(self, at: str, hidden: Node, ids: Node, turned: tuple[Node, Node]) -> Node:
        shape = self.shape
        query = self._heads(f"{at}.attention.q", hidden, shape.heads, normed=True)
        key = self._heads(f"{at}.attention.k", hidden, shape.kv_heads, normed=True)
        value = self._heads(f"{at}.attention.v", hidden, shape.kv_heads)
        key = self._kept(f"{at}.key", _turned(key, turned, shape.head_width), ids)
        value = self._kept(f"{at}.value", value, ids)
        seen = ops.scaled_dot_product_attention(
            _turned(query, turned, shape.head_width),
            self._repeated(key),
            self._repeated(value),
            _constant(np.zeros((1, 1, 1, 1), np.float32)),
        )
        joined = ops.reshape(ops.transpose(seen, _ints(0, 2, 1, 3)), _ints(0, 0, shape.heads * shape.head_width), True)
        return self._linear(f"{at}.attention.output", joined)

    def _heads(self, name: str, hidden: Node, heads: int, *, normed: bool = False) -> Node:
        """`[batch, heads, tokens, head]`. `normed`: where the model norms each head."""
        apart = ops.reshape(self._linear(name, hidden), _ints(0, 0, heads, self.shape.head_width), True)
        if normed and self._weight(f"{name}_norm.weight") is not None:
            apart = self.norm(f"{name}_norm", apart)
        return ops.transpose(apart, _ints(0, 2, 1, 3))

    def _kept(self, name: str, new: Node, ids: Node) -> Node:
        """What a variable has, with the new tokens behind it."""
        shape = self.shape
        info = util.VariableInfo()
        info.data_shape = openvino.PartialShape([-1, shape.kv_heads, -1, shape.head_width])
        info.data_type = Type.f32
        info.variable_id = name
        variable = util.Variable(info)
        batch = ops.gather(ops.shape_of(ids), _ints(0), _int(0))
        none = ops.broadcast(
            _float(0.0), ops.concat([batch, _ints(shape.kv_heads), _ints(0), _ints(shape.head_width)], 0)
        )
        past = ops.gather(ops.read_value(none, variable), self._beams, _int(0))
        whole = ops.concat([past, new], 2)
        self.sinks.append(ops.assign(whole, variable))
        return whole

    def _repeated(self, kept: Node) -> Node:
        """Keys or values once for each of the query's heads."""
        shape = self.shape
        times = shape.heads // shape.kv_heads
        if times == 1:
            return kept
        wide = ops.broadcast(ops.unsqueeze(kept, _int(2)), _ints(1, 1, times, 1, 1), broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _ints(0, shape.heads, -1, shape.head_width), True)

    def _linear(self, name: str, hidden: Node) -> Node:
        product = _product(hidden, self._required(f"{name}.weight"))
        bias = self._weight(f"{name}.bias")
        return product if bias is None else ops.add(product, _constant(np.asarray(bias, np.float32)))

    def _required(self, name: str) -> Matrix:
        found = self._weight(name)
        if found is None:
            raise Missing(name)
        return found


def _product(hidden: Node, matrix: Matrix) -> Node:
    return ops.matmul(hidden, _decompressed(matrix), False, True)


def _decompressed(matrix: Matrix) -> Node:
    """The pattern in which OpenVINO sees compressed weights, and leaves them so."""
    if not isinstance(matrix, Grouped):
        constant = _constant(matrix)
        return constant if matrix.dtype == np.float32 else ops.convert(constant, Type.f32)
    scaled = ops.multiply(_whole(matrix), _constant(matrix.scales))
    return ops.convert(ops.reshape(scaled, _ints(*matrix.shape), False), Type.f32)


def _whole(matrix: Grouped) -> Node:
    """Whole numbers as halves. Those of four bits are kept without sign, eight too large: as OpenVINO knows them."""
    if matrix.bits == 8:
        return ops.convert(_constant(matrix.values), Type.f16)
    pairs = (matrix.values.reshape(-1, 2) + 8).astype(np.uint8)
    values = _nibbles(pairs[:, 0] | (pairs[:, 1] << 4), matrix.values.shape)
    middle = _nibbles(np.array([8], np.uint8), (1, 1, 1))
    return ops.subtract(ops.convert(values, Type.f16), ops.convert(middle, Type.f16))


def _nibbles(packed: Any, shape: tuple[int, ...]) -> Node:
    tensor = openvino.Tensor(Type.u4, openvino.Shape(list(shape)))
    tensor.data.reshape(-1)[:] = packed
    return ops.constant(tensor)


def _turned(heads: Node, turned: tuple[Node, Node], width: int) -> Node:
    """Rotary positions: each half of a head with the other."""
    cosine, sine = turned
    first, second = ops.variadic_split(heads, _int(3), _ints(width // 2, width - width // 2)).outputs()
    crossed = ops.concat([ops.multiply(second, _float(-1.0)), first], 3)
    return ops.add(ops.multiply(heads, cosine), ops.multiply(crossed, sine))


def _input(name: str, kind: Type, shape: list[int]) -> Node:
    node = ops.parameter(openvino.PartialShape(shape), kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _constant(values: Any) -> Node:
    return ops.constant(np.ascontiguousarray(values))


def _float(value: float) -> Node:
    return ops.constant(np.array(value, np.float32))


def _int(value: int) -> Node:
    return ops.constant(np.array(value, np.int64))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))
