"""TO BE REPLACED by `ore.backends.chat_completions`, in `benchmarks.gateway_ore`, as soon as that is there.

As little of the Chat Completions dialect as `benchmarks.gateway` needs: text in, text out.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.dialect import Asked, Listed, UpstreamError
from ore.backends.profiles import Profile
from ore.core.deltas import Delta, Finish, Text, Usage


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Decoder:
    def __init__(self) -> None:
        self._usage = Usage()

    def feed(self, data: bytes) -> Sequence[Delta]:
        chunk = _decode(data)
        if chunk.usage is not None:
            self._usage = Usage(input_tokens=chunk.usage.prompt_tokens, output_tokens=chunk.usage.completion_tokens)
        return [Text(choice.delta.content) for choice in chunk.choices if choice.delta.content]

    def end(self) -> Sequence[Delta]:
        return [Finish("stop", self._usage)]


class ChatCompletions:
    """A `Dialect`."""

    name = "Chat Completions"
    path = "chat/completions"
    models_path = "models"

    def key_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:  # noqa: ARG002
        said = [
            {"role": item["role"], "content": "".join(part["text"] for part in item["content"])}
            for item in request.items
        ]
        body = {
            "model": request.model,
            "messages": said,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Asked(body, _Decoder())

    def error(self, status: int, body: bytes) -> UpstreamError:
        return UpstreamError(status, body.decode(errors="replace"))

    def models(self, body: bytes) -> list[Listed]:  # noqa: ARG002
        return []

    def counting(self, request: ModelRequest, profile: Profile, origin: str) -> tuple[str, JsonObject] | None:  # noqa: ARG002
        return None

    def counted(self, body: bytes) -> int:  # noqa: ARG002
        return 0
