"""The near end of an engine in Python: an `Engine` whose far end is a process with a `Worker` in it.

Asks and listens over one connection, which is made anew when the process was. It refuses to wait with a timeout: an
engine that dies closes its socket.
"""

import asyncio
import contextlib
import itertools
from typing import Final

from ore.backends.base import JsonObject
from ore.backends.local.engine import Facts, Generation, Piece
from ore.backends.local.engine_process import EngineProcess, HasProcess, Progress
from ore.backends.local.faults import died
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
    decode_for_near,
    frame,
)
from ore.errors import InvalidRequest, ModelFailed, OreError

FAREWELL: Final = 5.0
"""Seconds that a closed connection has to be gone."""


class WorkerEngine(HasProcess):
    """An `Engine`. `far_end` is the module of the process, `parameters` what it takes."""

    def __init__(self, name: str, far_end: str, parameters: JsonObject, progress: Progress | None = None) -> None:
        self.process = EngineProcess(name, far_end, parameters, progress=progress)
        self._link: _Link | None = None
        self._linking = asyncio.Lock()

    async def start(self) -> None:
        await self.process.start()
        await self._linked()

    async def stop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
        await self.process.stop()

    async def facts(self) -> Facts:
        link = await self._linked()
        told = await link.ask(AskFacts(link.new_key()))
        assert isinstance(told, Told)  # noqa: S101
        return told.facts

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        link = await self._linked()
        told = await link.ask(Tokenize(link.new_key(), text, add_special, parse_special))
        assert isinstance(told, Tokens)  # noqa: S101
        return told.tokens

    async def generate(self, generation: Generation) -> "Sampled":
        link = await self._linked()
        sampled = Sampled(link, link.new_key())
        link.say(Begin(sampled.key, generation))
        return sampled

    async def _linked(self) -> "_Link":
        """The connection to the process that is up now. Raises `ModelFailed`."""
        async with self._linking:
            if self._link is not None and self._link.open:
                return self._link
            if not self.process.up:
                raise died()
            try:
                link = await _Link.connect(self.process.socket, self.process.api_key)
            except OSError as error:
                raise died() from error
            await link.ask(AskFacts(link.new_key()))  # a process that is being killed may still take a connection
            self._link = link
            return link


class Sampled:
    """Pieces as they come over the connection."""

    def __init__(self, link: "_Link", key: int) -> None:
        self.key = key
        self._link = link
        self._inbox = link.inbox(key)
        self._over = False

    async def read(self) -> list[Piece]:
        said = [await self._inbox.get()]
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                said.append(self._inbox.get_nowait())
        pieces: list[Piece] = []
        for message in said:
            if isinstance(message, Pieces):
                pieces.extend(message.pieces)
            elif not pieces:
                self._over = True
                raise _raised(message)
            else:
                self._inbox.put_nowait(message)  # what came before it is told first
        self._over = pieces[-1].end is not None
        return pieces

    def close(self) -> None:
        self._link.forget(self.key)
        if not self._over:
            self._over = True
            self._link.say(Cancel(self.key))


class _Link:
    """One connection: what comes is put into the inbox of its key."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._keys = itertools.count()
        self._inboxes: dict[int, asyncio.Queue[ToNear]] = {}
        self._listening = asyncio.create_task(self._listen())
        self.open = True

    @classmethod
    async def connect(cls, socket: str, api_key: str) -> "_Link":
        link = cls(*await asyncio.open_unix_connection(socket))
        link.say(Hello(api_key))
        return link

    def new_key(self) -> int:
        return next(self._keys)

    def inbox(self, key: int) -> "asyncio.Queue[ToNear]":
        """Where what is said about the key arrives. Raises `ModelFailed` when nothing can arrive any more."""
        if not self.open:
            raise died()
        return self._inboxes.setdefault(key, asyncio.Queue())

    def forget(self, key: int) -> None:
        self._inboxes.pop(key, None)

    async def ask(self, question: Question) -> ToNear:
        inbox = self.inbox(question.key)
        try:
            self.say(question)
            answer = await inbox.get()
        finally:
            self.forget(question.key)
        if isinstance(answer, Fault):
            raise _raised(answer)
        return answer

    def say(self, message: Hello | Question) -> None:
        if self.open:
            self._writer.write(frame(message))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), FAREWELL)
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self) -> None:
        try:
            while True:
                (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                message = decode_for_near(await self._reader.readexactly(size))
                if (inbox := self._inboxes.get(message.key)) is not None:
                    inbox.put_nowait(message)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open = False
            self._writer.close()
            for key, inbox in self._inboxes.items():
                inbox.put_nowait(Fault(key, died().message))


def _raised(message: ToNear) -> OreError:
    """What a fault of the far end is at this one."""
    assert isinstance(message, Fault)  # noqa: S101
    if message.refused:
        return InvalidRequest(message.message, param=message.param, code=message.code)
    return ModelFailed(message.message)
