"""A model whose keys and values lie in blocks: OpenVINO's graph, compiled for a device, and what it remembers.

One `infer` takes parts of many sequences at once. Which blocks belong to which sequence is the scheduler's; it refuses
to know sequences from one call to the next.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import openvino
from openvino import Type
from openvino import opset15 as ops
from openvino._offline_transformations import paged_attention_transformation

from ore.backends.local.openvino.gguf_file import Array
from ore.errors import StartupError

BLOCK: Final = {"CPU": 32, "GPU": 16}
"""Tokens of a block, which each device has of its own."""

ROWS: Final = "rows"
"""The input that says for which tokens logits are wanted."""

_UNNAMED_DEVICE: Final = 32


class Part(NamedTuple):
    """Tokens of a sequence that are new, how many came before them, and the blocks for all of them."""

    tokens: Sequence[int]
    past: int
    blocks: Sequence[int]


class PagedModel:
    """A compiled model. Precisions are OpenVINO's names of types, empty for what the device prefers."""

    def __init__(
        self, model: openvino.Model, *, device: str, threads: int, kv_precision: str = "", precision: str = ""
    ) -> None:
        core = openvino.Core()
        made_paged(model)
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if threads and device == "CPU":
            config["INFERENCE_NUM_THREADS"] = threads
        if kv_precision:
            config["KV_CACHE_PRECISION"] = kv_precision
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        try:
            self._compiled = core.compile_model(model, device, config)
        except RuntimeError as error:
            raise StartupError(f"OpenVINO could not compile it for {device}: {_first_line(error)}") from error
        self._request = self._compiled.create_infer_request()
        self.block = BLOCK.get(device.partition(".")[0], _UNNAMED_DEVICE)
        self._kept = [port for port in self._compiled.inputs if "_cache." in port.get_any_name()]
        self._takes_positions = any(port.get_any_name() == "position_ids" for port in self._compiled.inputs)
        self.vocabulary = int(self._compiled.output(0).get_partial_shape()[-1].get_length())

    @property
    def block_bytes(self) -> int:
        """What a block takes, of keys and values in all layers."""
        return sum(_bytes(port, 1) for port in self._kept)

    def reserve(self, blocks: int) -> None:
        """Make room for so many blocks. What was there is forgotten."""
        for port in self._kept:
            tensor = openvino.Tensor(port.get_element_type(), openvino.Shape(_with_blocks(port, blocks)))
            self._request.set_tensor(port, tensor)

    def logits(self, parts: Sequence[Part], rows: Sequence[int]) -> Array:
        """Take the parts in; gives `[rows, vocabulary]`, where a row counts the tokens of all parts."""
        lengths = [len(part.tokens) for part in parts]
        inputs: dict[str, Any] = {
            "input_ids": np.concatenate([np.asarray(part.tokens, np.int64) for part in parts]),
            "past_lens": np.array([part.past for part in parts], np.int32),
            "subsequence_begins": _begins(lengths),
            "block_indices": np.concatenate([np.asarray(part.blocks, np.int32) for part in parts]),
            "block_indices_begins": _begins([len(part.blocks) for part in parts]),
            "max_context_len": np.array(max(map(sum, zip(lengths, (p.past for p in parts), strict=True))), np.int32),
            ROWS: np.asarray(rows, np.int64),
        }
        if self._takes_positions:
            inputs["position_ids"] = np.concatenate(
                [np.arange(part.past, part.past + len(part.tokens), dtype=np.int64) for part in parts]
            )
        for name, values in inputs.items():
            self._request.set_tensor(name, openvino.Tensor(values))
        self._request.infer()
        logits: Array = self._request.get_output_tensor(0).data.reshape(len(rows), self.vocabulary)
        return logits


def made_paged(model: openvino.Model) -> None:
    """Change a stateful graph in place: blocks instead of variables, and logits for the wanted rows alone.

    Raises `StartupError` for a graph in which no attention was found.
    """
    try:
        paged_attention_transformation(model)
    except RuntimeError as error:
        raise StartupError(f"it is not a model that keeps its keys and values: {_first_line(error)}") from error
    rows = ops.parameter(openvino.PartialShape([-1]), Type.i64, name=ROWS)
    rows.output(0).get_tensor().set_names({ROWS})
    product = _last_product(model)
    hidden = product.input_value(0)
    product.input(0).replace_source_output(ops.gather(hidden, rows, ops.constant(np.array(0, np.int64))).output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()


def _last_product(model: openvino.Model) -> Any:
    """The product that makes logits of what the last layer gives."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        if node.get_input_size() == 0:
            raise StartupError("its logits do not come from a product of matrices")
        node = node.input_value(0).get_node()
    return node


def _begins(lengths: Sequence[int]) -> Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _with_blocks(port: Any, blocks: int) -> list[int]:
    return [blocks, *(dimension.get_length() for dimension in list(port.get_partial_shape())[1:])]


def _bytes(port: Any, blocks: int) -> int:
    return int(np.prod(_with_blocks(port, blocks))) * int(port.get_element_type().bitwidth) // 8


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
