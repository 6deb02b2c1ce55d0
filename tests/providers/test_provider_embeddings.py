"""Embeddings of providers: what they are asked, how their answers are read, and whose fault it is."""

import base64
import struct
from typing import Any

import pytest
from stub_server import Asked, Play, as_json, stub_server

from ore.backends.base import EmbeddingRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.dialect import Dialect
from ore.backends.messages import Messages
from ore.backends.profiles import profile_of
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.provider_embeddings import TOGETHER
from ore.backends.responses import Responses
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.errors import InvalidRequest, ModelFailed, NotFound, TooManyRequests

pytestmark = pytest.mark.anyio


def vectors_of(asked: Asked) -> Play:
    """One vector for each input, out of order, that tells its index."""
    count = len(asked.body["input"])
    data = [{"object": "embedding", "index": index, "embedding": [float(index), 1.0]} for index in range(count)]
    return as_json({"object": "list", "data": data[::-1], "model": "m", "usage": {"prompt_tokens": count}})


async def embed(url: str, dialect: Dialect, *inputs: Any, **more: Any) -> Any:
    provider = Provider(dialect, Upstream("p", UpstreamOptions(base_url=url)), ProviderOptions(kind="openai"))
    await provider.start()
    try:
        return await provider.embed(EmbeddingRequest(model="m", inputs=inputs, **more))
    finally:
        await provider.stop()


@pytest.mark.parametrize("dialect", [ChatCompletions, Responses])
async def test_what_a_provider_is_asked(dialect: type[ChatCompletions] | type[Responses]) -> None:
    """The fields of OpenAI's API, and numbers, which every server can say; vectors come in the order of the inputs."""
    async with stub_server(vectors_of) as server:
        made = await embed(server.url, dialect(), "a", (1, 2), dimensions=2, user="u")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/embeddings")
    assert asked.body == {
        "model": "m",
        "input": ["a", [1, 2]],
        "encoding_format": "float",
        "dimensions": 2,
        "user": "u",
    }
    assert made.vectors == [[0.0, 1.0], [1.0, 1.0]]
    assert made.input_tokens == 2


async def test_many_inputs_go_in_portions() -> None:
    async with stub_server(vectors_of) as server:
        made = await embed(server.url, ChatCompletions(), *["a"] * (TOGETHER + 2))
    assert [len(asked.body["input"]) for asked in server.asked] == [TOGETHER, 2]
    assert len(made.vectors) == made.input_tokens == TOGETHER + 2


async def test_base64_is_read_although_it_was_not_asked_for() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    async with stub_server(lambda _: as_json({"data": [{"index": 0, "embedding": packed}]})) as server:
        assert (await embed(server.url, ChatCompletions(), "a")).vectors == [[0.5, -2.0]]


async def test_anthropic_makes_none() -> None:
    with pytest.raises(InvalidRequest, match="makes no embeddings"):
        await embed("http://127.0.0.1:1", Messages(), "a")


@pytest.mark.parametrize(
    ("play", "kind"),
    [
        (as_json({"error": {"message": "no"}}, 400), InvalidRequest),
        (as_json({"error": {"message": "no"}}, 404), NotFound),
        (as_json({"error": {"message": "no"}}, 429), TooManyRequests),
        (as_json({"error": {"message": "no"}}, 500), ModelFailed),
        (as_json({"data": []}), ModelFailed),
        (as_json({"data": [{"index": 1, "embedding": [1.0]}]}), ModelFailed),
        (as_json({"data": [{"index": 0, "embedding": []}]}), ModelFailed),
        (as_json({"data": [{"index": 0, "embedding": "?"}]}), ModelFailed),
        (as_json({"data": [{"index": 0, "embedding": "AAA="}]}), ModelFailed),
        (as_json("hello"), ModelFailed),
    ],
)
async def test_what_goes_wrong(play: Play, kind: type[Exception]) -> None:
    """A refusal is the client's, and an answer without one vector for each input is the provider's."""
    async with stub_server(lambda _: play) as server:
        with pytest.raises(kind):
            await embed(server.url, ChatCompletions(), "a")


@pytest.mark.parametrize(
    ("kind", "name", "width"),
    [
        ("openai", "text-embedding-3-small", 1536),
        ("openai", "text-embedding-3-large", 3072),
        ("ollama", "nomic-embed-text", 0),
        ("chat_completions", "BAAI/bge-m3", 0),
        ("responses", "qwen3-embedding-8b", 0),
        ("openai", "gpt-5", None),
    ],
)
def test_models_that_are_known_to_embed(kind: str, name: str, width: int | None) -> None:
    able = profile_of(kind, name).capabilities()
    assert (able.embeddings, able.responses) == (width, width is None)
