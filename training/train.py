"""Train ore-tiny from generated dialogues, on a CPU or a CUDA device, resumable.

Dialogues are made in a process of their own while the last ones are learnt. Batches hold dialogues of like length,
so plain causal attention needs no mask; the loss counts only the assistant's tokens. Matrices learn by Muon, the rest
by AdamW. It refuses to judge the model: that is `evaluate.py`, on the exported file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer
from torch import Tensor, nn

from generate import make, render
from model import Shape, Tiny

Sample = tuple[np.ndarray, np.ndarray]
LENGTHS = (24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 800, 1024)
IGNORED = -100


def encode(tokenizer: Tokenizer, text: str) -> Sample:
    """Tokens, and which of them the assistant wrote (its end marker is one of them)."""
    ids = np.array(tokenizer.encode(text).ids, dtype=np.int64)
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    head = tokenizer.encode("assistant\n").ids
    written = np.zeros(len(ids), dtype=bool)
    for at in np.flatnonzero(ids == start):
        begin = at + 1 + len(head)
        if ids[at + 1 : begin].tolist() == head:
            stop = begin + int(np.argmax(ids[begin:] == end)) + 1
            written[begin:stop] = True
    return ids, written


def shard(tokenizer_path: str, seed: int, count: int) -> list[Sample]:
    """Many dialogues, made and encoded; runs in a process of its own."""
    rng = random.Random(seed)
    tokenizer = Tokenizer.from_file(tokenizer_path)
    samples = []
    for _ in range(count):
        example = make(rng, unseen=False)
        sample = encode(tokenizer, render(example.messages, example.tools))
        if len(sample[0]) <= LENGTHS[-1]:
            samples.append(sample)
    return samples


@dataclass
class Batch:
    """Padded tokens with their positions, and the rows whose next token is to be predicted."""

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    targets: Tensor


def batch_of(samples: list[Sample], length: int, count: int, rng: np.random.Generator, reach: int) -> Batch:
    """Pad samples to one shape; some get a gap in their positions, so that long prompts are no news.

    Few shapes matter: the CPU's matrix library compiles a kernel for each new one.
    """
    tokens = np.zeros((count, length), dtype=np.int64)
    positions = np.tile(np.arange(length), (count, 1))
    rows, targets = [], []
    for i, (ids, written) in enumerate(samples):
        tokens[i, : len(ids)] = ids
        predicted = np.flatnonzero(written[1:])
        rows.append(i * length + predicted)
        targets.append(ids[predicted + 1])
        if rng.random() < 0.3:
            positions[i, rng.integers(1, len(ids)) :] += rng.integers(1, reach)
    chosen, wanted = np.concatenate(rows), np.concatenate(targets)
    spare = -len(chosen) % 256
    chosen, wanted = np.pad(chosen, (0, spare)), np.pad(wanted, (0, spare), constant_values=IGNORED)
    return Batch(*[torch.from_numpy(array) for array in (tokens, positions, chosen, wanted)])


def batches(samples: list[Sample], budget: int, seed: int, reach: int) -> Iterator[Batch]:
    """Batches of at most `budget` tokens each, alike in length within, in random order."""
    rng = np.random.default_rng(seed)
    boxes: dict[int, list[Sample]] = {length: [] for length in LENGTHS}
    for i in rng.permutation(len(samples)):
        boxes[next(length for length in LENGTHS if len(samples[i][0]) <= length)].append(samples[i])
    cuts = []
    for length, box in boxes.items():
        count = max(1, budget // length)
        cuts += [(length, count, box[at : at + count]) for at in range(0, len(box), count)]
    for at in rng.permutation(len(cuts)):
        length, count, box = cuts[at]
        if len(box) > count // 2:
            yield batch_of(box, length, count, rng, reach)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Newton-Schulz), for the matrices of the layers."""

    def __init__(self, pieces: list[tuple[nn.Parameter, list[int]]], rate: float, momentum: float = 0.95) -> None:
        super().__init__([p for p, _ in pieces], {"lr": rate, "momentum": momentum, "decay": 0.02})
        self.sizes = dict(pieces)

    @torch.no_grad()
    def step(self, _: Any = None) -> None:  # type: ignore[override]
        """Update every matrix, each of its pieces on its own."""
        group = self.param_groups[0]
        for p in group["params"]:
            state = self.state[p]
            if "speed" not in state:
                state["speed"] = torch.zeros_like(p)
            state["speed"].lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(state["speed"], group["momentum"])
            p.mul_(1 - group["lr"] * group["decay"])
            for target, update in zip(p.split(self.sizes[p]), ahead.split(self.sizes[p]), strict=True):
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                target.add_(orthogonal(update).to(target.dtype), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest half-orthogonal matrix, roughly: five Newton-Schulz steps with the usual coefficients.

    One matrix at a time: on a CPU, stacked bfloat16 products were ten times slower.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        factor = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, factor, x, beta=3.4445)
    return x.mT if tall else x


