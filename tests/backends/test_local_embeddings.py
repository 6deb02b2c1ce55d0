"""Embeddings by the llama.cpp engine, driven for real, by an encoder and a decoder with random weights."""

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest
from local_random_encoder import WIDTH, write_random_encoder
from local_random_gguf import write_random_gguf

from ore.backends.base import Backend, EmbeddingRequest, ModelRequest
from ore.backends.local.embedding_model import TOGETHER, EmbeddingModel
from ore.backends.local.gguf_header import read_header
from ore.backends.local.llama_cpp import LlamaCpp
from ore.backends.local.options import LlamaCppOptions
from ore.backends.residence import OnDemand
from ore.engines import make_backends
from ore.errors import InvalidRequest, StartupError, TooManyRequests
from ore.settings import ModelSettings, Settings

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_encoder(tmp_path_factory.mktemp("models") / "encoder.gguf")


@pytest.fixture(scope="module")
async def model(encoder: Path) -> AsyncIterator[EmbeddingModel]:
    async with running(LlamaCppOptions(path=encoder, slots=2, queue=1, embeddings=True)) as made:
        yield made


@contextlib.asynccontextmanager
async def running(options: LlamaCppOptions) -> AsyncIterator[EmbeddingModel]:
    made = EmbeddingModel("embedder", options, LlamaCpp("embedder", options))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def ask(*inputs: str | tuple[int, ...], dimensions: int | None = None) -> EmbeddingRequest:
    return EmbeddingRequest(model="embedder", inputs=inputs, dimensions=dimensions)


