"""Log lines for people: what a client made up cannot end one, nor speak to a terminal."""

import logging

from ore.telemetry import TextFormatter


def test_a_record_is_one_line() -> None:
    """Names of models come from clients, and are in records of routing."""
    record = logging.LogRecord(
        "ore.routing", logging.INFO, "", 0, "%s: answers", ("p/x\n\x1b[2Jore: all is well",), None
    )
    line = TextFormatter().format(record)
    assert line.endswith("p/x\\n\\x1b[2Jore: all is well: answers")
    assert len(line.splitlines()) == 1
