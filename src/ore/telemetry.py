"""What the operator sees: log records and metrics, by names that stay the same. Never the content of requests.

Every name of a field or a metric lives here, so that a renaming touches one file.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from prometheus_client import Metric

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""The id of the request that this task works for; empty outside of one."""

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure_logging(level: str, style: str) -> None:
    """Send records to stderr: `text` lines for people, or one `json` object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ore").setLevel(LEVELS[level])


_VISIBLE: Final = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160))}
"""Characters that would end a line, or tell a terminal something."""


class TextFormatter(logging.Formatter):
    """`12:30:00 WARNING ore.runs: message [req_...]`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record).translate(_VISIBLE)  # a client's name for a model may be in it

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        request_id = current_request_id.get()
        return f"{line} [{request_id}]" if request_id else line


class JSONFormatter(logging.Formatter):
    """`time` (RFC 3339, UTC), `level`, `logger`, `message`, `request_id` and `exception`, where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := current_request_id.get():
            fields["request_id"] = request_id
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


class Metrics:
    """The numbers of one server, in its own registry. Labels are the operator's names, never a client's."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram  # `ore --help` does not need it

        self._registry = CollectorRegistry()
        answered = ("ore_route_answers", "Answers begun by a target.", ("model", "target"))
        failed = ("ore_route_failures", "Failures of a target, by their code.", ("model", "target", "code"))
        passed = ("ore_route_passed_over", "Times a target was passed over.", ("model", "target", "reason"))
        cached = ("ore_cache_lookups", "Lookups in the response cache.", ("outcome",))
        inputs = ("ore_embedded_inputs", "Inputs whose embeddings were made.", ("target",))
        tokens = ("ore_embedded_tokens", "Tokens of those inputs.", ("target",))
        self.embedded_inputs = Counter(*inputs, registry=self._registry)
        self.embedded_tokens = Counter(*tokens, registry=self._registry)
        self.answers = Counter(*answered, registry=self._registry)
        self.failures = Counter(*failed, registry=self._registry)
        self.passed_over = Counter(*passed, registry=self._registry)
        self.cache_lookups = Counter(*cached, registry=self._registry)
        self.first_delta = Histogram(
            "ore_target_first_delta_seconds",
            "Seconds from asking a target to its first word, without the wait in its queue.",
            ("target",),
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self._registry,
        )

    def count_resting(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Whom to ask, whenever metrics are read, how many targets are left alone by then. Once for each server."""
        self._registry.register(_Resting(count))

    def exposition(self) -> bytes:
        """All of them in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _Resting:
    """A gauge without a memory: a pause that is over ends by itself, and nobody is told."""

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        gauge = GaugeMetricFamily("ore_breaker_open", "Targets that are left alone right now.", labels=("target",))
        for label, resting in self._count().items():
            gauge.add_metric((label,), resting)
        yield gauge


METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
