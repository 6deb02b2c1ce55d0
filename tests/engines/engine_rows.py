"""The engines under test: a row for each, which makes a small model with random weights and what serves it.

A new engine is a row here, and every kit in this folder then runs on it. It refuses to import an engine's package: rows
whose package is missing are skipped by whoever asks for them, visibly.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct

from backends.local_random_gguf import CONTROL, MARKERS, TEMPLATE, USER_DEFINED, write_random_gguf
from ore.backends.local.candle import candle
from ore.backends.local.engine import Engine
from ore.backends.local.llama_cpp import LlamaCpp
from ore.backends.local.local_model import LocalModel
from ore.backends.local.openvino.engine import openvino_engine
from ore.backends.local.options import CandleOptions, LlamaCppOptions, OpenVinoOptions, TorchOptions
from ore.backends.local.torch.engine import torch_engine

CONTEXT: Final = 4096
THINKING: Final = TEMPLATE.replace(
    "'<|im_start|>assistant\\n' }}{%- endif", "'<|im_start|>assistant\\n<think>\\n' }}{%- endif"
)
"""A template that opens the think block itself, as those of reasoning models do."""


class Wanted(Struct, frozen=True, kw_only=True):
    """How a model is to be served. `thinks`: its template opens a think block; `control`: its markers are control
    tokens and no text."""

    slots: int = 4
    queue: int = 64
    thinks: bool = False
    control: bool = False

    @property
    def template(self) -> str:
        return THINKING if self.thinks else TEMPLATE


class EngineRow(Struct, frozen=True, kw_only=True):
    """An engine: the package it needs, and what makes a model in a folder, not started. `lacks` is what it says that it
    cannot do, each a word of `CAN`."""

    package: str
    make: Callable[[Path, Wanted], LocalModel]
    lacks: frozenset[str] = frozenset()


CAN: Final = frozenset({"seeds", "cached tokens"})
"""What an engine may lack; logprobs, it tells itself."""


def _gguf(folder: Path, wanted: Wanted) -> Path:
    kind = CONTROL if wanted.control else USER_DEFINED
    return write_random_gguf(folder / "random.gguf", context=CONTEXT, template=wanted.template, marker_type=kind)


def _llama_cpp(folder: Path, wanted: Wanted) -> LocalModel:
    options = LlamaCppOptions(path=_gguf(folder, wanted), slots=wanted.slots, queue=wanted.queue, batch=64)
    return LocalModel("random", options, LlamaCpp("random", options))


def _candle(folder: Path, wanted: Wanted) -> LocalModel:
    """One slot, whatever is wanted: see `candle_worker`."""
    options = CandleOptions(path=_gguf(folder, wanted), slots=1, queue=wanted.queue)
    return LocalModel("random", options, candle("random", options))


def _torch(folder: Path, wanted: Wanted) -> LocalModel:
    from backends.torch_tiny import model, save, tokenizer

    turn, calls = MARKERS[:3], MARKERS[3:]
    words = tokenizer((*turn, *calls)) if wanted.control else tokenizer(turn, calls)
    made = model(eos_token_id=words.token_to_id("<|im_end|>"), max_position_embeddings=CONTEXT)
    path = save(folder / "random", made, words, wanted.template, "<|im_end|>")
    options = TorchOptions(
        path=path, slots=wanted.slots, queue=wanted.queue, threads=1, dtype="float32", kv_cache_mib=64
    )
    return LocalModel("random", options, torch_engine("random", options))


def _openvino(folder: Path, wanted: Wanted) -> LocalModel:
    options = OpenVinoOptions(path=_gguf(folder, wanted), slots=wanted.slots, queue=wanted.queue)
    return LocalModel("random", options, openvino_engine("random", options))


ROWS: Final = {
    "llama_cpp": EngineRow(package="xllamacpp", make=_llama_cpp),
    "openvino": EngineRow(package="openvino", make=_openvino),
    "candle": EngineRow(package="mistralrs", make=_candle, lacks=frozenset({"seeds"})),
    "torch": EngineRow(package="torch", make=_torch),
}


def row(name: str) -> EngineRow:
    """The row of an engine; skips the test when its package is missing."""
    found = ROWS[name]
    pytest.importorskip(found.package, reason=f"the engine {name} needs the package {found.package}")
    return found


@asynccontextmanager
async def running(name: str, folder: Path, wanted: Wanted | None = None) -> AsyncIterator[LocalModel]:
    """A model of the engine, started; an engine that dies comes back at once."""
    model = row(name).make(folder, wanted or Wanted())
    quick_to_return(model.engine)
    await model.start()
    try:
        yield model
    finally:
        await model.stop()


def quick_to_return(engine: Engine) -> None:
    """Without the pause before a process that died is started anew."""
    engine.process._backoff = (0.01,)  # type: ignore[attr-defined]
