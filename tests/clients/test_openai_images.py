"""Unchanged `openai` code that shows images to models on this machine, against a real `ore serve`."""

import base64
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from servers import OreProcess

sys.path.append(str(Path(__file__).parents[1] / "backends"))  # where the writers of models are

from local_random_gguf import write_random_gguf
from local_random_projector import TOKENS, write_random_projector

Image: Any = pytest.importorskip("PIL.Image")

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder = tmp_path_factory.mktemp("images")
    path = str(write_random_gguf(folder / "model.gguf", context=1024))
    projector = str(write_random_projector(folder / "mmproj.gguf"))
    environ = {
        "ORE_MODELS__SEEING__PATH": path,
        "ORE_MODELS__SEEING__PROJECTOR": projector,
        "ORE_MODELS__BLIND__PATH": path,
    }
    with (
        OreProcess(folder, environ=environ) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0, timeout=60) as client,
    ):
        yield client


def shown(color: str) -> Any:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(file, "JPEG")
    return message("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())


def message(url: str) -> Any:
    return [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": url}],
        }
    ]


def ask(client: OpenAI, input: Any, model: str = "seeing", **more: Any) -> Any:
    return client.responses.create(model=model, input=input, temperature=0, max_output_tokens=16, **more)


def test_an_image_reaches_a_model_that_sees(client: OpenAI) -> None:
    """Two images have two answers; the tokens are those that were counted; a chain brings the image along."""
    red, blue = ask(client, shown("red")), ask(client, shown("blue"))
    assert red.output_text != blue.output_text
    counted = client.responses.input_tokens.count(model="seeing", input=shown("red"))
    assert red.usage.input_tokens == counted.input_tokens > TOKENS
    chained = [ask(client, "And now?", previous_response_id=one.id).usage for one in (red, blue)]
    assert all(usage.input_tokens > red.usage.input_tokens for usage in chained)
    assert client.models.retrieve("seeing").model_dump()["capabilities"]["images"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", "Send a data URL"),
        ("data:image/png;base64,iVBORw0KGgo=", "cut off"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "PNG, JPEG, WebP or GIF"),
    ],
)
def test_what_cannot_be_seen_is_a_400_that_names_the_place(client: OpenAI, url: str, said: str) -> None:
    """Also where the request goes on from a stored response: the place is counted in what was sent."""
    first = ask(client, "Hello!")
    for more in ({}, {"previous_response_id": first.id}):
        with pytest.raises(openai.BadRequestError, match=said) as refused:
            ask(client, message(url), **more)
        assert refused.value.param == "input[0].content[1].image_url"
        assert refused.value.code == "invalid_image"


def test_a_model_that_cannot_see_says_so(client: OpenAI) -> None:
    """The answer has a warning, and the model was told in words that there was an image."""
    answer = client.responses.with_raw_response.create(model="blind", input=shown("red"), max_output_tokens=4)
    assert "cannot see" in answer.headers["x-ore-warning"]
    assert not client.models.retrieve("blind").model_dump()["capabilities"]["images"]
