"""Compiles grammars in a process of its own, because clients write the schemas.

A few dozen bytes of JSON Schema can keep a compiler busy for hours (intersected patterns, a large `multipleOf`), and
the engine compiles what it is given on the thread that decodes for everybody. So every grammar is compiled here first:
where the far end (`python -m ore.backends.local.grammar_process`) takes too long over one, the request is a 400. It
refuses to run anything else, and keeps nothing but a bounded cache of grammars.
"""

from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.grammar import build_grammar
from ore.backends.local.json_schemas import check_schema
from ore.backends.local.markup import Markup
from ore.errors import InvalidRequest
from ore.timed_process import TimedProcess, answer_lines

CPU_LIMIT: Final = 0.6
"""Seconds of processor time for one request's grammar: a thousand properties fit. Each schema is compiled alone and
then all together, so the engine, which does the latter, stalls for less than half of this."""
MAX_JOB_BYTES: Final = 2 * 1024 * 1024
MAX_CACHE_BYTES: Final = 16 * 1024 * 1024


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


class _Reply(Struct):
    grammar: str = ""
    message: str = ""
    code: str | None = None
    param: str | None = None


class GrammarCompiler:
    """The near end. Compiles one grammar at a time; what it has compiled before it knows at once."""

    def __init__(self, cpu_limit: float = CPU_LIMIT) -> None:
        self._process = TimedProcess("ore.backends.local.grammar_process", cpu_limit)
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._known_bytes = 0

    async def start(self) -> None:
        """Spawn the far end, so that the first request need not wait for it."""
        await self._process.start()

    async def stop(self) -> None:
        """End the far end. Idempotent."""
        await self._process.stop()

    def check_size(self, request: ModelRequest) -> None:
        """Refuse schemas that are too large, before anything is done with them. Raises `InvalidRequest`."""
        if _needs_grammar(request):
            self._job(request, Markup())

    async def build(self, request: ModelRequest, markup: Markup) -> str:
        """As `grammar.build_grammar`. Raises `InvalidRequest`."""
        if not _needs_grammar(request):
            return ""
        job, key = self._job(request, markup)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        answer = await self._process.ask(key)
        if answer is None:
            raise _refused(job, "take too long to compile: simplify patterns, 'multipleOf', 'allOf' and 'anyOf'")
        reply = msgspec.json.decode(answer, type=_Reply)
        if reply.message:
            raise InvalidRequest(reply.message, code=reply.code, param=reply.param)
        self._keep(key, reply.grammar)
        return reply.grammar

    def _job(self, request: ModelRequest, markup: Markup) -> tuple[Job, bytes]:
        job = Job(request.tools, request.tool_choice, request.parallel_tool_calls, request.text_format, markup)
        key = _encode(job)
        if len(key) > MAX_JOB_BYTES:
            raise _refused(job, f"are larger than {MAX_JOB_BYTES // 1024} KiB, nested too deeply, or not Unicode")
        return job, key

    def _keep(self, key: bytes, grammar: str) -> None:
        if key in self._known:
            return
        self._known[key] = grammar
        self._known_bytes += len(key) + len(grammar)
        while self._known_bytes > MAX_CACHE_BYTES:
            old, gone = self._known.popitem(last=False)
            self._known_bytes -= len(old) + len(gone)


def _needs_grammar(request: ModelRequest) -> bool:
    return bool(request.tools) or request.text_format.get("type", "text") != "text"


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


def _answer(question: bytes) -> bytes:
    job = msgspec.json.decode(question, type=Job)
    try:
        reply = _Reply(job.build())
    except InvalidRequest as error:
        reply = _Reply(message=error.message, code=error.code, param=error.param)
    except Exception:  # a schema whose keywords are of types that nobody expects
        refusal = _refused(job, "are not valid JSON Schemas")
        reply = _Reply(message=refusal.message, code=refusal.code, param=refusal.param)
    return msgspec.json.encode(reply)


def main() -> None:
    """The far end: a job in, a grammar or a refusal out."""
    check_schema({"type": "object"})
    answer_lines(_answer)


if __name__ == "__main__":
    main()
