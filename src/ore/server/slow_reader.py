"""Hangs up on a client that does not read what it was sent.

It leaves alone whoever reads at all, however slowly, and never looks at what is sent.
"""

import array
import asyncio
import contextlib
import fcntl
import termios
from asyncio import TimerHandle


class SlowReader:
    """Watches how the client of a connection reads. `patience` is in seconds; who stalls goes after one to two."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._timer: TimerHandle | None = None

    def doubt(self) -> None:
        """More is unread than the transport likes to hold: from here on the client has to show that it reads."""
        self._watch(self._unread())

    def trust(self) -> None:
        """It has caught up, or it is gone. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, unread: int) -> None:
        self.trust()
        self._timer = self._loop.call_later(self._patience, self._judge, unread)

    def _judge(self, unread: int) -> None:
        left = self._unread()
        if left < unread:
            self._watch(left)
        else:
            self._transport.abort()

    def _unread(self) -> int:
        """Bytes that the client has not acknowledged, those in the kernel's queue too, where it tells."""
        queued = array.array("i", [0])
        with contextlib.suppress(OSError, AttributeError):
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + queued[0]
