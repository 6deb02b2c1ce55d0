"""The default engine: one GGUF model in a llama.cpp process of its own.

Says in llama.cpp's words what is to be generated, and in ours what came. It refuses to load weights in this process.
"""

import base64
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ore.backends.base import Embedded, JsonObject
from ore.backends.local.engine import End, EndReason, Facts, Generation, Piece
from ore.backends.local.engine_process import EngineProcess, HasProcess, Progress
from ore.backends.local.faults import died
from ore.backends.local.llama_cpp_client import Chunk, Completion, LlamaCppClient
from ore.backends.local.options import LlamaCppOptions

_RANDOM_SEED: Final = 0xFFFFFFFF
_ENDS: Final[dict[str, EndReason]] = {"limit": "length", "word": "stop_text"}

PENALTY_WINDOW: Final = 64
"""Tokens over which penalties count, llama.cpp's own default. It counts the prompt's too, and so the ends of earlier
turns: a longer window keeps a model from ending its own."""


KNOWN_IMAGES: Final = 1024
"""Images whose count is remembered."""


class LlamaCpp(HasProcess):
    """An `Engine` for one GGUF file; an `Embedder`, where the options say so."""

    def __init__(self, name: str, options: LlamaCppOptions, progress: Progress | None = None) -> None:
        marker = f"<__image_{secrets.token_hex(16)}__>"  # no text of a client can be it
        parameters = {**options.parameters(), "media_marker": marker}
        self.process = EngineProcess(name, "ore.backends.local.llama_cpp_server", parameters, progress=progress)
        self._client: LlamaCppClient | None = None
        self._image_tokens: dict[bytes, int] = {}

    async def start(self) -> None:
        if self._client is None:
            await self.process.start()
            self._client = LlamaCppClient(self.process.socket, self.process.api_key)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self.process.stop()

    @property
    def client(self) -> LlamaCppClient:
        """The way to its process. Raises `ModelFailed` while there is none."""
        if self._client is None:
            raise died()
        return self._client

    async def facts(self) -> Facts:
        props = await self.client.props()
        adds_bos = len(await self.client.tokenize("", add_special=True)) > 0
        return Facts(
            context=props.default_generation_settings.n_ctx,
            chat_template=props.chat_template,
            bos_token=props.bos_token,
            eos_token=props.eos_token,
            adds_bos=adds_bos,
            images=props.modalities.vision,
            image_marker=props.media_marker,
        )

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return await self.client.tokenize(text, add_special=add_special, parse_special=parse_special)

    async def image_tokens(self, image: bytes) -> int:
        """A message with it, less the same without. Images that were counted lately are known."""
        key = sha256(image).digest()
        if key not in self._image_tokens:
            url = "data:image/png;base64," + base64.b64encode(image).decode()
            whole = await self.client.count([{"type": "image_url", "image_url": {"url": url}}])
            self._image_tokens[key] = max(0, whole - await self.client.count(""))
            if len(self._image_tokens) > KNOWN_IMAGES:
                del self._image_tokens[next(iter(self._image_tokens))]
        return self._image_tokens[key]

    async def embed(self, inputs: Sequence[str | Sequence[int]]) -> Embedded:
        return await self.client.embed(inputs)

    async def generate(self, generation: Generation) -> "Sampled":
        return Sampled(await self.client.complete(_fields(generation)), generation.alternatives)


class Sampled:
    """llama.cpp's chunks as pieces."""

    def __init__(self, completion: Completion, alternatives: int | None) -> None:
        self._completion = completion
        self._alternatives = alternatives

    async def read(self) -> list[Piece]:
        return [self._piece(chunk) for chunk in await self._completion.read()]

    def close(self) -> None:
        self._completion.close()

    def _piece(self, chunk: Chunk) -> Piece:
        return Piece(
            text=chunk.content,
            tokens=chunk.tokens_predicted,
            logprobs=()
            if self._alternatives is None
            else tuple(_entry(raw, self._alternatives) for raw in chunk.completion_probabilities),
            end=_end(chunk) if chunk.stop else None,
        )


def _end(chunk: Chunk) -> End:
    return End(
        reason=_ENDS.get(chunk.stop_type, "stop"),
        input_tokens=chunk.tokens_evaluated,
        output_tokens=chunk.tokens_predicted,
        cached_tokens=chunk.timings.cache_n,
    )


def _entry(raw: JsonObject, alternatives: int) -> JsonObject:
    """llama.cpp's entry in the wire's shape (section 6)."""
    others = [_bare(other) for other in raw.get("top_logprobs", ())[:alternatives]]
    return {**_bare(raw), "top_logprobs": others}


def _bare(raw: JsonObject) -> JsonObject:
    return {"token": raw.get("token", ""), "logprob": raw.get("logprob", 0.0), "bytes": raw.get("bytes", [])}


def _prompt(generation: Generation) -> str | JsonObject:
    if not generation.images:
        return generation.prompt
    encoded = [base64.b64encode(image).decode() for image in generation.images]
    return {"prompt_string": generation.prompt, "multimodal_data": encoded}


def _fields(generation: Generation) -> JsonObject:
    """The body of a completion."""
    seed = generation.seed
    fields: JsonObject = {
        "prompt": _prompt(generation),
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "n_predict": -1 if generation.max_tokens is None else generation.max_tokens,
        "seed": _RANDOM_SEED if seed is None else seed % _RANDOM_SEED,
    }
    if generation.presence_penalty or generation.frequency_penalty:
        fields["presence_penalty"] = generation.presence_penalty
        fields["frequency_penalty"] = generation.frequency_penalty
        fields["repeat_last_n"] = PENALTY_WINDOW
    if not generation.own_distribution:
        fields |= {"top_k": 0, "min_p": 0.0}  # who asks for a distribution gets it, and not its largest forty tokens
    if generation.alternatives is not None:
        fields["n_probs"] = max(1, generation.alternatives)
    if generation.grammar:
        fields["grammar"] = generation.grammar
    if generation.stop:
        fields["stop"] = list(generation.stop)
    if generation.visible:
        fields["preserved_tokens"] = list(generation.visible)
    return fields
