"""Kill -9 in the moment a response was returned, start again, and look whether it is there.

    python -m benchmarks.durability [--repetitions N] [--clients N] [--folder FOLDER] [--seed N]

Each repetition starts `ore serve` on the folder of the one before and lets some clients create responses with the
bundled model, half of them streaming, half waiting, again and again. At a moment drawn by chance one of them kills the
server, right after the last byte of its own response arrived: of the body, or of the terminal event. Then all that any
client had in its hands by then is fetched from a new server, and has to be the same, byte for byte. What was on the way
when the server died was acknowledged to nobody, and is not counted.

It prints a line of progress, then one table; the exit status is 1 when anything was lost or differs.

A killed process loses nothing that it gave to the operating system: this measures that no answer leaves before its
commit, and that the store opens after any end. That the disk is told to keep each commit (`synchronous=FULL`) is for
tests/stores to show; what a disk does when the power goes, nothing here can.
"""

import argparse
import http.client
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

MODEL = "ore-tiny"
LONGEST = 16
"""Tokens of an answer, at most: what is measured is the end of answers, not their length."""
PROMPTS = ("Hello!", "What is ORE?", "Count from 1 to 5.", "Name three colors.")
MOST_TURNS = 4
"""Responses that a client gets before it may kill the server, at most."""
DEADLINE = 60.0
"""Seconds after which a server or a client that has not answered never will."""


class Acknowledged(msgspec.Struct):
    """A response as a client had it in its hands."""

    way: str
    body: bytes

    @property
    def id(self) -> str:
        return str(msgspec.json.decode(self.body)["id"])


class Server:
    """An `ore serve` over a folder, and the seconds from its start until it was ready."""

    def __init__(self, folder: Path, log: Path) -> None:
        began = time.perf_counter()
        settings = log.with_name("empty.toml")
        settings.touch()
        command = [sys.executable, "-m", "ore", "serve", "--port", "0", "--data-dir", str(folder)]
        command += ["--config", str(settings)]
        environ = {**os.environ, "TMPDIR": str(log.parent)}  # what the killed leave behind
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ)
        assert self.process.stdout is not None
        said = b""
        while not (found := re.search(rb"http://127\.0\.0\.1:\d+", said)):
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"The server did not start; its log is {log}:\n{log.read_text()[-2000:]}")
            said += line
        self.address = urlsplit(found[0].decode()).netloc
        assert self._get("/readyz")[0] == 200
        self.start_seconds = time.perf_counter() - began

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        self.kill()
        self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stored(self, response_id: str) -> bytes | None:
        """What is kept of a response; None when it is not found."""
        status, body = self._get(f"/v1/responses/{response_id}")
        if status not in (200, 404):
            sys.exit(f"GET of {response_id} gave {status}: {body!r}")
        return body if status == 200 else None

    def _get(self, path: str) -> tuple[int, bytes]:
        with connected(self.address) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextmanager
def connected(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    try:
        yield connection
    finally:
        connection.close()


def create(address: str, prompt: str, way: str) -> bytes:
    """The response's bytes in the moment the last one came: of the body, or of the terminal event's line."""
    sent = {"model": MODEL, "input": prompt, "max_output_tokens": LONGEST, "stream": way == "stream"}
    body = msgspec.json.encode(sent)
    with connected(address) as connection:
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            sys.exit(f"POST gave {answer.status}: {answer.read()!r}")
        if way == "wait":
            return answer.read()
        for line in answer:
            if line.startswith((b'data: {"type":"response.completed"', b'data: {"type":"response.incomplete"')):
                return line.rpartition(b',"sequence_number":')[0].partition(b'"response":')[2]
    raise ConnectionResetError("the stream ended without a terminal event")


def repeat(folder: Path, log: Path, clients: int, dice: random.Random) -> tuple[list[Acknowledged], float]:
    """One life of a server: what was acknowledged before it was killed, and how long it took to start."""
    server = Server(folder, log)
    dead = threading.Event()
    acknowledged: list[Acknowledged] = []
    killer, turn = dice.randrange(clients), dice.randint(1, MOST_TURNS)
    prompts = [dice.choice(PROMPTS) for _ in range(clients)]

    def talk(number: int) -> None:
        way = "stream" if number % 2 else "wait"
        turns = 0
        while not dead.is_set():
            try:
                body = create(server.address, prompts[number], way)
            except (OSError, http.client.HTTPException):
                if not dead.is_set():
                    sys.exit("A client lost its connection before the server was killed.")
                return
            turns += 1
            if number == killer and turns == turn:
                dead.set()
                server.kill()
            acknowledged.append(Acknowledged(way, body))

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    if not dead.is_set():
        sys.exit(f"No client got so far as to kill the server; its log is {log}.")
    server.end()
    return acknowledged, server.start_seconds


def judge(server: Server, acknowledged: list[Acknowledged], outcomes: Counter[tuple[str, str]]) -> None:
    """Count what became of each response."""
    for response in acknowledged:
        stored = server.stored(response.id)
        outcome = "lost" if stored is None else "kept" if stored == response.body else "changed"
        outcomes[response.way, outcome] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200, help="how often the server is killed (default: 200)")
    parser.add_argument("--clients", type=int, default=4, help="clients at the same time (default: 4)")
    parser.add_argument("--folder", type=Path, help="where the data goes (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=0, help="what the moments of death are drawn from (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return measure(Path(folder), options.repetitions, options.clients, random.Random(options.seed))


def measure(folder: Path, repetitions: int, clients: int, dice: random.Random) -> int:
    data, log = folder / "data", folder / "server.log"
    outcomes: Counter[tuple[str, str]] = Counter()
    starts: list[float] = []
    everything: list[Acknowledged] = []
    for number in range(repetitions):
        acknowledged, seconds = repeat(data, log, clients, dice)
        starts.append(seconds)
        everything += acknowledged
        line = f"{number + 1} of {repetitions} kills, {len(everything)} responses"
        if sys.stderr.isatty():
            print(f"\r{line}", end="" if number + 1 < repetitions else "\n", file=sys.stderr)
        elif number % 20 == 19:
            print(line, file=sys.stderr)
    server = Server(data, log)
    judge(server, everything, outcomes)
    server.end()
    return report(repetitions, outcomes, [*starts[1:], server.start_seconds])


def report(repetitions: int, outcomes: Counter[tuple[str, str]], starts: list[float]) -> int:
    print(f"{repetitions} times kill -9, {outcomes.total()} responses returned before")
    print(f"{'':12}{'waiting':>10}{'streamed':>10}{'all':>10}")
    for outcome in ("kept", "changed", "lost"):
        waiting, streamed = outcomes["wait", outcome], outcomes["stream", outcome]
        print(f"{outcome:12}{waiting:>10}{streamed:>10}{waiting + streamed:>10}")
    print(f"start after a kill until ready: median {statistics.median(starts):.2f} s, slowest {max(starts):.2f} s")
    bad = outcomes.total() - outcomes["wait", "kept"] - outcomes["stream", "kept"]
    return 1 if bad or not outcomes.total() else 0


if __name__ == "__main__":
    sys.exit(main())
