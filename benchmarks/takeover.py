"""Kill -9 in the middle of a background stream, start again, and look whether anybody can tell.

    python -m benchmarks.takeover [--seeds N] [--first SEED] [--folder FOLDER]

Each seed asks a scripted model that thinks, talks, calls a tool that may be repeated, talks, calls one that may not,
and answers, as one background response that is streamed. The server is killed after a number of events drawn by
chance, and started again. The client comes back with the number of its last event, and follows to the end. Then:

    I1  what was acknowledged is there     I2  the response has ended, once
    I3  the client's events have no gap, and are those that are stored, byte for byte
    I4  no call whose outcome was shown is made again; one whose outcome was not, once at most, and only if it may be
    I5  the stream ended with a terminal event

It prints a line of progress, then one table of outcomes; the exit status is 1 when an invariant did not hold.
"""

import argparse
import http.client
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

SCRIPTED = Path(__file__).parents[1] / "tests" / "processes" / "scripted_serve.py"
DEADLINE = 60.0
CALL_SECONDS = 0.03
"""About as long as a call takes, and what comes right after it."""
EVENTS = 55
"""About as many as an undisturbed stream has."""
BODY = {
    "model": "agent",
    "input": "Use both.",
    "background": True,
    "stream": True,
    "tools": [{"type": "test:again"}, {"type": "test:once"}],
}
PHASES = {
    "response.created": "before the first turn",
    "response.queued": "before the first turn",
    "response.in_progress": "before the first turn",
    0: "first turn",
    1: "first turn",
    2: "first call",
    3: "second turn",
    4: "second call",
    5: "last turn",
}
"""Where a stream was, by the type or by the output index of the last event that the client had."""


class Seen(msgspec.Struct, frozen=True):
    """An event as a client had it: its type, its number, the bytes of its data."""

    type: str
    number: int
    data: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.data)


