"""ORE's engines beside llama.cpp's own HTTP server, in one run: tokens per second at 1, 8 and 32 clients.

    python -m benchmarks.engines [--engines llama_cpp,openvino] [--clients 1,8,32] [--tokens 64] [--rounds 3]

The model is written on the spot: random weights, 8-bit, in the shape of a common 135-million-parameter model. All have
the same number of slots, and take turns (A B C, A B C), so that a machine that is busy elsewhere is equally unkind to
all; the figures are medians. llama.cpp's server is the one in the wheel, asked by the same clients.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.backends.local_random_gguf import write_random_135m

from benchmarks.engine import prompt
from benchmarks.llama_server import LlamaServer, run_completions
from benchmarks.servers import Serving, one_model
from benchmarks.sse_clients import run_clients

Measure = Callable[[int, int, int], dict[str, float]]
"""Of clients, requests and tokens: the tokens that came, and the seconds they took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="llama_cpp,openvino")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer, at most")
    parser.add_argument("--rounds", type=int, default=3)
    ask = parser.parse_args()
    counts = [int(count) for count in ask.clients.split(",")]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = write_random_135m(Path(folder) / "random-135m.gguf")
        sides = {"llama.cpp's server": llama_server(stack, model, Path(folder) / "llama.sock", max(counts))}
        for engine in ask.engines.split(","):
            sides[f"ORE, {engine}"] = ore(stack, engine, model, Path(folder), max(counts))
        show(sides, counts, ask.tokens, ask.rounds)


def llama_server(stack: ExitStack, model: Path, socket: Path, slots: int) -> Measure:
    stack.enter_context(LlamaServer(model, slots, socket))

    def measure(clients: int, requests: int, tokens: int) -> dict[str, float]:
        prompts = [f"<|im_start|>user\n{prompt(i)}<|im_end|>\n<|im_start|>assistant\n" for i in range(clients)]
        return asyncio.run(run_completions(socket, prompts, requests, tokens))

    return measure


def ore(stack: ExitStack, engine: str, model: Path, folder: Path, slots: int) -> Measure:
    place = folder / engine
    place.mkdir()
    settings = one_model(model, slots=slots) + f'engine = "{engine}"\nslots = {slots}\ncontext = 1024\n'
    server = stack.enter_context(Serving(place, settings))

    def measure(clients: int, requests: int, tokens: int) -> dict[str, float]:
        bodies = [{"input": prompt(i), "max_output_tokens": tokens, "store": False} for i in range(clients)]
        return asyncio.run(run_clients(server.port, bodies, requests))

    return measure


def show(sides: dict[str, Measure], counts: list[int], tokens: int, rounds: int) -> None:
    """Measure and print, line by line."""
    table = Table(title=f"Tokens per second, random-135m, {max(counts)} slots, answers of up to {tokens} tokens")
    for heading in ("clients", *sides):
        table.add_column(heading, justify="right")
    for count in counts:
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, measure in sides.items():
                took = measure(count, max(2, 8 // count), tokens)
                found[name].append(took["tokens"] / took["seconds"])
        medians = {name: round(statistics.median(each), 1) for name, each in found.items()}
        print(json.dumps({"clients": count, **medians}), flush=True)
        table.add_row(str(count), *(f"{each:.0f}" for each in medians.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
