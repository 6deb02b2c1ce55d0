"""What a gateway costs: ORE and the LiteLLM proxy in front of one provider, beside that provider asked without them.

    python -m benchmarks.gateway [--quick] [--json] [--without-litellm]

The provider is on this machine (`benchmarks.loopback_upstream`): 20 ms to its first event, then 50 words, 5 ms apart.
Each gateway has one core to itself; provider and clients share another. Measured are, for each way through a gateway:

- added latency: every request is made twice, through the gateway and directly, half an interval apart, at a tenth of
  the rate that the gateway can sustain; what is added is the difference of the two quantiles.
- requests a second on its one core, and by the second of processor time that it used, with answers as fast as they
  come; and again by processor time with answers at their pace, which is what a model's answers are like.
- streams at the same time that keep their pace: 99.9 % of the gaps between two words are longer than the provider's by
  50 ms at most, and they come to three quarters of the answers that nothing in between would let them come to.

The direct way is measured in the same manner, with the provider as the server; it says what this machine can do.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.litellm_proxy import VERSION, LiteLLM, NotInstalled, installed
from benchmarks.loopback_upstream import FIRST, PACE, WORDS
from benchmarks.servers import Answering, Serving, alone_on, cpu_seconds
from benchmarks.stream_load import Ask, Counted, Crowd, Pairs, Took

CROWDS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400)
FINE = 0.999
"""Share of gaps that have to be short."""
PACE_KEPT = 0.75
ANSWER_SECONDS = FIRST + WORDS * PACE

CHAT = ("/v1/chat/completions", '" measured"')
RESPONSES = ("/v1/responses", '"response.output_text.delta"')


class Plan(Struct, frozen=True):
    """How long to measure. Times are in seconds."""

    pairs: int = 200
    flat_streams: int = 32
    flat_seconds: float = 8.0
    paced_streams: int = 20
    paced_seconds: float = 8.0
    crowd_seconds: float = 5.0
    warm_seconds: float = 2.0
    tries: int = 3
    """How often a crowd may try: another program on the machine must not decide."""


QUICK = Plan(pairs=60, flat_seconds=3.0, paced_seconds=3.0, crowd_seconds=3.0, warm_seconds=1.0, tries=2)


class Way(Struct, frozen=True):
    """A way to the provider: through which gateway, over which API, and under which names it has the models."""

    name: str
    gateway: str
    api: tuple[str, str]
    models: str = ""

    def ask(self, port: int, model: str) -> Ask:
        path, mark = self.api
        said: Any = {"messages": [{"role": "user", "content": "Hi"}]} if self.api is CHAT else {"input": "Hi"}
        stored = {} if self.api is CHAT else {"store": False}
        return Ask(port, path, json.dumps({"model": model + self.models, **said, **stored, "stream": True}), mark)


WAYS = (
    Way("direct: chat", "", CHAT),
    Way("direct: responses", "", RESPONSES),
    Way("ORE: responses over chat", "ORE", RESPONSES, "-over-chat"),
    Way("ORE: responses", "ORE", RESPONSES),
    Way("LiteLLM: responses over chat", "LiteLLM", RESPONSES, "-over-chat"),
    Way("LiteLLM: responses", "LiteLLM", RESPONSES),
    Way("LiteLLM: chat", "LiteLLM", CHAT),
)


class Figures(Struct, frozen=True, kw_only=True):
    """What a way came to. Latencies are in milliseconds: p50 and p99."""

    way: str
    first: tuple[float, float]
    whole: tuple[float, float]
    per_core: float
    """Requests a second on one core."""
    per_cpu: float
    """Requests by second of processor time."""
    paced_per_cpu: float
    streams: int
    bounded: bool
    """Whether as many streams as there could be were fine, so that there may be more to it."""
    failed: int


class Bench:
    """One gateway that is up, the provider behind it, and the clients."""

    def __init__(self, clients: Answering, provider: int, port: int, pid: int, plan: Plan) -> None:
        self._clients = clients
        self._provider = provider
        self._port = port
        self._pid = pid
        self._plan = plan
        self._failed = 0

    def figures(self, way: Way) -> Figures:
        plan, direct = self._plan, msgspec.structs.replace(way, models="")
        paced, flat = way.ask(self._port, "paced"), way.ask(self._port, "flat")
        self._crowd(flat, 4, plan.warm_seconds)
        counted, used = self._crowd(flat, plan.flat_streams, plan.flat_seconds)
        per_core = counted.finished / plan.flat_seconds
        took = self._took(Pairs(paced, direct.ask(self._provider, "paced"), plan.pairs, max(per_core / 10, 1.0)))
        at_pace, used_at_pace = self._crowd(paced, plan.paced_streams, plan.paced_seconds)
        streams = self._most(paced)
        return Figures(
            way=way.name,
            first=_added([one[0] for one in took.one], [other[0] for other in took.other]),
            whole=_added([one[1] for one in took.one], [other[1] for other in took.other]),
            per_core=per_core,
            per_cpu=counted.answers / used,
            paced_per_cpu=at_pace.answers / used_at_pace,
            streams=streams,
            bounded=streams == CROWDS[-1],
            failed=self._failed,
        )

    def _most(self, ask: Ask) -> int:
        """The largest crowd that keeps its pace."""
        least, most = 0, len(CROWDS)
        while least < most:
            middle = (least + most + 1) // 2
            if self._goes(ask, CROWDS[middle - 1]):
                least = middle
            else:
                most = middle - 1
        return CROWDS[least - 1] if least else 0

    def _goes(self, ask: Ask, streams: int) -> bool:
        """Whether so many streams keep their pace."""
        for _ in range(self._plan.tries):
            seconds = self._plan.crowd_seconds
            counted, _used = self._crowd(ask, streams, seconds, cut=True)
            in_pace = counted.finished >= PACE_KEPT * streams * (seconds // ANSWER_SECONDS)
            if in_pace and counted.failed == 0 and counted.stalls <= (1 - FINE) * counted.gaps:
                return True
        return False

    def _crowd(self, ask: Ask, streams: int, seconds: float, *, cut: bool = False) -> tuple[Counted, float]:
        before = cpu_seconds(self._pid)
        answer = self._clients.ask(msgspec.json.encode(Crowd(ask, streams, seconds, cut)))
        counted = msgspec.json.decode(answer, type=Counted)
        used = cpu_seconds(self._pid) - before
        self._failed += counted.failed
        _note(f"{streams} streams: {counted}, {used:.2f} s of the server's time")
        return counted, max(used, 0.01)

    def _took(self, pairs: Pairs) -> Took:
        took = msgspec.json.decode(self._clients.ask(msgspec.json.encode(pairs)), type=Took)
        self._failed += took.failed
        return took


def _added(through: list[float], direct: list[float]) -> tuple[float, float]:
    """Milliseconds at p50 and p99."""
    if min(len(through), len(direct)) < 2:
        return (float("nan"), float("nan"))
    one, other = statistics.quantiles(through, n=100), statistics.quantiles(direct, n=100)
    return ((one[49] - other[49]) * 1000, (one[98] - other[98]) * 1000)


@contextmanager
def gateway(name: str, folder: Path, provider: int, litellm: Path | None) -> Iterator[tuple[int, int]]:
    """Port and process of a gateway on this core; without a name, of another provider."""
    with ExitStack() as stack:
        if name == "LiteLLM":
            assert litellm is not None
            proxy = stack.enter_context(LiteLLM(litellm, folder, provider))
            yield proxy.port, proxy.pid
        elif name == "ORE":
            server = stack.enter_context(Serving(folder, behind_ore(provider)))
            yield server.port, server.pid
        else:
            direct = stack.enter_context(Answering("benchmarks.loopback_upstream"))
            yield int(direct.read()), direct.pid


def behind_ore(port: int) -> str:
    """Settings of an ORE that has the provider twice, once for each dialect that it speaks, and no model of its own."""
    providers = "".join(
        f"[providers.{kind}]\nkind = '{kind}'\nbase_url = 'http://127.0.0.1:{port}/v1'\nmax_concurrent = 4096\n"
        for kind in ("chat_completions", "responses")
    )
    aliases = "".join(
        f"[models.{name}{suffix}]\ntargets = ['{kind}/{name}']\n"
        for name in ("paced", "flat")
        for suffix, kind in (("", "responses"), ("-over-chat", "chat_completions"))
    )
    return providers + aliases


def measure(ways: list[Way], plan: Plan, litellm: Path | None) -> list[Figures]:
    own, shared = _cores()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        with alone_on(shared):
            provider = int(stack.enter_context(Answering("benchmarks.loopback_upstream")).read())
            clients = stack.enter_context(Answering("benchmarks.stream_load"))
        figures = []
        for name in dict.fromkeys(way.gateway for way in ways):
            with ExitStack() as up:
                with alone_on(own):
                    port, pid = up.enter_context(gateway(name, Path(folder), provider, litellm))
                for way in ways:
                    if way.gateway == name:
                        _note(way.name)
                        figures.append(Bench(clients, provider, port, pid, plan).figures(way))
        return figures


def _cores() -> tuple[int, int]:
    """One core for what is measured, and one for everything else."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise click.UsageError("This needs two processor cores: one for the gateway, one for everything else.")
    return cores[0], cores[1]