def optimizers(model: Tiny, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms."""
    pieces: list[tuple[nn.Parameter, list[int]]] = []
    for block in model.blocks:
        hidden, width = model.shape.hidden, model.shape.width
        pieces += [(block.qkv, block.sizes), (block.gate_up, [hidden, hidden])]
        pieces += [(block.out, [width]), (block.down, [width])]
    matrices = {id(p) for p, _ in pieces}
    rest = [p for p in model.parameters() if id(p) not in matrices]
    return [Muon(pieces, rate), torch.optim.AdamW(rest, lr=rate * 0.15, betas=(0.9, 0.98), weight_decay=0.0)]


def rate_at(progress: float, anneal: float) -> float:
    """Warm-up, a plateau, and a straight fall to nearly nothing over the last `anneal` of the time."""
    return min(1.0, 0.05 + progress / 0.02, 0.01 + max(0.0, 1 - progress) / anneal)


def copied(model: Tiny) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: weight.clone() for name, weight in model.state_dict().items()}


class Run:
    """A training run: model, optimizers, clock and checkpoint."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shape = Shape(width=options.width, layers=options.layers, heads=options.heads, kv_heads=options.kv_heads,
                      head_dim=options.head_dim, hidden=options.hidden)  # fmt: skip
        torch.manual_seed(options.seed)
        self.model = Tiny(shape).to(self.device)
        self.optimizers = optimizers(self.model, options.rate)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        self.step, self.tokens, self.learnt, self.seconds, self.shards = 0, 0, 0, 0.0, 0
        self.checkpoint, self.stopped = options.out / "checkpoint.pt", False
        if self.checkpoint.exists():
            self.load()
        elif options.start:
            self.begin_with(options.start)
        else:
            self.average = copied(self.model)

    def stop(self, *_: object) -> None:
        """Ask the run to save and end after this step (a signal handler)."""
        self.stopped = True

    @property
    def progress(self) -> float:
        """How much of the budget is spent, 0 to 1."""
        return self.step / self.options.steps if self.options.steps else self.seconds / 60 / self.options.minutes

    def save(self) -> None:
        """Write everything that a resumed run needs, at once or not at all."""
        state = {
            "shape": self.model.shape.to_dict(), "model": self.model.state_dict(), "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers], "step": self.step, "tokens": self.tokens,
            "learnt": self.learnt, "seconds": self.seconds, "shards": self.shards,
        }  # fmt: skip
        draft = self.checkpoint.with_suffix(".new")
        torch.save(state, draft)
        draft.replace(self.checkpoint)

    def load(self) -> None:
        """Go on where the checkpoint stopped."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for name in ("average", "step", "tokens", "learnt", "seconds", "shards"):
            setattr(self, name, state[name])

    def begin_with(self, path: Path) -> None:
        """Weights and momenta of another run; its clock, its rate and its dialogues start anew."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average = copied(self.model)

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average of the weights follow them."""
        for name, weight in self.model.state_dict().items():
            self.average[name].lerp_(weight, 1 - self.options.average)

    def learn(self, group: list[Batch]) -> float:
        """One step over several batches; the mean loss per learnt token."""
        sizes = [int((batch.targets != IGNORED).sum()) for batch in group]
        total = sum(sizes)
        loss_sum = 0.0
        for batch, size in zip(group, sizes, strict=True):
            parts = [t.to(self.device) for t in (batch.tokens, batch.positions, batch.rows, batch.targets)]
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self.model(*parts) * (size / total)
            loss.backward()
            loss_sum += loss.item()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        scale = rate_at(self.progress, self.options.anneal)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad()
        self.follow()
        self.step += 1
        self.tokens += sum(batch.tokens.numel() for batch in group)
        self.learnt += total
        return loss_sum


def report(run: Run, progress: Progress | None, bar: Any, loss: float) -> None:
    """A bar on a terminal, a plain line elsewhere."""
    speed = run.tokens / max(run.seconds, 1e-9)
    rate = rate_at(run.progress, run.options.anneal)
    text = f"step {run.step} loss {loss:.4f} tokens {run.tokens / 1e6:.2f}M {speed:.0f}/s rate {rate:.2f}"
    if progress:
        progress.update(bar, completed=run.progress, description=text)
    elif run.step % 25 == 0:
        print(f"{run.seconds / 60:.1f} min {text}", flush=True)


def train(run: Run) -> None:
    """Learn until the budget is spent; a checkpoint every few minutes and at the end."""
    options = run.options
    spawn = multiprocessing.get_context("spawn")
    bars = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) if sys.stdout.isatty() else None
    mean, saved = 0.0, time.monotonic()
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:

        def order(number: int) -> Any:
            return pool.submit(shard, str(options.tokenizer), options.seed * 100003 + number, options.shard)

        waiting = order(run.shards)
        bar = bars.add_task("", total=1.0) if bars else None
        if bars:
            bars.start()
        while run.progress < 1 and not run.stopped:
            samples = waiting.result()
            clock = time.monotonic()
            run.shards += 1
            waiting = order(run.shards)
            group: list[Batch] = []
            for batch in batches(samples, options.batch, run.shards, options.reach):
                group.append(batch)
                if len(group) < options.accumulate:
                    continue
                loss = run.learn(group)
                group = []
                mean = loss if mean == 0 else 0.95 * mean + 0.05 * loss
                now = time.monotonic()
                run.seconds += now - clock
                clock = now
                report(run, bars, bar, mean)
                if now - saved > options.save_minutes * 60:
                    run.save()
                    saved = now
                if run.progress >= 1 or run.stopped:
                    break
        waiting.cancel()
        run.save()
        if bars:
            bars.stop()
    spent = f"{run.tokens} tokens ({run.learnt} learnt), {run.seconds / 60:.1f} min"
    print(f"done: {run.step} steps, {spent}, loss {mean:.4f}")


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a checkpoint of another run to begin with")
    parser.add_argument("--minutes", type=float, default=60, help="budget in time, unless --steps is given")
    parser.add_argument("--steps", type=int, default=0, help="budget in steps")
    parser.add_argument("--anneal", type=float, default=0.35, help="share of the budget in which the rate falls")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--average", type=float, default=0.998, help="how slowly the kept average follows the weights")
    parser.add_argument("--batch", type=int, default=2048, help="tokens per batch")
    parser.add_argument("--accumulate", type=int, default=2, help="batches per step")
    parser.add_argument("--shard", type=int, default=6000, help="dialogues made at a time")
    parser.add_argument("--reach", type=int, default=2500, help="largest gap put into positions")
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    for name, value in (
        ("width", 256),
        ("layers", 8),
        ("heads", 4),
        ("kv-heads", 2),
        ("head-dim", 64),
        ("hidden", 512),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    run = Run(options)
    signal.signal(signal.SIGTERM, run.stop)
    signal.signal(signal.SIGINT, run.stop)
    train(run)


if __name__ == "__main__":
    main()
