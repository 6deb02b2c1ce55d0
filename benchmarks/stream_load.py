"""The clients of `benchmarks.gateway`, in a process of their own: many streams, and when each of their words came.

Reads one JSON line (`Pairs` or `Crowd`) from stdin for each measurement and answers with one line; ends with stdin. Raw
sockets, kept open between requests, because a client that is slower than what it measures measures itself. It looks at
no event: words are counted by a mark that stands once in each.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.loopback_upstream import PACE, WORDS

STALL = 0.050 + PACE
"""Seconds between two words of a stream from which it stalls."""

END = b"\r\n0\r\n\r\n"


class Ask(Struct, frozen=True):
    """Where to ask, what, and the mark of a word in the answer."""

    port: int
    path: str
    body: str
    mark: str

    def request(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-benchmark\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(self.body)}\r\n\r\n"
        return (head + self.body).encode()


class Pairs(Struct, frozen=True, tag=True):
    """So many times, at that rate: ask one, and half an interval later the other."""

    one: Ask
    other: Ask
    count: int
    rate: float


class Crowd(Struct, frozen=True, tag=True):
    """So many streams at the same time for so many seconds; whoever is done asks again.

    `cut`: what is not over by then is broken off, instead of waited for.
    """

    ask: Ask
    streams: int
    seconds: float
    cut: bool = False


class Took(Struct, frozen=True):
    """Of each answer, the seconds to the first word and to the end, first of `one`, then of the `other`."""

    one: list[tuple[float, float]]
    other: list[tuple[float, float]]
    failed: int


class Counted(Struct, frozen=True):
    """What a crowd came to. `finished` were so within the time, `answers` in all; `busy` is the client's own share.

    `gaps` are those between two words of a stream; `longest` is in seconds.
    """

    answers: int
    finished: int
    failed: int
    gaps: int
    stalls: int
    longest: float
    busy: float


class Stream(asyncio.Protocol):
    """One connection. `began`, `first` and `last` are when the request went out and words came."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[], None] = lambda: None
        self._tail = b""
        self.busy = False
        self.gaps = 0
        self.stalls = 0
        self.longest = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def ask(self, request: bytes, done: Callable[[], None]) -> None:
        assert self._transport is not None
        self._done = done
        self._tail = b""
        self.busy = True
        self.status = b""
        self.words = 0
        self.first = self.last = 0.0
        self.began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.status:
            self.status = data[9:12]
        joined = self._tail + data
        self._tail = joined[1 - len(self._mark) :]
        if found := joined.count(self._mark):
            if self.words:
                gap = now - self.last
                self.longest = max(self.longest, gap)
                self.stalls += gap > STALL
            else:
                self.first = now
            self.gaps += found if self.words else found - 1
            self.words += found
            self.last = now
        if joined.endswith(END):
            self.ended = now
            self._finish()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self.words = -1
            self._finish()

    def _finish(self) -> None:
        self.busy = False
        self._done()

    @property
    def good(self) -> bool:
        return self.status == b"200" and self.words == WORDS

    @property
    def open(self) -> bool:
        return self._transport is not None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connected(ask: Ask) -> Stream:
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: Stream(ask.mark.encode()), "127.0.0.1", ask.port)
    return stream


async def pairs(wanted: Pairs) -> Took:
    begun, step = time.perf_counter(), 1 / wanted.rate
    one = _Timed(wanted.one)
    other = _Timed(wanted.other)
    tasks = []
    for number in range(wanted.count):
        for timed, share in ((one, 0.0), (other, 0.5)):
            await asyncio.sleep(max(0.0, begun + (number + share) * step - time.perf_counter()))
            tasks.append(asyncio.create_task(timed.once()))
    await asyncio.gather(*tasks)
    one.close()
    other.close()
    return Took(one.took, other.took, one.failed + other.failed)


class _Timed:
    """Requests to one place, over connections that are kept."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._request = ask.request()
        self._free: list[Stream] = []
        self.took: list[tuple[float, float]] = []
        self.failed = 0

    async def once(self) -> None:
        stream = self._free.pop() if self._free and self._free[-1].open else await connected(self._ask)
        over = asyncio.Event()
        stream.ask(self._request, over.set)
        await over.wait()
        if stream.good:
            self.took.append((stream.first - stream.began, stream.ended - stream.began))
            self._free.append(stream)
        else:
            self.failed += 1
            stream.close()

    def close(self) -> None:
        for stream in self._free:
            stream.close()


async def crowd(wanted: Crowd) -> Counted:
    """Those of the crowd come one after the other within the first quarter of a second, not in step."""
    begun, used = time.perf_counter(), time.process_time()
    members = [_Member(wanted.ask, begun + wanted.seconds) for _ in range(wanted.streams)]
    timeout = wanted.seconds if wanted.cut else None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as tasks:
            for number, member in enumerate(members):
                tasks.create_task(member.go_on(0.25 * number / wanted.streams))
    streams = [stream for member in members for stream in member.streams]
    return Counted(
        answers=sum(member.answers for member in members),
        finished=sum(member.finished for member in members),
        failed=sum(member.failed for member in members),
        gaps=sum(stream.gaps for stream in streams),
        stalls=sum(stream.stalls for stream in streams),
        longest=max((stream.longest for stream in streams), default=0.0),
        busy=(time.process_time() - used) / (time.perf_counter() - begun),
    )


class _Member:
    """One of a crowd."""

    def __init__(self, ask: Ask, until: float) -> None:
        self._ask = ask
        self._until = until
        self.streams: list[Stream] = []
        self.answers = 0
        self.finished = 0
        self.failed = 0

    async def go_on(self, wait: float) -> None:
        """One answer after the other, as long as there is time."""
        await asyncio.sleep(wait)
        request = self._ask.request()
        stream = await self._connected()
        try:
            while time.perf_counter() < self._until:
                over = asyncio.Event()
                stream.ask(request, over.set)
                await over.wait()
                self.answers += stream.good
                self.finished += stream.good and time.perf_counter() <= self._until
                if not stream.good:
                    self.failed += 1
                    stream.close()
                    stream = await self._connected()
        finally:
            stream.close()

    async def _connected(self) -> Stream:
        self.streams.append(await connected(self._ask))
        return self.streams[-1]


def main() -> None:
    for line in sys.stdin:
        wanted = msgspec.json.decode(line, type=Pairs | Crowd)
        result = uvloop.run(pairs(wanted)) if isinstance(wanted, Pairs) else uvloop.run(crowd(wanted))
        print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
