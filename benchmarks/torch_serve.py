"""The PyTorch engine beside `transformers serve`, on the same model, threads and precision, in one run.

    python -m benchmarks.torch_serve [--clients 1,8,32] [--tokens 32] [--threads 1] [--one-at-a-time]

The model has random weights in the shape of a common model of 135 million parameters, in bfloat16. The other server
runs with its continuous batching, unless `--one-at-a-time`. Each server has the machine to itself while it is measured.
The share of the memory's bandwidth is that of the weights alone, read once for each token of one client, against a copy
in memory with the same threads. Needs the extra `torch`, and `fastapi` for the other server.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.servers import Serving, resident
from benchmarks.sse_clients import request, run_clients

WORDS = [
    "the",
    "story",
    "goes",
    "on",
    "about",
    "a",
    "house",
    "by",
    "the",
    "sea",
    "where",
    "nobody",
    "ever",
    "slept",
    "well",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=400, help="words of the prompt whose first token is timed")
    parser.add_argument("--one-at-a-time", action="store_true")
    ask = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(ask.threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    counts = [int(count) for count in ask.clients.split(",")]
    table = Table(title=f"random-135m, bfloat16, {ask.threads} threads, answers of {ask.tokens} tokens")
    columns = [*(f"{n} clients tok/s" for n in counts), "first token s", "cached s", "RSS MiB", "bandwidth"]
    for heading in ("server", *columns):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        model = _model(Path(folder) / "random-135m")
        limit = _bandwidth(ask.threads) / (model / "model.safetensors").stat().st_size
        for name, serving in (("ORE", _ore), ("transformers serve", _transformers)):
            with serving(model, Path(folder), ask, max(counts)) as (port, wanted, pid):
                row = asyncio.run(_measured(port, wanted, counts, ask))
                rates = row[: len(counts)]
                share = f"{rates[0] / limit:.2f}"
                shown = [*(f"{rate:.1f}" for rate in rates), *(f"{value:.2f}" for value in row[len(counts) :])]
                table.add_row(name, *shown, f"{resident(pid()) >> 20}", share)
    Console(width=140).print(table)


async def _measured(port: int, model: str, counts: list[int], ask: Any) -> list[float]:
    """Tokens per second for each number of clients, then seconds to the first token, cold and again."""

    def body(text: str, tokens: int) -> dict[str, object]:
        return {"model": model, "input": text, "max_output_tokens": tokens, "store": False}

    await run_clients(port, [body("warm up", 4)], 1)
    rates = []
    for count in counts:
        bodies = [body(f"Client {i} of {count} asks about {i * 7919}.", ask.tokens) for i in range(count)]
        done = await run_clients(port, bodies, 2 if count == 1 else 1)
        rates.append(done["tokens"] / done["seconds"])
    long = " ".join(WORDS[i % len(WORDS)] for i in range(ask.prompt))
    return [*rates, *[await _first_token(port, body(long, 4)) for _ in range(2)]]


async def _first_token(port: int, body: dict[str, object]) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    begun = time.perf_counter()
    writer.write(request(body))
    raw = b""
    while b"response.output_text.delta" not in raw and (data := await reader.read(1 << 16)):
        raw += data
    took = time.perf_counter() - begun
    if b"response.output_text.delta" not in raw:
        raise RuntimeError(f"no text in the stream: {raw[-300:]!r}")
    while await reader.read(1 << 16):
        pass
    writer.close()
    return took


@contextmanager
def _ore(model: Path, folder: Path, ask: Any, slots: int) -> Iterator[Any]:
    config = (
        f"[torch]\nslots = {slots}\ncontext = 2048\nthreads = {ask.threads}\ndtype = 'bfloat16'\n"
        f"[models.bench]\npath = '{model}'\nengine = 'torch'\n"
    )
    with Serving(folder, config) as server:
        yield server.port, "bench", server.largest_child


@contextmanager
def _transformers(model: Path, _folder: Path, ask: Any, _slots: int) -> Iterator[Any]:
    port = _free_port()
    batching = "--no-continuous-batching" if ask.one_at_a_time else "--continuous-batching"
    program = str(Path(sys.executable).parent / "transformers")
    command = [sys.executable, program, "serve", str(model), batching, "--dtype", "bfloat16", "--port", str(port)]
    command += ["--device", "cpu", "--log-level", "error"]
    if not ask.one_at_a_time:
        command += ["--cb-num-blocks", "512", "--cb-max-batch-tokens", "512"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_healthy(port, process)
        yield port, str(model), lambda: process.pid
    finally:
        process.kill()
        process.wait()


def _wait_until_healthy(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("transformers serve did not start")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _bandwidth(threads: int) -> float:
    """Bytes per second that a copy reads; the best of some."""
    import torch

    torch.set_num_threads(threads)
    source = torch.ones(128 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        target.copy_(source)
        best = max(best, source.numel() / (time.perf_counter() - begun))
    return best


def _model(folder: Path) -> Path:
    """Random weights and a vocabulary of 49,152 tokens."""
    import torch
    from tests.backends.torch_tiny import TEMPLATE, tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words = tokenizer()
    described = json.loads(words.to_str())
    vocabulary = described["model"]["vocab"]
    vocabulary |= {f"word{i}": i for i in range(len(vocabulary), 49_152)}
    (folder / "tokenizer.json").write_text(json.dumps(described))
    told = {"eos_token": "<|end|>", "chat_template": TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


if __name__ == "__main__":
    main()
