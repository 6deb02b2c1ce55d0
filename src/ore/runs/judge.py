"""The last check of structured output, kept from taking for ever.

Validating against a schema whose references multiply takes exponential time and memory, whatever the validator; so one
with references is looked at by a process that its own timer kills. The check itself is `ore.core.structured`.
"""

from typing import Final

import msgspec
from msgspec import Struct

from ore.core import structured
from ore.protocol.decoding import JsonObject
from ore.timed_process import TimedProcess, answer_lines

CPU_LIMIT: Final = 0.5
"""Seconds of processor time for one answer: megabytes of JSON fit."""


class _Question(Struct):
    schema: JsonObject
    text: str


class Judge:
    """One for a server. The process comes with the first schema that needs it; `stop` ends it."""

    def __init__(self, cpu_limit: float = CPU_LIMIT) -> None:
        self._process = TimedProcess("ore.runs.judge", cpu_limit)

    async def stop(self) -> None:
        """End the process, if there is one. Idempotent."""
        await self._process.stop()

    async def mismatch(self, schema: JsonObject, text: str) -> str | None:
        """As `structured.mismatch`; what cannot be checked in time does not match."""
        if not _has_references(schema):
            return structured.mismatch(schema, text)
        answer = await self._process.ask(msgspec.json.encode(_Question(schema, text)))
        if answer is None:
            return "checking it takes too long; simplify the references in the schema"
        return msgspec.json.decode(answer, type=str | None)


def _has_references(schema: JsonObject) -> bool:
    encoded = msgspec.json.encode(schema)
    return any(keyword in encoded for keyword in (b'"$ref"', b'"$dynamicRef"', b'"$recursiveRef"'))


def _answer(question: bytes) -> bytes:
    asked = msgspec.json.decode(question, type=_Question)
    return msgspec.json.encode(structured.mismatch(asked.schema, asked.text))


if __name__ == "__main__":
    answer_lines(_answer)