def length(vector: Sequence[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


async def test_vectors_have_length_one_and_the_order_of_their_inputs(model: EmbeddingModel) -> None:
    """Equal texts have equal vectors, others have others, also across portions."""
    texts = [f"text {'abc'[at % 3]}" for at in range(TOGETHER + 5)]
    made = await model.embed(ask(*texts))
    assert [len(vector) for vector in made.vectors] == [WIDTH] * len(texts)
    assert [length(vector) for vector in made.vectors] == pytest.approx([1.0] * len(texts), abs=1e-5)
    for at, vector in enumerate(made.vectors):
        assert list(vector) == pytest.approx(made.vectors[at % 3], abs=1e-4)
    assert list(made.vectors[0]) != pytest.approx(made.vectors[1], abs=1e-2)
    assert made.input_tokens == len(texts) * 7


async def test_shorter_vectors_are_the_first_numbers_at_length_one(model: EmbeddingModel) -> None:
    """`dimensions` cuts and makes the vector of length one again; more than there are is a 400."""
    whole, cut = (await model.embed(ask("a"))).vectors[0], (await model.embed(ask("a", dimensions=5))).vectors[0]
    assert list(cut) == pytest.approx([number / length(whole[:5]) for number in whole[:5]], abs=1e-5)
    with pytest.raises(InvalidRequest, match=f"have {WIDTH} numbers") as refused:
        await model.embed(ask("a", dimensions=WIDTH + 1))
    assert refused.value.param == "dimensions"


async def test_tokens_are_taken_as_they_are(model: EmbeddingModel) -> None:
    """A text's own tokens have its vector; a number that is no token is a 400."""
    tokens = tuple(await model.engine.tokenize("hello"))
    made = await model.embed(ask("hello", tokens))
    assert list(made.vectors[0]) == pytest.approx(made.vectors[1], abs=1e-4)
    with pytest.raises(InvalidRequest):
        await model.embed(ask((999_999,)))


@pytest.mark.parametrize("long", ["a" * 63, "a" * 100_000, (7,) * 65])
async def test_an_input_that_is_too_long_is_refused_by_its_index(
    model: EmbeddingModel, long: str | tuple[int, ...]
) -> None:
    """Nothing is cut; what fits exactly is taken."""
    assert (await model.embed(ask("a" * 62, (7,) * 64))).input_tokens == 128
    with pytest.raises(InvalidRequest, match="takes 64") as refused:
        await model.embed(ask("a", long))
    assert (refused.value.param, refused.value.code) == ("input[1]", "context_length_exceeded")


async def test_a_model_that_embeds_does_not_answer(model: EmbeddingModel) -> None:
    """It says where its texts go, and `GET /v1/models` what it can do."""
    with pytest.raises(InvalidRequest, match="/v1/embeddings"):
        model.stream(ModelRequest(model="embedder", items=()))
    with pytest.raises(InvalidRequest, match="/v1/embeddings"):
        await model.count_tokens(ModelRequest(model="embedder", items=()))
    (shown,) = await model.models()
    able = shown.capabilities
    assert (able.responses, able.embeddings, able.context_window, able.tools) == (False, WIDTH, 64, False)


async def test_more_than_can_wait_are_sent_away_and_who_leaves_frees_the_slot(model: EmbeddingModel) -> None:
    """Two run and one waits; the fourth is a 429. All places are free at once when they leave."""
    endless = ask(*["a b c d"] * 20_000)
    asked = [asyncio.create_task(model.embed(endless)) for _ in range(3)]
    with anyio.fail_after(20):
        while model.load().running + model.load().waiting < 3:  # noqa: ASYNC110 - a condition, seen from outside
            await anyio.sleep(0.001)
    with pytest.raises(TooManyRequests):
        await model.embed(ask("a"))
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert (model.load().running, model.load().waiting) == (0, 0)
    with anyio.fail_after(5):
        await model.embed(ask("a"))


async def test_a_request_survives_the_death_of_the_engine(encoder: Path) -> None:
    """It is asked again when the engine is back."""
    import os

    async with running(LlamaCppOptions(path=encoder, slots=1, embeddings=True)) as made:
        before = await made.embed(ask("hello"))
        assert made.engine.pid is not None
        os.kill(made.engine.pid, signal.SIGKILL)
        with anyio.fail_after(30):
            after = await made._portion(("hello",))
        assert list(after.vectors[0]) == pytest.approx(before.vectors[0])


async def test_a_model_that_answers_can_be_loaded_to_embed(tmp_path: Path) -> None:
    """As `embeddings = true` says; its tokens' states are averaged where its file says nothing."""
    path = write_random_gguf(tmp_path / "chat.gguf", context=64)
    backend = await only_backend(ModelSettings(path=str(path), embeddings=True))
    assert isinstance(backend, EmbeddingModel)
    await backend.start()
    try:
        made = await backend.embed(ask("hello", "hello"))
    finally:
        await backend.stop()
    assert length(made.vectors[0]) == pytest.approx(1.0, abs=1e-5)


async def test_what_a_file_is_for_is_read_from_its_header(tmp_path: Path, encoder: Path) -> None:
    """Encoders embed, decoders answer, rerankers are refused; an encoder cannot be made to answer."""
    chat = write_random_gguf(tmp_path / "chat.gguf", context=64)
    ranker = write_random_encoder(tmp_path / "ranker.gguf", pooling=4)
    assert (read_header(encoder).embeds, read_header(chat).embeds, read_header(ranker).ranks) == (True, False, True)
    assert read_header(chat).context_length == 64
    assert isinstance(await only_backend(ModelSettings(path=str(encoder))), EmbeddingModel)
    assert not isinstance(await only_backend(ModelSettings(path=str(chat))), EmbeddingModel)
    with pytest.raises(StartupError, match="reranker"):
        await only_backend(ModelSettings(path=str(ranker)))
    with pytest.raises(StartupError, match="only make embeddings"):
        await only_backend(ModelSettings(path=str(encoder), embeddings=False))


async def only_backend(model: ModelSettings) -> Backend:
    made = (await make_backends(Settings(models={"embedder": model}), None))["embedder"]
    assert isinstance(made, OnDemand)
    return made.resident.backend
