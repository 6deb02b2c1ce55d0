"""Work that may never end, in a process of its own that its own timer kills.

Clients write the JSON Schemas, and a few dozen bytes of one can keep a compiler or a validator busy for hours. Such
work is asked of a `TimedProcess`: a question is one line to it, and so is its answer, and one that takes too long has
none. `answer_lines` is the far end. It refuses to ask again, and does not know what is asked.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

WALL_LIMIT: Final = 15.0
"""Seconds after which a far end counts as stuck on a machine that gives it no processor."""
LONGEST_LINE: Final = 16 * 1024 * 1024


class TimedProcess:
    """`python -m MODULE CPU_LIMIT`, spawned when it is needed. `cpu_limit` is in seconds of processor time."""

    def __init__(self, module: str, cpu_limit: float) -> None:
        self._command = [sys.executable, "-m", module, str(cpu_limit)]
        self._turn = anyio.Lock()
        self._process: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None

    async def start(self) -> None:
        """Spawn the far end, without waiting until it is ready. `ask` does it too when there is none."""
        if self._process is None or self._process.returncode is not None:
            await self.stop()
            self._process = await anyio.open_process(self._command, stderr=subprocess.DEVNULL, start_new_session=True)
            assert self._process.stdout is not None  # noqa: S101 (a pipe is the default)
            self._answers = BufferedByteReceiveStream(self._process.stdout)

    async def stop(self) -> None:
        """End the far end. Idempotent."""
        process, self._process, self._answers = self._process, None, None
        if process is not None:
            with anyio.CancelScope(shield=True):
                send_signal(process, signal.SIGKILL)
                await process.aclose()

    async def ask(self, question: bytes) -> bytes | None:
        """The answer; None when it took too long. A question has no line ends; one is asked at a time.

        Whoever leaves takes the far end along: what it was busy with must not cost the next one its answer.
        """
        async with self._turn:
            answer = None
            try:
                with anyio.move_on_after(WALL_LIMIT):
                    await self.start()
                    answer = await self._exchange(question)
            finally:
                if answer is None:
                    await self.stop()
            return answer

    async def _exchange(self, question: bytes) -> bytes | None:
        """None when the far end died over it."""
        assert self._process is not None and self._process.stdin is not None and self._answers is not None  # noqa: S101
        try:
            await self._process.stdin.send(question + b"\n")
            return await self._answers.receive_until(b"\n", LONGEST_LINE)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead, anyio.DelimiterNotFound):
            return None


class Child(Protocol):
    """What asyncio's and anyio's processes have in common."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...


def send_signal(child: Child, number: signal.Signals) -> None:
    """Unlike `child.kill()`, this does not reap a child that has just ended, which asyncio would complain about."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)


def answer_lines(answer: Callable[[bytes], bytes]) -> None:
    """The far end's loop, until standard input ends. The timer's signal is left to kill this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = float(sys.argv[1])
    while line := sys.stdin.buffer.readline():
        signal.setitimer(signal.ITIMER_PROF, limit)
        said = answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()