class Life:
    """One life of a scripted server over `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        anything, settings = folder / "any.gguf", folder / "empty.toml"
        anything.touch()
        settings.touch()
        self.journal = folder / "journal"
        command = [sys.executable, str(SCRIPTED), "serve", str(anything), "--port", "0", "--config", str(settings)]
        command += ["--data-dir", str(folder / "data")]
        environ = {**os.environ, "SCRIPTED_JOURNAL": str(self.journal)}
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environ)
        assert self.process.stdout is not None
        said = b""
        while not (found := re.search(rb"127\.0\.0\.1:\d+", said)):
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server did not start; its log is {folder / 'log'}")
            said += line
        self.address = found[0].decode()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stream(self, method: str, path: str, body: Any = None) -> Iterator[Seen]:
        """The events of a stream. Raises `http.client.HTTPException` or `OSError` when it breaks off."""
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE)
        try:
            sent = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, sent, {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path} gave {answer.status}: {answer.read()!r}")
            for line in answer:
                if line.startswith(b"data: {"):
                    data = line[6:].rstrip(b"\n")
                    event = msgspec.json.decode(data)
                    yield Seen(event["type"], event["sequence_number"], data)
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(self.address, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            return msgspec.json.decode(connection.getresponse().read())
        finally:
            connection.close()


class Outcome(msgspec.Struct, frozen=True):
    """What came of one seed."""

    phase: str
    status: str
    repeated: int
    """Calls that were begun twice."""
    unknown: int
    """Calls of which nobody knows the outcome, and which were not repeated."""
    broken: tuple[str, ...]
    """Invariants that did not hold, in words."""


def trial(life: Life, folder: Path, seed: int) -> tuple[Outcome, Life]:
    """One response, killed and taken up; the server that took it up lives on."""
    dice = random.Random(seed)
    life.journal.write_text("")
    seen = _killed(life, dice)
    before = _begun(life.journal)
    life = Life(folder)
    response_id = seen[0].body["response"]["id"]
    path = f"/v1/responses/{response_id}?stream=true"
    rest = list(life.stream("GET", f"{path}&starting_after={seen[-1].number}"))
    kept = list(life.stream("GET", path))
    final = life.get(f"/v1/responses/{response_id}")
    begun = _begun(life.journal)
    calls = [item for item in final["output"] if item["type"].startswith("test:")]
    broken = (*_stream_problems(seen, rest, kept, final), *_call_problems(seen, begun, before, calls))
    return (
        Outcome(
            phase=_phase(seen[-1]),
            status=final["status"],
            repeated=sum(1 for count in begun.values() if count > 1),
            unknown=sum(1 for call in calls if call["status"] == "failed"),
            broken=broken,
        ),
        life,
    )


def _killed(life: Life, dice: random.Random) -> list[Seen]:
    """What the client has of a stream whose server is killed: at some event, or some moment after a call began."""
    at_call, count = dice.choice((None, None, "call_again", "call_once")), dice.randint(1, EVENTS)
    moment = dice.uniform(0, CALL_SECONDS)
    seen: list[Seen] = []
    try:
        for event in life.stream("POST", "/v1/responses", BODY):
            seen.append(event)
            if at_call is not None and event.type == "response.output_item.added" and at_call in event.data.decode():
                time.sleep(moment)
                life.kill()
            elif at_call is None and len(seen) == count:
                life.kill()
    except (OSError, http.client.HTTPException):
        pass
    if life.process.poll() is None:
        life.kill()
    return seen


def _begun(journal: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in journal.read_text().splitlines() if line.endswith("begins"))


def _stream_problems(seen: list[Seen], rest: list[Seen], kept: list[Seen], final: Any) -> Iterator[str]:
    whole = [*seen, *rest]
    if [event.number for event in whole] != list(range(len(whole))):
        yield "I3: a gap in what the client has"
    if [event.data for event in whole] != [event.data for event in kept]:
        yield "I3: the client has other events than the store"
    ends = [event for event in whole if event.type in ("response.completed", "response.incomplete", "response.failed")]
    if [event.number for event in ends] != [len(whole) - 1]:
        yield "I5: the stream did not end with one terminal event"
    elif ends[0].body["response"] != final:
        yield "I1: the stored response is not what the terminal event said"
    if final["status"] != "completed" and (final["error"] or {}).get("code") != "server_error":
        yield f"I2: it ended {final['status']}"


def _call_problems(seen: list[Seen], begun: Counter[str], before: Counter[str], calls: list[Any]) -> Iterator[str]:
    shown = {event.body["item"].get("call_id") for event in seen if event.type == "response.output_item.done"}
    for call_id, count in begun.items():
        if call_id in shown and count > before[call_id]:
            yield f"I4: {call_id} was over, and was made again"
        if count > (2 if call_id == "call_again" else 1):
            yield f"I4: {call_id} was made {count} times"
    if len(calls) != len({call["call_id"] for call in calls}):
        yield "I4: a call has two receipts"


def _phase(last: Seen) -> str:
    return PHASES.get(last.body.get("output_index", last.type), "after the end")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    began, outcomes = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        life = Life(folder)
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            outcome, life = trial(life, folder, seed)
            outcomes.append(outcome)
            for problem in outcome.broken:
                print(f"seed {seed}: {problem}")
            if sys.stderr.isatty():
                print(f"\r{len(outcomes)} of {chosen.seeds}", end="", file=sys.stderr, flush=True)
        life.kill()
    print(file=sys.stderr)
    _print(outcomes, time.perf_counter() - began)
    sys.exit(any(outcome.broken for outcome in outcomes))


def _print(outcomes: list[Outcome], seconds: float) -> None:
    table = Table(title=f"{len(outcomes)} background streams, each killed once and taken up ({seconds:.0f} s)")
    for heading in (
        "killed in",
        "times",
        "completed",
        "failed",
        "calls repeated",
        "calls unknown",
        "invariants broken",
    ):
        table.add_column(heading, justify="left" if heading == "killed in" else "right")
    for phase in dict.fromkeys([*PHASES.values(), "after the end"]):
        rows = [outcome for outcome in outcomes if outcome.phase == phase]
        statuses = Counter(outcome.status for outcome in rows)
        table.add_row(
            phase,
            *map(str, (len(rows), statuses["completed"], statuses["failed"])),
            *map(str, (sum(row.repeated for row in rows), sum(row.unknown for row in rows))),
            str(sum(bool(row.broken) for row in rows)),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
