"""Unchanged `openai` code that makes embeddings, against a real `ore serve` of a model with random weights."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from backends.local_random_gguf import write_random_gguf
from servers import OreProcess

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("embeddings")
    path = write_random_gguf(folder / "random.gguf", context=128)
    environ = {"ORE_MODELS__EMBEDDER__PATH": str(path), "ORE_MODELS__EMBEDDER__EMBEDDINGS": "true"}
    with (
        OreProcess(folder, environ=environ) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0, timeout=60) as client,
    ):
        yield client


def test_embeddings(client: OpenAI) -> None:
    """The SDK asks for base64 by itself, and shows numbers: those that it gets when it asks for numbers."""
    packed = client.embeddings.create(model="embedder", input=["a river", "a stream", "a river"])
    plain = client.embeddings.create(model="embedder", input="a river", encoding_format="float")
    assert [one.index for one in packed.data] == [0, 1, 2]
    assert packed.model == "embedder"
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 20
    first = packed.data[0].embedding
    assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-4)
    assert first == pytest.approx(packed.data[2].embedding, abs=1e-4)
    assert first == pytest.approx(plain.data[0].embedding, abs=1e-4)
    assert len(client.embeddings.create(model="embedder", input="a river", dimensions=8).data[0].embedding) == 8


def test_errors(client: OpenAI) -> None:
    """What cannot be done is a 400 with the next step."""
    with pytest.raises(openai.BadRequestError, match=r"input\[1\].*takes 128"):
        client.embeddings.create(model="embedder", input=["a", "b" * 1000])
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        client.responses.create(model="embedder", input="Hello!")
    capabilities = client.models.retrieve("embedder").model_dump()["capabilities"]
    assert capabilities["embeddings"] == 64
    assert not capabilities["responses"]
