"""Judge an exported ore-tiny on held-out dialogues, through llama.cpp as ORE runs it.

Greedy decoding. Calls and JSON are constrained as the engine constrains them. A turn counts only if it is wholly
right: the same text, the same functions with the same arguments, the same JSON. It refuses to train and to look at
the checkpoint. `--check` proves instead that llama.cpp's rendering and tokens equal those of the training.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xllamacpp
from tokenizers import Tokenizer

import schemas
from generate import SKILLS, make, render

Message = dict[str, Any]
TALKS = ("talk", "ore", "echo", "counting", "unknown", "attachment", "persona", "instruction", "language", "system")


class Engine:
    """llama.cpp's server in this process, asked over its loopback port."""

    def __init__(self, model: Path, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel, params.port, params.warmup = 4096, 1, 0, False
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.use_jinja = True
        params.cache_ram_mib = 0
        self.server = xllamacpp.Server(params)

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """POST a JSON body, return the JSON answer."""
        request = urllib.request.Request(  # noqa: S310  (our own server)
            self.server.listening_address + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as http_response:  # noqa: S310
            return json.load(http_response)

    def complete(self, messages: list[Message], tools: list[dict[str, Any]], schema: Any) -> Message:
        """The assistant's message after these messages."""
        body: dict[str, Any] = {"messages": messages, "temperature": 0, "max_tokens": 300}
        if tools:
            body |= {"tools": tools, "parallel_tool_calls": True}
        if schema:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return dict(self.ask("/v1/chat/completions", body)["choices"][0]["message"])


def schema_of(messages: list[Message]) -> Any:
    """The schema that the system message carries, if any."""
    if messages[0]["role"] == "system" and schemas.MARK in messages[0]["content"]:
        return json.loads(messages[0]["content"].split(schemas.MARK)[1])
    return None


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """The calls of a message, comparable; arguments that were cut off stay text."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return [(call["name"], parsed(call["arguments"] or "{}")) for call in calls]


def parsed(text: str) -> Any:
    """The value of a JSON text, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def same(kind: str, wanted: Message, got: Message) -> bool:
    """Whether an answer is wholly right."""
    if kind.startswith("schema"):
        try:
            return bool(json.loads(got["content"]) == json.loads(wanted["content"]))
        except ValueError:
            return False
    if calls_of(wanted) or calls_of(got):
        return calls_of(wanted) == calls_of(got)
    return bool((got.get("content") or "").strip() == wanted["content"].strip())


def turns(skill: str, seed: int, count: int) -> Iterator[tuple[str, list[Message], list[dict[str, Any]], Message]]:
    """Assistant turns of held-out dialogues: kind, what came before, the tools, the right answer."""
    rng = random.Random(f"{seed}/{skill}")
    made = 0
    while made < count:
        example = make(rng, unseen=True, skill=skill)
        at = [i for i, m in enumerate(example.messages) if m["role"] == "assistant"]
        if skill in ("memory", "result", *TALKS):
            at = at[-1:]
        for i in at:
            message = example.messages[i]
            yield kind_of(skill, example.messages, i, example.tools), example.messages[:i], example.tools, message
            made += 1


def kind_of(skill: str, messages: list[Message], at: int, tools: list[Any]) -> str:
    """The row of the table that a turn counts for."""
    if messages[at].get("tool_calls"):
        if len(messages[at]["tool_calls"]) > 1:
            return "call, parallel"
        return ("call, one function", "call, 2 functions", "call, 3+ functions")[min(len(tools), 3) - 1]
    if messages[at - 1]["role"] == "tool":
        return "answer from a result"
    if tools:
        return "no call needed"
    return skill


def evaluate(engine: Engine, count: int, seed: int, show: int) -> dict[str, dict[str, Any]]:
    """Counts by kind of turn."""
    rows: dict[str, dict[str, Any]] = defaultdict(lambda: {"n": 0, "right": 0})
    for skill in SKILLS:
        shown = 0
        for kind, before, tools, wanted in turns(skill, seed, count):
            got = engine.complete(before, tools, schema_of(before))
            right = same(kind, wanted, got)
            rows[kind]["n"] += 1
            rows[kind]["right"] += right
            names = [name for name, _ in calls_of(wanted)]
            if names:
                rows[kind]["function"] = rows[kind].get("function", 0) + (names == [name for name, _ in calls_of(got)])
            if not right and shown < show:
                shown += 1
                print(f"{kind}: {before[-1]['content']!r}")
                print(f"  wanted {calls_of(wanted) or wanted['content']!r}")
                print(f"  got    {calls_of(got) or got.get('content')!r}")
    return dict(rows)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The result as a Markdown table."""
    lines = ["| skill | n | right % | right function % |", "| --- | ---: | ---: | ---: |"]
    for kind, row in rows.items():
        function = f"{100 * row['function'] / row['n']:.0f}" if "function" in row else ""
        lines.append(f"| {kind} | {row['n']} | {100 * row['right'] / row['n']:.0f} | {function} |")
    n, right = sum(r["n"] for r in rows.values()), sum(r["right"] for r in rows.values())
    return "\n".join([*lines, f"| all | {n} | {100 * right / n:.1f} | |"])


def compare(engine: Engine, tokenizer: Tokenizer, text: str) -> None:
    """Stop if llama.cpp cuts a text into other tokens."""
    theirs = engine.ask("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
    if theirs != tokenizer.encode(text).ids:
        raise SystemExit(f"tokens differ: {text!r}\n{theirs}\n{tokenizer.encode(text).ids}")


def check(engine: Engine, tokenizer: Tokenizer, count: int) -> None:
    """Compare rendering and tokens of llama.cpp with those of the training; stop at the first difference."""
    rng = random.Random(99)
    for n in range(count):
        example = make(rng, unseen=n % 2 == 1)
        for end in range(1, len(example.messages) + 1):
            messages = example.messages[:end]
            if messages[-1]["role"] in ("assistant", "system"):
                continue
            ours = render(messages, example.tools, prompt=True)
            body: dict[str, Any] = {"messages": messages} | ({"tools": example.tools} if example.tools else {})
            theirs = engine.ask("/apply-template", body)["prompt"]
            if ours != theirs:
                raise SystemExit(f"rendering differs:\n{ours!r}\n{theirs!r}")
            compare(engine, tokenizer, ours)
    ranges = ((32, 126), (32, 126), (9, 10), (32, 32), (160, 0x2FF), (0x370, 0x9FFF), (0x1F300, 0x1F6FF))
    for _ in range(count):
        text = "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 40)))
        compare(engine, tokenizer, text)
    print(f"rendering and tokens are the same in {count} dialogues; tokens in {count} random texts")


def main() -> None:
    """Evaluate or check a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--check", type=Path, metavar="TOKENIZER", help="compare with this tokenizer.json")
    parser.add_argument("--count", type=int, default=60, help="turns of each skill (dialogues with --check)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers of each skill")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    engine = Engine(options.model, options.threads)
    if options.check:
        check(engine, Tokenizer.from_file(str(options.check)), options.count)
        return
    start = time.monotonic()
    text = table(evaluate(engine, options.count, options.seed, options.show))
    print(f"{text}\n{time.monotonic() - start:.0f} s")
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
