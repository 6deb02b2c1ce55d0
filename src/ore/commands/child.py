"""A server in a child process, for `ore chat` when none is running. It ends with its parent, however that ends."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ore.errors import StartupError

ORE: Final = (sys.executable, "-P", "-m", "ore")
"""The command `ore` of this installation, whatever lies in the current folder."""


@contextmanager
def child_server(arguments: Sequence[str], program: Sequence[str] = ORE) -> Iterator[str]:
    """Run `ore serve ARGUMENTS` on a free loopback port; gives its URL, and stops it at the end.

    The child has a session of its own, because Ctrl-C in the terminal cancels an answer and not the server.
    """
    command = [*program, "serve", *arguments, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(  # noqa: S603
        [*command, "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            yield _url_of(process)
        finally:
            _stop(process)


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    for line in process.stdout:
        if match := re.match(r"URL\s+(\S+)", line):
            return match[1]
    raise StartupError(
        "The server for this chat could not start; its own message stands above. One that runs is reached with --url."
    )


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
