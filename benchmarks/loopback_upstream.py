"""The provider of `benchmarks.gateway`: streams one fixed answer over Chat Completions and Responses.

    python -m benchmarks.loopback_upstream

Says its port in its first line. The model `paced` begins after 20 ms and then says 50 words, 5 ms apart; `flat` says
them as fast as it can, each a write of its own. Raw sockets and answers made beforehand, so that it is never what is
measured: it reads of a request no more than it needs, and refuses nothing.
"""

import asyncio
import json
from typing import Any, Final

import uvloop

FIRST: Final = 0.020
PACE: Final = 0.005
WORDS: Final = 50
WORD: Final = " measured"
TEXT: Final = WORD * WORDS

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
MODELS: Final = json.dumps(
    {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "loopback"} for name in ("paced", "flat")]}
).encode()


def main() -> None:
    uvloop.run(_serve())


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Connection(asyncio.Protocol):
    """A client's connection, one answer at a time."""

    _transport: asyncio.Transport
    _next: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, rest = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        _, named, length = head.lower().partition(b"content-length:")
        size = int(length.split(b"\r\n", 1)[0]) if named else 0
        if len(rest) >= size:
            self._read = rest[size:]
            self._answer(head.split(b" ", 2)[1], rest[:size])

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()

    def _answer(self, path: bytes, body: bytes) -> None:
        if path.endswith(b"/models"):
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(MODELS)
            self._transport.write(head + MODELS)
            return
        self._frames = CHAT if b"chat/completions" in path else RESPONSES
        self._at = 0
        self._paced = b'"flat"' not in body
        self._begun = self._loop.time()
        if self._paced:
            self._next = self._loop.call_at(self._begun + FIRST, self._say)
        else:
            self._say()

    def _say(self) -> None:
        """One frame, and when the next is due: by the clock of the whole answer, so that nothing adds up."""
        self._transport.write(self._frames[self._at])
        self._at += 1
        if self._at == len(self._frames):
            self._next = None
        elif self._paced:
            self._next = self._loop.call_at(self._begun + FIRST + self._at * PACE, self._say)
        else:
            self._next = self._loop.call_soon(self._say)


def _event(data: dict[str, Any], *, named: bool) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _chunk(frame: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def _frames(first: bytes, words: list[bytes], last: bytes) -> list[bytes]:
    return [HEAD + _chunk(first), *map(_chunk, words), _chunk(last) + b"0\r\n\r\n"]


def _chat() -> list[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000, "model": "paced"}
        choices = [] if "usage" in more else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return _event({**head, "system_fingerprint": "fp_1", "choices": choices, **more}, named=False)

    usage = {"prompt_tokens": 9, "completion_tokens": WORDS, "total_tokens": WORDS + 9}
    return _frames(
        chunk({"role": "assistant", "content": ""}),
        [chunk({"content": WORD})] * WORDS,
        chunk({}, "stop") + chunk({}, usage=usage) + b"data: [DONE]\n\n",
    )


def _responses() -> list[bytes]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    whole = {**part, "text": TEXT}
    done = {**item, "status": "completed", "content": [whole]}
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": WORDS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": WORDS + 9,
    }
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_795_000_000,
        "status": "in_progress",
        "model": "paced",
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    number = iter(range(WORDS + 8))

    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": f"response.{kind}", "sequence_number": next(number), **fields}, named=True)

    first = (
        event("created", response=response)
        + event("in_progress", response=response)
        + event("output_item.added", output_index=0, item=item)
        + event("content_part.added", **place, part=part)
    )
    words = [event("output_text.delta", **place, delta=WORD, logprobs=[]) for _ in range(WORDS)]
    last = (
        event("output_text.done", **place, text=TEXT, logprobs=[])
        + event("content_part.done", **place, part=whole)
        + event("output_item.done", output_index=0, item=done)
        + event("completed", response={**response, "status": "completed", "output": [done], "usage": usage})
    )
    return _frames(first, words, last)


CHAT: Final = _chat()
RESPONSES: Final = _responses()

if __name__ == "__main__":
    main()
