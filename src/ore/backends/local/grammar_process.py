"""Compiles grammars in a process of its own, because clients write the schemas.

A few dozen bytes of JSON Schema can keep a compiler busy for hours (intersected patterns, a large `multipleOf`), and
the engine compiles what it is given on the thread that decodes for everybody. So every grammar is compiled here first:
the far end (`python -m ore.backends.local.grammar_process`) is killed by its own timer when one takes too long, and the
request is a 400. It refuses to run anything else, and keeps nothing but a bounded cache of grammars.
"""

import asyncio
import contextlib
import signal
import sys
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.local.engine_process import send_signal
from ore.backends.local.grammar import Markup, build_grammar
from ore.backends.local.json_schemas import check_schema
from ore.backends.local.tool_choice import plan_tools
from ore.errors import InvalidRequest, ModelFailed

CPU_LIMIT: Final = 0.6
"""Seconds of processor time for one request's grammar: a thousand properties fit. Each schema is compiled alone and
then all together, so the engine, which does the latter, stalls for less than half of this."""
WALL_LIMIT: Final = 15.0
"""Seconds after which a far end counts as stuck on a machine that gives it no processor."""
MAX_JOB_BYTES: Final = 2 * 1024 * 1024
MAX_CACHE_BYTES: Final = 16 * 1024 * 1024
_LINE_LIMIT: Final = 16 * 1024 * 1024
_FAR_END: Final = "ore.backends.local.grammar_process"


class Job(Struct, frozen=True):
    """What decides the grammar of a request, and nothing else of it."""

    tools: tuple[JsonObject, ...]
    tool_choice: str | JsonObject
    parallel_tool_calls: bool
    text_format: JsonObject
    markup: Markup

    def build(self) -> str:
        request = ModelRequest(
            model="",
            items=(),
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            text_format=self.text_format,
        )
        return build_grammar(request, plan_tools(request), self.markup)


class _Line(Struct):
    """One line to the far end. `number` tells a late reply from the one that is waited for."""

    number: int
    job: msgspec.Raw


class _Reply(Struct):
    number: int
    grammar: str = ""
    message: str = ""
    code: str | None = None
    param: str | None = None


class GrammarCompiler:
    """The near end. Compiles one grammar at a time; what it has compiled before it knows at once."""

    def __init__(self, cpu_limit: float = CPU_LIMIT) -> None:
        self._cpu_limit = cpu_limit
        self._turn = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._number = 0
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._known_bytes = 0

    async def start(self) -> None:
        """Spawn the far end, without waiting until it is ready. `build` does it too when there is none."""
        if self._child is None or self._child.returncode is not None:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                _FAR_END,
                str(self._cpu_limit),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_LINE_LIMIT,
                start_new_session=True,
            )

    async def stop(self) -> None:
        """End the far end. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            send_signal(child, signal.SIGKILL)
            await child.wait()

    async def build(self, request: ModelRequest, markup: Markup) -> str:
        """As `grammar.build_grammar`. Raises `InvalidRequest`."""
        if not request.tools and request.text_format.get("type", "text") == "text":
            return ""
        job = Job(request.tools, request.tool_choice, request.parallel_tool_calls, request.text_format, markup)
        key = _encode(job)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        if len(key) > MAX_JOB_BYTES:
            raise _refused(job, f"are larger than {MAX_JOB_BYTES // 1024} KiB, nested too deeply, or not Unicode")
        async with self._turn:
            grammar = await self._compile(job, key)
        self._keep(key, grammar)
        return grammar

    async def _compile(self, job: Job, key: bytes) -> str:
        await self.start()
        try:
            async with asyncio.timeout(WALL_LIMIT):
                reply = await self._exchange(key)
        except TimeoutError:
            reply = None
        if reply is None:
            await self.stop()
            raise _refused(job, "take too long to compile: simplify patterns, 'multipleOf', 'allOf' and 'anyOf'")
        if reply.message:
            raise InvalidRequest(reply.message, code=reply.code, param=reply.param)
        return reply.grammar

    async def _exchange(self, key: bytes) -> _Reply | None:
        """Ask the far end; None when it died over the question."""
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise ModelFailed("The process that compiles grammars could not be started. Try again.")
        self._number += 1
        with contextlib.suppress(ConnectionError):
            child.stdin.write(msgspec.json.encode(_Line(self._number, msgspec.Raw(key))) + b"\n")
            await child.stdin.drain()
        while line := await child.stdout.readline():
            reply = msgspec.json.decode(line, type=_Reply)
            if reply.number == self._number:
                return reply
        return None

    def _keep(self, key: bytes, grammar: str) -> None:
        if key in self._known:
            return
        self._known[key] = grammar
        self._known_bytes += len(key) + len(grammar)
        while self._known_bytes > MAX_CACHE_BYTES:
            old, gone = self._known.popitem(last=False)
            self._known_bytes -= len(old) + len(gone)


def _encode(job: Job) -> bytes:
    try:
        return msgspec.json.encode(job)
    except (RecursionError, UnicodeEncodeError):
        return b" " * (MAX_JOB_BYTES + 1)


def _refused(job: Job, why: str) -> InvalidRequest:
    if job.text_format.get("type") == "json_schema":
        what, code, param = "text.format.schema", "invalid_json_schema", "text.format.schema"
    else:
        what, code, param = "tools", "invalid_function_parameters", "tools"
    if job.tools and param != "tools":
        what = "tools and text.format.schema"
    return InvalidRequest(f"The schemas in {what} {why}.", code=code, param=param)


def main() -> None:
    """The far end: a line in, a line out. The timer's signal is left to kill this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = float(sys.argv[1])
    check_schema({"type": "object"})
    decode = msgspec.json.Decoder(_Line).decode
    while raw := sys.stdin.buffer.readline():
        line = decode(raw)
        signal.setitimer(signal.ITIMER_PROF, limit)
        reply = _answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
        sys.stdout.buffer.flush()


def _answer(line: _Line) -> _Reply:
    try:
        return _Reply(line.number, msgspec.json.decode(line.job, type=Job).build())
    except InvalidRequest as error:
        return _Reply(line.number, message=error.message, code=error.code, param=error.param)
    except (msgspec.DecodeError, RecursionError):
        message = "The schemas are nested too deeply."
        return _Reply(line.number, message=message, code="invalid_json_schema", param="text.format.schema")


if __name__ == "__main__":
    main()
