"""Speaks llama.cpp's native HTTP dialect over a Unix socket: properties, tokens, vectors, streamed completions.

The hot path of the default engine: one read may bring many chunks, each decoded straight into a struct. It refuses to
know about items, deltas or slots, and it never waits with a timeout: an engine that dies closes its socket.
"""

from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from ore.backends.base import Embedded, JsonObject
from ore.backends.local.faults import context_exceeded, died, failed, refused
from ore.errors import OreError

_BASE: Final = "http://engine"


class SlotDefaults(Struct, frozen=True):
    n_ctx: int = 0


class Modalities(Struct, frozen=True):
    vision: bool = False


class Props(Struct, frozen=True):
    """What `GET /props` says and we need."""

    default_generation_settings: SlotDefaults
    chat_template: str = ""
    bos_token: str = ""
    eos_token: str = ""
    modalities: Modalities = Modalities()
    media_marker: str = ""
    """What stands for an image in a prompt."""


class Timings(Struct, frozen=True):
    cache_n: int = 0


class Fault(Struct, frozen=True):
    """llama.cpp's error object."""

    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class Chunk(Struct, frozen=True):
    """One event of a completion; the last one has `stop`."""

    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    timings: Timings = Timings()
    completion_probabilities: list[JsonObject] = []
    error: Fault | None = None


class _Refused(Struct, frozen=True):
    error: Fault = Fault()


class _Tokens(Struct, frozen=True):
    tokens: list[int] = []


class _Counted(Struct, frozen=True):
    input_tokens: int = 0


class _Vector(Struct, frozen=True):
    embedding: list[float]
    index: int = 0


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0


class _Vectors(Struct, frozen=True):
    data: list[_Vector]
    usage: _Usage = _Usage()


_decode_chunk = msgspec.json.Decoder(Chunk).decode

FINAL_FIELDS: Final = ["content", "stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"]
"""Without this list the last chunk repeats the whole prompt."""


class Completion:
    """An answer that is being sampled."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._rest = b""

    async def read(self) -> list[Chunk]:
        """The next chunks, at least one. Raises `ModelFailed` when the stream ends without its last chunk."""
        while True:
            try:
                data = await self._response.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise died() from error
            if not data:
                raise died()
            *frames, self._rest = (self._rest + data).split(b"\n\n")
            chunks = [_decode(frame) for frame in frames if frame and not frame.startswith(b":")]
            if chunks:
                return chunks

    def close(self) -> None:
        """Disconnect at once: that is what frees the slot in the engine. Idempotent."""
        self._response.close()


class LlamaCppClient:
    """One engine's client; `close` it."""

    def __init__(self, socket: str, api_key: str) -> None:
        # llama.cpp holds a thread for each idle connection, and closes it after 5 s: a new one each time is cheaper.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket, limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": f"Bearer {api_key}"},
            json_serialize=lambda body: msgspec.json.encode(body).decode(),
            read_bufsize=64 * 1024,
        )

    async def close(self) -> None:
        await self._session.close()

    async def props(self) -> Props:
        return msgspec.json.decode(await self._call("GET", "/props"), type=Props)

    async def slots(self) -> list[JsonObject]:
        """The engine's view of its slots: for tests and for the doctor."""
        return msgspec.json.decode(await self._call("GET", "/slots"), type=list[JsonObject])

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return msgspec.json.decode(await self._call("POST", "/tokenize", body), type=_Tokens).tokens

    async def count(self, content: str | list[JsonObject]) -> int:
        """Tokens of one message of the user, as the model's chat template renders it; images count as they are seen."""
        body = {"messages": [{"role": "user", "content": content}]}
        raw = await self._call("POST", "/v1/chat/completions/input_tokens", body)
        return msgspec.json.decode(raw, type=_Counted).input_tokens

    async def embed(self, inputs: Sequence[str | Sequence[int]]) -> Embedded:
        """Vectors of length one. Raises `InvalidRequest` or `ModelFailed`."""
        body = {"input": inputs, "encoding_format": "float"}
        made = msgspec.json.decode(await self._call("POST", "/v1/embeddings", body), type=_Vectors)
        vectors = [vector.embedding for vector in sorted(made.data, key=lambda vector: vector.index)]
        return Embedded(vectors=vectors, input_tokens=made.usage.prompt_tokens)

    async def complete(self, body: JsonObject) -> Completion:
        """Begin to sample. Raises `InvalidRequest` or `ModelFailed`."""
        whole = {
            **body,
            "stream": True,
            "return_progress": True,
            "cache_prompt": True,
            "timings_per_token": False,
            "response_fields": FINAL_FIELDS,
        }
        try:
            response = await self._session.post(f"{_BASE}/completion", data=msgspec.json.encode(whole))
            if response.status == 200:
                return Completion(response)
            raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise died() from error
        raise _fault(_fault_of(raw))

    async def _call(self, method: str, path: str, body: Any = None) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, _BASE + path, data=data) as response:
                raw = await response.read()
                if response.status == 200:
                    return raw
        except (aiohttp.ClientError, OSError) as error:
            raise died() from error
        raise _fault(_fault_of(raw))


def _decode(frame: bytes) -> Chunk:
    prefix, _, data = frame.partition(b": ")
    if prefix == b"error":
        raise _fault(msgspec.json.decode(data, type=Fault))
    chunk = _decode_chunk(data)
    if chunk.error is not None:
        raise _fault(chunk.error)
    return chunk


def _fault_of(raw: bytes) -> Fault:
    try:
        return msgspec.json.decode(raw, type=_Refused).error
    except msgspec.DecodeError:
        return Fault()


def _fault(fault: Fault) -> OreError:
    if fault.type == "exceed_context_size_error":
        return context_exceeded(fault.n_prompt_tokens, fault.n_ctx)
    if fault.type == "invalid_request_error":
        return refused(fault.message)
    return failed()
