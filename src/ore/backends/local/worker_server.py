"""The far end's loop for engines in Python: drives a `Worker`, and speaks `messages` on a Unix socket.

Each connection has a thread that reads and one that writes; one thread, the main one, asks the worker. It refuses to
keep anything for a connection that is gone: what it had begun is cancelled.
"""

import contextlib
import hmac
import itertools
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from ore.backends.local.engine import Piece
from ore.backends.local.messages import (
    HEAD,
    AskFacts,
    Begin,
    Cancel,
    Fault,
    Hello,
    Pieces,
    Question,
    Tokenize,
    Tokens,
    Told,
    ToNear,
    decode_for_far,
    frame,
)
from ore.backends.local.worker import Worker
from ore.errors import HTTPFault, InvalidRequest

BACKLOG: Final = 64


class Gone(msgspec.Struct, frozen=True):
    """A connection has ended."""


Job = tuple["Connection", Question | Gone]


def serve_worker(worker: Worker, path: str, api_key: str, ready: Callable[[], None]) -> None:
    """Listen on the socket `path` and work, until the process ends."""
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(BACKLOG)
    threading.Thread(target=_accept, args=[listener, api_key, jobs], daemon=True).start()
    ready()
    loop = WorkerLoop(worker, jobs)
    while True:
        loop.turn()


class WorkerLoop:
    """Questions first, then a step."""

    def __init__(self, worker: Worker, jobs: "queue.SimpleQueue[Job]") -> None:
        self._worker = worker
        self._jobs = jobs
        self._keys = itertools.count()
        self._inner: dict[tuple[Connection, int], int] = {}
        self._outer: dict[int, tuple[Connection, int]] = {}

    def turn(self) -> None:
        """Take what has been asked, waiting for it when there is nothing else to do; then work one step."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(*self._jobs.get(block=not self._worker.busy))
        if self._worker.busy:
            self._step()

    def _step(self) -> None:
        pieces: defaultdict[int, list[Piece]] = defaultdict(list)
        for inner, said in self._worker.step():
            if isinstance(said, HTTPFault):
                connection, key = self._forget(inner)
                connection.say(_fault(key, said))
            else:
                pieces[inner].append(said)
        for inner, said_last in pieces.items():
            if inner in self._outer:
                connection, key = self._forget(inner) if said_last[-1].end else self._outer[inner]
                connection.say(Pieces(key, said_last))

    def _take(self, connection: "Connection", question: Question | Gone) -> None:
        if isinstance(question, Gone):
            for place in [place for place in self._inner if place[0] is connection]:
                self._cancel(place)
            return
        try:
            self._answer(connection, question)
        except HTTPFault as error:
            connection.say(_fault(question.key, error))

    def _answer(self, connection: "Connection", question: Question) -> None:
        worker, key = self._worker, question.key
        match question:
            case AskFacts():
                connection.say(Told(key, worker.facts()))
            case Tokenize(text=text, add_special=add, parse_special=parse):
                connection.say(Tokens(key, worker.tokenize(text, add_special=add, parse_special=parse)))
            case Cancel():
                self._cancel((connection, key))
            case Begin(generation=generation):
                inner = next(self._keys)
                worker.begin(inner, generation)
                self._inner[connection, key] = inner
                self._outer[inner] = (connection, key)

    def _cancel(self, place: tuple["Connection", int]) -> None:
        if (inner := self._inner.get(place)) is not None:
            self._forget(inner)
            self._worker.cancel(inner)

    def _forget(self, inner: int) -> tuple["Connection", int]:
        place = self._outer.pop(inner)
        del self._inner[place]
        return place


class Connection:
    """One near end. What it is told waits for it in a queue, so that it never holds the engine up."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def say(self, message: ToNear) -> None:
        self._outgoing.put(frame(message))

    def read(self, api_key: str, jobs: "queue.SimpleQueue[Job]") -> None:
        """Take frames until the connection ends."""
        threading.Thread(target=self._write, daemon=True).start()
        try:
            with self._stream.makefile("rb") as frames:
                if not _is_welcome(_next(frames), api_key):
                    return
                while (message := _next(frames)) is not None:
                    if not isinstance(message, Hello):
                        jobs.put((self, message))
        except (OSError, msgspec.DecodeError):
            pass
        finally:
            jobs.put((self, Gone()))
            self._outgoing.put(None)

    def _write(self) -> None:
        with contextlib.suppress(OSError), self._stream:
            while (data := self._outgoing.get()) is not None:
                self._stream.sendall(data)


def _accept(listener: socket.socket, api_key: str, jobs: "queue.SimpleQueue[Job]") -> None:
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=Connection(stream).read, args=[api_key, jobs], daemon=True).start()


def _next(frames: BinaryIO) -> Hello | Question | None:
    head = frames.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    message: Hello | Question = decode_for_far(frames.read(HEAD.unpack(head)[0]))
    return message


def _is_welcome(message: Hello | Question | None, api_key: str) -> bool:
    return isinstance(message, Hello) and hmac.compare_digest(message.api_key, api_key)


def _fault(key: int, error: HTTPFault) -> Fault:
    refused = isinstance(error, InvalidRequest)
    return Fault(key, error.message, refused, error.param, error.code)
