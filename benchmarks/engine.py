"""What HTTP and SSE cost: tokens per second through `ore serve` beside the same engine called in-process.

    python -m benchmarks.engine [--model random-135m|ore-tiny|FILE.gguf] [--clients 1,8,32] [--tokens 64] [--rounds 3]

`random-135m` is written on the spot: random weights, 8-bit, in the shape of a common 135-million-parameter model; speed
does not depend on the values. Both sides have the same number of slots and threads, and take turns (A B A B), so that a
machine that is busy elsewhere is equally unkind to both; the ratio is the median of the pairs. Afterwards: the time
from a client's disconnect until the engine's slot is free, and the memory after 1,000 requests against that after 100.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from tests.backends.local_random_gguf import write_random_135m

from benchmarks.in_process import Ask
from benchmarks.lasting import measure_disconnects, measure_memory
from benchmarks.servers import Answering, Serving, one_model
from benchmarks.sse_clients import run_clients
from ore.backends.local.llama_cpp_server import Parameters

BUNDLED = Path(__file__).parents[1] / "src" / "ore" / "models" / "ore-tiny.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random-135m")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer, at most")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of measurements; 0 leaves throughput out")
    parser.add_argument("--disconnects", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000, help="requests of the memory measurement")
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = _model_file(ask.model, Path(folder))
        counts = [int(count) for count in ask.clients.split(",")]
        if ask.rounds:
            throughput(ask.model, model, Path(folder), counts, ask.tokens, ask.rounds)
        asyncio.run(measure_disconnects("ore-tiny", BUNDLED, Path(folder), ask.disconnects))
        asyncio.run(measure_disconnects(ask.model, model, Path(folder), ask.disconnects // 4))
        asyncio.run(measure_memory(BUNDLED, Path(folder), ask.requests))


def throughput(name: str, model: Path, folder: Path, counts: list[int], tokens: int, rounds: int) -> None:
    """Print the table of line 6: ORE's tokens per second over the engine's own."""
    slots = max(counts)
    table = Table(title=f"Tokens per second, {name}, {slots} slots, answers of up to {tokens} tokens")
    for heading in ("clients", "in-process", "HTTP and SSE", "ratio", "ratios of the pairs"):
        table.add_column(heading, justify="right")
    with InProcess(model, slots) as baseline, Serving(folder, one_model(model, slots=slots)) as server:
        for count in counts:
            requests = max(2, 8 // count)
            pairs = []
            for _ in range(rounds):
                base = baseline.measure(count, requests, tokens)
                bodies = [{"input": prompt(i), "max_output_tokens": tokens, "store": False} for i in range(count)]
                ours = asyncio.run(run_clients(server.port, bodies, requests))
                pairs.append((base["tokens"] / base["seconds"], ours["tokens"] / ours["seconds"]))
            ratios = [ours / base for base, ours in pairs]
            table.add_row(
                str(count),
                f"{statistics.median(base for base, _ in pairs):.0f}",
                f"{statistics.median(ours for _, ours in pairs):.0f}",
                f"{statistics.median(ratios):.3f}",
                " ".join(f"{ratio:.3f}" for ratio in sorted(ratios)),
            )
    Console().print(table)


def prompt(index: int) -> str:
    """A prompt of its own for each client, so that no prefix is shared between them."""
    return f"Client {index} would like to hear a long story about the number {index * 7919}."


class InProcess:
    """The baseline process; `measure` asks it once."""

    def __init__(self, model: Path, slots: int) -> None:
        self._parameters = Parameters(
            path=str(model),
            socket="127.0.0.1",
            api_key="benchmark",
            slots=slots,
            context=1024,
            threads=0,
            batch=128,
            gpu_layers=-1,
            prompt_cache_mib=64,
        )
        self._process = Answering("benchmarks.in_process", quiet=True)

    def __enter__(self) -> "InProcess":
        self._process.__enter__()
        self._process.ask(msgspec.json.encode(self._parameters))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__()

    def measure(self, clients: int, requests: int, tokens: int) -> dict[str, float]:
        prompts = [f"<|im_start|>user\n{prompt(i)}<|im_end|>\n<|im_start|>assistant\n" for i in range(clients)]
        answer: dict[str, float] = json.loads(
            self._process.ask(msgspec.json.encode(Ask(clients, requests, tokens, prompts)))
        )
        return answer


def _model_file(name: str, folder: Path) -> Path:
    if name == "random-135m":
        return write_random_135m(folder / "random-135m.gguf")
    return BUNDLED if name == "ore-tiny" else Path(name)


if __name__ == "__main__":
    main()
