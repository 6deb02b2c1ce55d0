"""Measures one model in one engine, through all of ORE but HTTP: loading, first tokens, throughput, memory.

Answers are as long as was asked unless the model ends them itself; what is counted is what came. It refuses to judge.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from ore.backends.base import Backend, ModelRequest
from ore.backends.local.memory import resident_bytes
from ore.core.deltas import Finish, Usage
from ore.engines import ENGINES, Order
from ore.errors import OreError
from ore.settings import ModelSettings, Settings

COPIED_BYTES: Final = 64 * 2**20
"""For each thread that measures the memory's bandwidth; more than caches hold."""
COPIES: Final = 4

Step = Callable[[str], None]
"""Told what is being measured now."""


class Plan(Struct, frozen=True, kw_only=True):
    """What is measured: `prompt` tokens, about, for the first token; answers of `tokens` for each of the `clients`."""

    clients: tuple[int, ...]
    tokens: int
    prompt: int

    @property
    def steps(self) -> int:
        """How often `Step` is called for an engine."""
        return 2 + len(self.clients)


class Measured(Struct, frozen=True, kw_only=True):
    """One engine: seconds, tokens per second, bytes; `decode` by the number of clients."""

    engine: str
    load_seconds: float | None = None
    cold_seconds: float | None = None
    """To the first token of a new prompt."""
    cached_seconds: float | None = None
    """To the first token of the same prompt again."""
    prefill: float | None = None
    decode: dict[int, float] = {}
    resident: int | None = None
    bandwidth_share: float | None = None
    """What one client's decoding reads of the weights, over what this machine can copy."""
    problem: str | None = None
    """Why there is no more."""


async def measure(
    engine: str, path: Path, model: ModelSettings, settings: Settings, plan: Plan, bandwidth: float, step: Step
) -> Measured:
    """Load the model, measure, unload it. What goes wrong is the `problem` of the result."""
    backend: Any = ENGINES[engine].make(Order("bench", path, model, settings, None))
    step("loading")
    begun = time.perf_counter()
    try:
        await backend.start()
        load = time.perf_counter() - begun
        return await _measured(engine, path, backend, plan, bandwidth, load, step)
    except OreError as error:
        return Measured(engine=engine, problem=error.message)
    finally:
        await backend.stop()


async def _measured(
    engine: str, path: Path, backend: Any, plan: Plan, bandwidth: float, load: float, step: Step
) -> Measured:
    step("first token")
    await _ask(backend, "warm", 2)
    prompt = " ".join(str(number * 7919) for number in range(max(1, plan.prompt // 6)))
    cold, usage = await _timed(backend, prompt)
    cached, _ = await _timed(backend, prompt)
    decode = {}
    for clients in plan.clients:
        step(f"{clients} clients" if clients > 1 else "1 client")
        decode[clients] = await _throughput(backend, clients, plan.tokens)
    alone = decode.get(1)
    return Measured(
        engine=engine,
        load_seconds=load,
        cold_seconds=cold,
        cached_seconds=cached,
        prefill=usage.input_tokens / cold,
        decode=decode,
        resident=resident_bytes(backend.engine.pid) if backend.engine.pid else None,
        bandwidth_share=None if alone is None else alone * weight_bytes(path) / bandwidth,
    )


async def _timed(backend: Backend, prompt: str) -> tuple[float, Usage]:
    """Seconds of a whole answer of one token."""
    begun = time.perf_counter()
    usage = await _ask(backend, prompt, 1)
    return time.perf_counter() - begun, usage


async def _throughput(backend: Backend, clients: int, tokens: int) -> float:
    """Tokens per second of all clients together, each with a prompt of its own."""
    prompts = [f"Client {number} asks for a long story about {number * 7919}." for number in range(clients)]
    begun = time.perf_counter()
    usages = await asyncio.gather(*(_ask(backend, prompt, tokens) for prompt in prompts))
    return sum(usage.output_tokens for usage in usages) / (time.perf_counter() - begun)


async def _ask(backend: Backend, prompt: str, tokens: int) -> Usage:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}
    usage = Usage(input_tokens=0, output_tokens=0)
    async with backend.stream(ModelRequest(model="bench", items=(item,), max_output_tokens=tokens)) as deltas:
        async for delta in deltas:
            if isinstance(delta, Finish) and delta.usage is not None:
                usage = delta.usage
    return usage


def weight_bytes(path: Path) -> int:
    """What decoding a token reads, about: all weights that the file or folder has."""
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("openvino_model.bin")]
    return sum(file.stat().st_size for file in files)


def copied_bytes_per_second() -> float:
    """The memory's bandwidth: bytes that threads on all cores read and write while they copy."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = [(bytes(COPIED_BYTES), ctypes.create_string_buffer(COPIED_BYTES)) for _ in range(threads)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_copy, pairs))
    return 2 * COPIED_BYTES * COPIES * threads / (time.perf_counter() - begun)


def _copy(pair: tuple[bytes, Any]) -> None:
    source, target = pair
    for _ in range(COPIES):
        ctypes.memmove(target, source, COPIED_BYTES)  # lets the other threads run


def recommended(measured: Sequence[Measured]) -> str:
    """One sentence: the quickest for one client, and for many."""
    good = [each for each in measured if each.problem is None and each.decode]
    if not good:
        return "No engine could run it."
    few, many = min(good[0].decode), max(good[0].decode)
    for_one, for_many = (max(good, key=lambda each: each.decode[count]).engine for count in (few, many))
    if for_one == for_many:
        return f"Recommended here: {for_one}."
    return f"Recommended here: {for_many} for {many} clients, {for_one} for {few}."
