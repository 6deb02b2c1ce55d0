"""Judge an exported ore-tiny on held-out dialogues, through a real `ore serve`: what users of ORE get, is measured.

Greedy decoding. Calls and JSON are constrained as ORE constrains them. A turn counts only if it is wholly right: the
same text, the same functions with the same arguments, the same JSON. It refuses to train and to look at the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemas
from generate import SKILLS, make

Message = dict[str, Any]
TALKS = ("talk", "ore", "echo", "counting", "unknown", "attachment", "persona", "instruction", "language", "system")
CALLS = ("call, one function", "call, 2 functions", "call, 3+ functions", "call, parallel")
SUMS = {"tool calling": CALLS, "schema filling": ("schema",), "two-turn recall": ("memory",)}
"""The rows that issue 5 asks for, and the rows that they are summed of."""
CLIENTS = 4
LONGEST = 300
"""Tokens of an answer, at most."""


class Server:
    """`with Server(model) as server`: an `ore serve` of that file, asked over HTTP."""

    def __init__(self, model: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        command = [sys.executable, "-m", "ore", "serve", str(model.absolute()), "--port", "0"]
        command += ["--data-dir", self._folder.name, "--log-level", "error"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self._folder.name)

    def __enter__(self) -> Server:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.match(r"URL\s+(\S+)", line):
                self._url = found[1]
                return self
        raise SystemExit("ore serve did not start; its own message stands above.")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def answer(self, turn: Turn) -> Message:
        """The assistant's message to a turn, in the generator's shape; empty when the engine failed on it."""
        body = {**request_of(turn.before, turn.tools), "temperature": 0, "max_output_tokens": LONGEST, "store": False}
        request = urllib.request.Request(  # noqa: S310  (our own server)
            f"{self._url}/responses", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as http_response:  # noqa: S310
                return message_of(json.load(http_response)["output"])
        except urllib.error.HTTPError as error:
            raise SystemExit(f"ORE refused a dialogue: {error.read().decode()}\n{body}") from error


@dataclass(frozen=True)
class Turn:
    """What came before, and the right answer. `kind` is the row of the table that the turn counts for."""

    kind: str
    before: list[Message]
    tools: list[dict[str, Any]]
    wanted: Message


def request_of(messages: list[Message], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """A dialogue as the body of a create request. The schema that a system message carries becomes `text.format`."""
    request: dict[str, Any] = {"input": list(items_of(messages))}
    if tools:
        request["tools"] = [{"type": "function", **tool["function"]} for tool in tools]
    first = messages[0]
    if first["role"] == "system" and schemas.MARK in first["content"]:
        instructions, _, schema = first["content"].partition(schemas.MARK)
        request["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": json.loads(schema)}}
        request["input"].pop(0)
        request |= {"instructions": instructions.rstrip("\n")} if instructions else {}
    return request


def items_of(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """Chat messages as items. The generator's calls have no ids; their results come in their order."""
    made, answered = 0, 0
    for message in messages:
        if message["role"] == "tool":
            yield {"type": "function_call_output", "call_id": f"call_{answered}", "output": message["content"]}
            answered += 1
            continue
        if message["content"] or not message.get("tool_calls"):
            yield {"type": "message", "role": message["role"], "content": message["content"]}
        for call in message.get("tool_calls") or []:
            yield {"type": "function_call", "call_id": f"call_{made}", **call["function"]}
            made += 1


def message_of(output: list[dict[str, Any]]) -> Message:
    """The items of a response as a chat message."""
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = [{"function": item} for item in output if item["type"] == "function_call"]
    return {"content": "".join(texts), "tool_calls": calls}


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """The calls of a message, comparable; arguments that were cut off stay text."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return [(call["name"], parsed(call["arguments"])) for call in calls]


def parsed(value: Any) -> Any:
    """The value of a JSON text; anything else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def same(kind: str, wanted: Message, got: Message) -> bool:
    """Whether an answer is wholly right."""
    if kind.startswith("schema"):
        return bool(parsed(got["content"]) == parsed(wanted["content"]))
    if calls_of(wanted) or calls_of(got):
        return calls_of(wanted) == calls_of(got)
    return bool(got["content"].strip() == wanted["content"].strip())


def turns(skill: str, seed: int, count: int) -> Iterator[Turn]:
    """Assistant turns of held-out dialogues: `count` of a skill, but `count` of each kind of call."""
    rng = random.Random(f"{seed}/{skill}")
    wanted = dict.fromkeys(CALLS, count) if skill == "call" else {"": count}
    while any(wanted.values()):
        example = make(rng, unseen=True, skill=skill)
        at = [i for i, m in enumerate(example.messages) if m["role"] == "assistant"]
        if skill in ("memory", "result", *TALKS):
            at = at[-1:]
        for i in at:
            kind = kind_of(skill, example.messages, i, example.tools)
            quota = kind if skill == "call" else ""
            if wanted.get(quota):
                wanted[quota] -= 1
                yield Turn(kind, example.messages[:i], example.tools, example.messages[i])


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


def evaluate(server: Server, count: int, seed: int, show: int) -> dict[str, dict[str, Any]]:
    """Counts by kind of turn."""
    rows: dict[str, dict[str, Any]] = defaultdict(lambda: {"n": 0, "right": 0})
    with ThreadPoolExecutor(CLIENTS) as pool:
        for skill in SKILLS:
            shown = 0
            asked = list(turns(skill, seed, count))
            for turn, got in zip(asked, pool.map(server.answer, asked), strict=True):
                right = same(turn.kind, turn.wanted, got)
                row = rows[turn.kind]
                row["n"] += 1
                row["right"] += right
                names = [name for name, _ in calls_of(turn.wanted)]
                if names:
                    row["function"] = row.get("function", 0) + (names == [name for name, _ in calls_of(got)])
                if not right and shown < show:
                    shown += 1
                    print(f"{turn.kind}: {turn.before[-1]['content']!r}")
                    print(f"  wanted {calls_of(turn.wanted) or turn.wanted['content']!r}")
                    print(f"  got    {calls_of(got) or got['content']!r}")
    return dict(rows)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The result as a Markdown table."""
    lines = ["| skill | n | right % | right function % |", "| --- | ---: | ---: | ---: |"]
    lines += [line(kind, row) for kind, row in rows.items()]
    lines += [line(f"**{name}**", total([rows[kind] for kind in kinds])) for name, kinds in SUMS.items()]
    return "\n".join([*lines, line("all", {**total(list(rows.values())), "function": 0})])


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Several rows as one."""
    names = {name for row in rows for name in row}
    return {name: sum(row.get(name, 0) for row in rows) for name in names}


def line(kind: str, row: dict[str, Any]) -> str:
    """A row of the table; the right functions only where calls were wanted."""
    function = f"{100 * row['function'] / row['n']:.1f}" if row.get("function") else ""
    return f"| {kind} | {row['n']} | {100 * row['right'] / row['n']:.1f} | {function} |"


def main() -> None:
    """Evaluate a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60, help="turns of each skill, and of each kind of call")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers of each skill")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    start = time.monotonic()
    with Server(options.model) as server:
        text = table(evaluate(server, options.count, options.seed, options.show))
    print(f"{text}\n{time.monotonic() - start:.0f} s")
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