def _note(line: str) -> None:
    if sys.stderr.isatty() or os.environ.get("BENCHMARK_NOTES"):
        print(line, file=sys.stderr, flush=True)


def table(figures: list[Figures]) -> Table:
    """The figures, and ratios of requests by processor time to the direct way, and to the better of LiteLLM's."""
    shown = Table(title="Added milliseconds, requests, and ratios of requests by processor time, answers at their pace")
    shown.add_column("way")
    for heading in _HEADINGS:
        shown.add_column(heading, justify="right")
    direct = max((each.paced_per_cpu for each in figures if each.way.startswith("direct")), default=0.0)
    other = max((each.paced_per_cpu for each in figures if each.way.startswith("LiteLLM")), default=0.0)
    for each in figures:
        shown.add_row(
            each.way,
            *(f"{milliseconds:.1f}" for milliseconds in (*each.first, *each.whole)),
            *(f"{requests:.0f}" for requests in (each.per_core, each.per_cpu, each.paced_per_cpu)),
            f"{each.streams}{'+' if each.bounded else ''}",
            f"{each.paced_per_cpu / direct:.3f}" if direct else "",
            f"{each.paced_per_cpu / other:.2f}" if other else "",
        )
    return shown


_HEADINGS = (
    "first\np50",
    "word\np99",
    "whole\np50",
    "\np99",
    "req/s\na core",
    "req by\nCPU s",
    "at\npace",
    "streams\nin pace",
    "to\ndirect",
    "to\nLiteLLM",
)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A short run, for a first look.")
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON instead of a table.")
@click.option("--without-litellm", is_flag=True)
@click.option("--litellm", "version", default=VERSION, show_default=True, help="The version to compare with.")
@click.option("--only", default="", help="Only ways whose name contains this.")
def main(quick: bool, as_json: bool, without_litellm: bool, version: str, only: str) -> None:
    litellm = None
    if not without_litellm:
        try:
            litellm = installed(version)
        except NotInstalled as problem:
            print(f"LiteLLM is left out, for it could not be installed: {problem}", file=sys.stderr)
    ways = [way for way in WAYS if only in way.name and (litellm is not None or way.gateway != "LiteLLM")]
    figures = measure(ways, QUICK if quick else Plan(), litellm)
    if as_json:
        print(msgspec.json.encode(figures).decode())
    else:
        Console(width=max(110, Console().width)).print(table(figures))
    if failed := sum(each.failed for each in figures):
        print(f"{failed} requests failed", file=sys.stderr)


if __name__ == "__main__":
    main()
