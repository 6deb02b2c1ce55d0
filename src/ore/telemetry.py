"""What the operator sees: log records, by fields that stay the same. Never the content of requests.

Names of metrics and spans will live here too, so that a renaming touches one file.
"""

import logging
import sys
import time
from contextvars import ContextVar
from typing import Final

import msgspec

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


class TextFormatter(logging.Formatter):
    """`12:30:00 WARNING ore.runs: message [req_...]`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

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
