"""Prove that llama.cpp cuts texts into the tokens that an exported ore-tiny was trained on.

Dialogues as they are rendered, and random Unicode; it stops at the first difference. That ORE renders the prompts that
were trained on is not looked at here: `tests/backends/test_ore_tiny.py` holds it.
"""

from __future__ import annotations

import argparse
import json
import random
import urllib.request
from pathlib import Path

import xllamacpp
from tokenizers import Tokenizer

from generate import make, render

RANGES = ((32, 126), (32, 126), (9, 10), (32, 32), (160, 0x2FF), (0x370, 0x9FFF), (0x1F300, 0x1F6FF))


def tokens_of(address: str, text: str) -> list[int]:
    """llama.cpp's tokens of a text."""
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = urllib.request.Request(f"{address}/tokenize", body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as http_response:  # noqa: S310  (our own server)
        return list(json.load(http_response)["tokens"])


def main() -> None:
    """Check a file against its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500, help="dialogues, and random texts")
    options = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.n_ctx, params.n_parallel, params.port, params.warmup, params.verbosity = 256, 1, 0, False, 1
    engine, ours = xllamacpp.Server(params), Tokenizer.from_file(str(options.tokenizer))
    rng = random.Random(99)
    examples = [make(rng, unseen=n % 2 == 1) for n in range(options.count)]
    texts = [render(example.messages, example.tools) for example in examples]
    texts += [
        "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 40))) for _ in range(options.count)
    ]
    for text in texts:
        theirs = tokens_of(engine.listening_address, text)
        if theirs != ours.encode(text).ids:
            raise SystemExit(f"tokens differ: {text!r}\n{theirs}\n{ours.encode(text).ids}")
    print(f"tokens are the same in {options.count} dialogues and {options.count} random texts")


if __name__ == "__main__":
    main()
