"""The bundled model and ORE agree: the prompts that ORE renders are the ones that the model was trained on."""

import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from ore.backends.base import ModelRequest
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.chat_template import ChatTemplate
from ore.core import history
from ore.protocol.responses import check_create
from ore.settings import BUNDLED_MODELS

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator's modules, which know nothing of ORE."""
    if not TRAINING.is_dir():
        pytest.skip("there is no training/ beside these tests")
    monkeypatch.syspath_prepend(str(TRAINING))
    import evaluate
    import generate
    import schemas

    yield generate, evaluate, schemas
    for name in ("evaluate", "generate", "schemas", "functions", "chat", "words"):
        sys.modules.pop(name, None)


def compact(messages: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    """With the schema of the system message in one spelling: the training shows the model both."""
    head, found, schema = messages[0]["content"].partition(mark)
    if messages[0]["role"] != "system" or not found:
        return messages
    short = json.dumps(json.loads(schema), ensure_ascii=False, separators=(",", ":"))
    return [{**messages[0], "content": head + found + short}, *messages[1:]]


def rendered(template: ChatTemplate, body: dict[str, Any]) -> str:
    number = itertools.count()

    def new_id(kind: str) -> str:
        return f"{kind}_{next(number)}"

    create = check_create(body, new_id)
    request = ModelRequest(
        model="ore-tiny",
        items=history.context((), create.input, new_id).items,
        instructions=create.instructions,
        tools=tuple(create.tools),
        text_format=create.text["format"],
    )
    return template.render(request, plan_tools(request))


def test_prompts_are_those_of_the_training(training: Any) -> None:
    """For every place of generated dialogues at which the assistant speaks, to the byte."""
    generate, evaluate, schemas = training
    template = ChatTemplate((TRAINING / "template.jinja").read_text().rstrip("\n"), eos_token="<|im_end|>")
    dice = random.Random(7)
    seen = 0
    for _ in range(300):
        example = generate.make(dice, unseen=False)
        messages = compact(example.messages, schemas.MARK)
        for end in [i for i, message in enumerate(messages) if message["role"] == "assistant"]:
            expected = generate.render(messages[:end], example.tools, prompt=True)
            assert rendered(template, evaluate.request_of(messages[:end], example.tools)) == expected
            seen += 1
    assert seen > 300


def test_the_bundled_file_carries_the_template(training: Any) -> None:
    """A changed template needs a new export, and a model that was trained on it."""
    source = (TRAINING / "template.jinja").read_bytes().rstrip(b"\n")
    assert source in BUNDLED_MODELS["ore-tiny"].read_bytes()
