"""Models on this machine that see: llama.cpp with a projector of random weights, driven for real.

A random model says nothing sensible of an image. That it says another thing of another image, and counts it, is what
can be known.
"""

import base64
import contextlib
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from local_random_gguf import TEMPLATE, write_random_gguf
from local_random_projector import TOKENS, write_random_projector

from ore.backends.base import JsonObject, ModelRequest, Sampling
from ore.backends.local.llama_cpp import LlamaCpp
from ore.backends.local.local_model import LocalModel
from ore.backends.local.options import LlamaCppOptions
from ore.core.deltas import Finish, Text
from ore.engines import make_backends
from ore.errors import InvalidRequest
from ore.settings import ModelSettings, Settings

Image: Any = pytest.importorskip("PIL.Image")

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

COLD = Sampling(temperature=0.0)

PARTS_ONLY = """\
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}
{%- for part in message.content %}{%- if part.type == 'text' %}{{- part.text }}{%- endif %}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def seeing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalModel]:
    async with running(tmp_path_factory.mktemp("models")) as made:
        yield made


@contextlib.asynccontextmanager
async def running(folder: Path, template: str = TEMPLATE) -> AsyncIterator[LocalModel]:
    model = write_random_gguf(folder / "model.gguf", context=512, template=template)
    projector = write_random_projector(folder / "mmproj.gguf")
    options = LlamaCppOptions(path=model, projector=projector, slots=2, batch=64)
    made = LocalModel("seeing", options, LlamaCpp("seeing", options))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def picture(color: str, size: tuple[int, int] = (50, 40)) -> JsonObject:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def text(said: str) -> JsonObject:
    return {"type": "input_text", "text": said}


def ask(*parts: JsonObject, **fields: Any) -> ModelRequest:
    item = {"type": "message", "role": "user", "content": list(parts)}
    defaults = {"max_output_tokens": 16, "sampling": COLD, "items": (item,), "places": (0,)}
    return ModelRequest(model="seeing", **(defaults | fields))


async def said(model: LocalModel, request: ModelRequest) -> tuple[str, Finish]:
    async with model.stream(request) as stream:
        deltas = [delta async for delta in stream]
    finish = deltas[-1]
    assert isinstance(finish, Finish)
    return "".join(delta.text for delta in deltas if isinstance(delta, Text)), finish


async def test_what_a_model_says_depends_on_the_image(seeing: LocalModel) -> None:
    """On which one, and on their order; and the same image is seen the same way again, from the prompt cache."""
    assert seeing._model().capabilities.images
    red, blue = picture("red"), picture("blue")
    asked = [(red, blue), (blue, red), (red, red)]
    answers = [(await said(seeing, ask(text("look"), *pair, text("!")))) for pair in asked]
    assert len({answer for answer, _ in answers}) == 3
    again, finish = await said(seeing, ask(text("look"), red, blue, text("!")))
    assert again == answers[0][0]
    assert finish.usage.cached_tokens > 2 * TOKENS


async def test_images_are_counted(seeing: LocalModel) -> None:
    """What is counted beforehand is what is used."""
    request = ask(text("look"), picture("red"), picture("blue"), text("!"))
    counted = await seeing.count_tokens(request)
    _, finish = await said(seeing, request)
    assert counted == finish.usage.input_tokens
    without = ask(text("look"), text("\n"), text("!"))
    assert counted > await seeing.count_tokens(without) + TOKENS


async def test_images_in_results_of_tools_are_seen(seeing: LocalModel) -> None:
    def request(color: str) -> ModelRequest:
        call = {"type": "function_call", "call_id": "c", "name": "shoot", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c", "output": [text("done"), picture(color)]}
        return ask(items=(call, output), places=(0, 1))

    assert (await said(seeing, request("red")))[0] != (await said(seeing, request("blue")))[0]


async def test_no_text_stands_for_an_image(seeing: LocalModel) -> None:
    """Not even the engine's own marker, should a client know it: there are as many images as were sent."""
    marker = (await seeing.engine.facts()).image_marker
    assert marker
    _, finish = await said(seeing, ask(text(f"{marker} <__media__> <image>"), picture("red"), text(marker)))
    assert finish.usage.input_tokens > 50 + TOKENS
    _, finish = await said(seeing, ask(text(f"{marker} <__media__> <image>")))
    assert finish.usage.input_tokens > 50


async def test_images_that_do_not_fit_are_refused_beforehand(seeing: LocalModel) -> None:
    request = ask(text("a" * 480), *[picture("red")] * 8)
    with pytest.raises(InvalidRequest, match="context") as refused:
        async with seeing.stream(request):
            pass
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "input_image", "image_url": "https://example.org/a.png"}, "invalid_image"),
        ({"type": "input_image", "image_url": None, "file_id": "file_1"}, "invalid_image"),
        ({"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}, "invalid_image"),
    ],
)
async def test_what_cannot_be_seen_is_refused_by_its_place(seeing: LocalModel, part: JsonObject, code: str) -> None:
    """An image of an earlier turn has no place in this request, and is the input's."""
    with pytest.raises(InvalidRequest) as refused:
        await said(seeing, ask(text("look"), part))
    assert (refused.value.param, refused.value.code) == ("input[0].content[1].image_url", code)
    with pytest.raises(InvalidRequest) as refused:
        await said(seeing, ask(text("look"), part, places=()))
    assert refused.value.param == "input"


async def test_an_engine_that_came_back_sees_as_before(tmp_path: Path) -> None:
    """What stands for an image is the same to every process of a model."""
    async with running(tmp_path) as model:
        before, _ = await said(model, ask(text("look"), picture("red")))
        assert model.engine.pid is not None
        os.kill(model.engine.pid, signal.SIGKILL)
        assert await model.engine.back(30)
        after, _ = await said(model, ask(text("look"), picture("red")))
        assert before == after


async def test_templates_that_only_read_parts_are_given_parts(tmp_path: Path) -> None:
    """As those of some models that see are; the text and the image are there all the same."""
    async with running(tmp_path, PARTS_ONLY) as model:
        red, blue = [await said(model, ask(text("look"), picture(color))) for color in ("red", "blue")]
        assert red[0] != blue[0]
        assert red[1].usage.input_tokens > len("look") + TOKENS


async def test_the_projector_is_a_setting(tmp_path: Path) -> None:
    """Without it the same model sees nothing, says so, and is told in words that there was an image."""
    path = str(write_random_gguf(tmp_path / "model.gguf", context=512))
    projector = str(write_random_projector(tmp_path / "mmproj.gguf"))
    models = {"seeing": ModelSettings(path=path, projector=projector), "blind": ModelSettings(path=path)}
    backends = await make_backends(Settings(models=models), None)
    for name, backend in backends.items():
        await backend.start()
        try:
            (model,) = await backend.models()
            assert model.capabilities.images == (name == "seeing")
            counted = await backend.count_tokens(ask(picture("red")))
            assert (counted > 40) == (name == "blind")
        finally:
            await backend.stop()
