"""Unchanged `openai` code against a real `ore serve` of classical models: what comes back is what scikit-learn says."""

import asyncio
import csv
import io
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

from classical_models import saved, sentences, text_classifier, wine_classifier, wine_table
from clients.wire import get
from ore.core.structured import mismatch
from servers import OreProcess

numpy = pytest.importorskip("numpy")
pytest.importorskip("sklearn")
pytest.importorskip("skops")

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")

SETTINGS = """\
[models.intents]
path = "intents.skops"
[models.other]
path = "other.skops"
[models.wine]
path = "wine.skops"
[models.desk]
targets = ["other", "intents"]
classifier = "intents"
labels = {billing = "intents"}
[sklearn]
max_rows = 5000
[guard]
model = "intents"
refuse_labels = ["praise"]
threshold = 0.95
"""

REFUSED = "love great thanks wonderful happy excellent perfect awesome"


class Intent(pydantic.BaseModel):
    label: Literal["billing", "support", "praise"]
    confidence: float


class Wine(pydantic.BaseModel):
    label: str
    probabilities: dict[str, float]
    model_version: str


class Wines(pydantic.BaseModel):
    wines: list[Wine]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OreProcess]:
    folder = tmp_path_factory.mktemp("classical")
    saved(text_classifier(), folder / "intents.skops")
    saved(text_classifier().fit(*sentences(100, seed=9)), folder / "other.skops")
    saved(wine_classifier(), folder / "wine.skops")
    (folder / "ore.toml").write_text(SETTINGS)
    with OreProcess(folder, "--config", str(folder / "ore.toml")) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: OreProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
        yield client


def wine_rows(count: int) -> Any:
    """So many rows near those of the data set."""
    rows, _, _ = wine_table()
    noise = numpy.random.default_rng(0)
    return rows[noise.integers(0, len(rows), count)] * noise.uniform(0.8, 1.2, (count, rows.shape[1]))


def as_objects(rows: Any) -> list[dict[str, float]]:
    _, names, _ = wine_table()
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def file_part(name: str, kind: str, data: bytes) -> Any:
    encoded = f"data:{kind};base64,{b64encode(data).decode()}"
    return [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Which wines are these?"},
                {"type": "input_file", "filename": name, "file_data": encoded},
            ],
        }
    ]


def published(client: OpenAI, model: str) -> dict[str, Any]:
    schema = client.models.retrieve(model).model_dump()["output_schema"]
    assert isinstance(schema, dict)
    return schema


# Answers


def test_a_text_is_classified_into_a_model_of_pydantic(client: OpenAI) -> None:
    """`parse` gives what scikit-learn predicts."""
    text = "my card has a charge and a refund on the invoice"
    intent = client.responses.parse(model="intents", input=text, text_format=Intent).output_parsed
    assert intent is not None
    assert intent.label == text_classifier().predict([text])[0]
    assert intent.confidence == text_classifier().predict_proba([text]).max()


def test_a_row_is_classified_into_a_model_of_pydantic(client: OpenAI) -> None:
    """A list of one may be asked of, too."""
    (row,) = as_objects(wine_rows(1))
    for text in (json.dumps(row), json.dumps([row])):
        wine = client.responses.parse(model="wine", input=text, text_format=Wine).output_parsed
        assert wine is not None
        assert wine.label == wine_classifier().predict(wine_rows(1))[0]
        assert wine.model_version.startswith("sha256:")


def test_a_batch_of_1000_rows_is_what_scikit_learn_predicts(client: OpenAI) -> None:
    """Labels and probabilities, number by number, in the caller's own form and in the published one."""
    rows, model = wine_rows(1000), wine_classifier()
    asked = json.dumps(as_objects(rows))
    wines = client.responses.parse(model="wine", input=asked, text_format=Wines).output_parsed
    assert wines is not None
    assert [wine.label for wine in wines.wines] == model.predict(rows).tolist()
    assert [list(wine.probabilities.values()) for wine in wines.wines] == model.predict_proba(rows).tolist()
    plain = client.responses.create(model="wine", input=asked)
    assert mismatch(published(client, "wine"), plain.output_text) is None
    assert [row["label"] for row in json.loads(plain.output_text)["predictions"]] == model.predict(rows).tolist()
    assert plain.usage is not None
    assert (plain.usage.input_tokens, plain.usage.output_tokens) == (13_000, 1000)


def test_1000_concurrent_texts_are_what_scikit_learn_predicts(server: OreProcess) -> None:
    """Each client gets its own answer, although they are predicted together."""
    texts, _ = sentences(1000, seed=5)
    expected = [shares.max() for shares in text_classifier().predict_proba(texts)]
    plain = [text for text, share in zip(texts, text_classifier().predict_proba(texts), strict=True) if share[1] < 0.9]

    async def ask() -> list[Intent | None]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
            answers = [
                client.responses.parse(model="intents", input=text, text_format=Intent, store=False) for text in plain
            ]
            return [answer.output_parsed for answer in await asyncio.gather(*answers)]

    assert len(expected) == 1000
    told = [intent and (intent.label, intent.confidence) for intent in asyncio.run(ask())]
    model = text_classifier()
    shares = model.predict_proba(plain).max(axis=1).tolist()
    assert told == list(zip(model.predict(plain).tolist(), shares, strict=True))
    assert get(server.url, "/readyz?verbose").json()["backends"]["intents"]["batches"] < len(plain)


def test_a_batch_streams_row_by_row(client: OpenAI) -> None:
    """One delta for each row, and together they are the JSON."""
    rows = wine_rows(600)
    asked = json.dumps(rows.tolist())
    with client.responses.stream(model="wine", input=asked) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert len(deltas) == 600
    assert [row["label"] for row in json.loads("".join(deltas))["predictions"]] == (
        wine_classifier().predict(rows).tolist()
    )


def test_csv_and_parquet_are_batches(client: OpenAI) -> None:
    """With the columns in any order."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows, (_, names, _) = wine_rows(100), wine_table()
    table = {name: rows[:, at] for at, name in reversed(list(enumerate(names)))}
    text, binary = io.StringIO(), io.BytesIO()
    writer = csv.writer(text)
    writer.writerows([table, *zip(*(column.tolist() for column in table.values()), strict=True)])
    parquet.write_table(pyarrow.table(table), binary)
    for asked in (
        file_part("w.csv", "text/csv", text.getvalue().encode()),
        file_part("w.parquet", "application/vnd.apache.parquet", binary.getvalue()),
    ):
        wines = client.responses.parse(model="wine", input=asked, text_format=Wines).output_parsed
        assert wines is not None
        assert [wine.label for wine in wines.wines] == wine_classifier().predict(rows).tolist()


def test_answers_are_responses_like_any_other(client: OpenAI) -> None:
    """They are stored, continue a chain, run in the background, and are counted before."""
    first = client.responses.create(model="intents", input="a crash after the update")
    second = client.responses.create(model="intents", input="the invoice", previous_response_id=first.id)
    assert json.loads(second.output_text)["label"] == "billing"
    assert client.responses.retrieve(first.id).output_text == first.output_text
    with client.responses.create(model="intents", input="the invoice", background=True, stream=True) as events:
        last = list(events)[-1]
    assert last.type == "response.completed"
    assert json.loads(last.response.output_text)["label"] == "billing"
    assert client.responses.input_tokens.count(model="intents", input="a" * 41).input_tokens == 11


# Refusals


def test_a_model_lists_what_it_takes(client: OpenAI) -> None:
    """Features with their types, abilities, and no tools."""
    model = client.models.retrieve("wine").model_dump()
    (row, rows) = model["input_schema"]["anyOf"]
    assert list(row["properties"]) == wine_table()[1]
    assert rows["items"] == row
    assert (model["capabilities"]["tools"], model["capabilities"]["files"]) == (False, True)


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"input": "Hello"}, "input", "alcohol (number)"),
        ({"input": '{"alcohol": 13}'}, "input", "lacks 'malic_acid'"),
        ({"input": "[[1]]"}, "input", "Row 1 has 1 values instead of 13"),
        ({"input": json.dumps([[1.0] * 12 + ["x"]])}, "input", "'proline' of type a string"),
        ({"input": json.dumps([[1.0] * 13] * 5001)}, "input", "takes 5,000 at a time"),
        ({"input": json.dumps([[1.0] * 13] * 2), "max_output_tokens": 1}, "max_output_tokens", "has 2 rows"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools", "calls no tools"),
        ({"include": ["message.output_text.logprobs"]}, "include", "no logprobs"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,a"}]}]},
            "input",
            "no parts of type 'input_image'",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "string"}, "strict": True}}},
            "text.format.schema",
            "no object",
        ),
    ],
)
def test_what_it_cannot_do_is_a_400(client: OpenAI, asked: dict[str, Any], param: str, said: str) -> None:
    """Before anything is said, streaming or not."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**{"model": "wine", "input": json.dumps([[1.0] * 13]), "stream": stream, **asked})
        assert caught.value.param == param
        assert said in caught.value.message


def test_how_to_sample_means_nothing(client: OpenAI) -> None:
    """A caller that sends it with every request gets the same answer."""
    how: dict[str, Any] = {"temperature": 1.5, "top_p": 0.1, "max_output_tokens": 16, "tool_choice": "none"}
    plain = client.responses.create(model="intents", input="the invoice").output_text
    assert client.responses.create(model="intents", input="the invoice", **how).output_text == plain


# Routing and the guard


def test_a_classifier_picks_the_target(client: OpenAI) -> None:
    """By what the user said last; labels that are not named leave the order as it is."""
    versions = {model: json.loads(client.responses.create(model=model, input="x").output_text) for model in MODELS}
    for text, target in (("a refund of the charge", "intents"), ("crash error broken", "other")):
        asked = [{"role": "user", "content": "crash"}, {"role": "user", "content": text}]
        answer = client.responses.create(model="desk", input=asked, metadata={"ore.route": ""})  # type: ignore[arg-type]
        assert json.loads(answer.output_text)["model_version"] == versions[target]["model_version"]
        assert answer.metadata is not None
        assert answer.metadata["ore.route"].startswith(target)


MODELS = ("intents", "other")


def test_the_guard_refuses_inputs(client: OpenAI) -> None:
    """With the code that clients know. The model of the guard itself is asked without being checked."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="other", input=REFUSED, stream=stream)
        assert (caught.value.code, caught.value.param) == ("content_filter", "input")
    assert client.responses.create(model="other", input="the invoice").status == "completed"
    assert json.loads(client.responses.create(model="intents", input=REFUSED).output_text)["label"] == "praise"


def test_a_file_with_types_of_others_does_not_start(tmp_path: Path) -> None:
    """One sentence that names them, and exit status 2."""
    import os

    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    path = saved(make_pipeline(FunctionTransformer(os.system), Ridge()), tmp_path / "bad.skops")
    server = OreProcess(tmp_path, str(path))
    with pytest.raises(AssertionError, match=rf"{os.name}\.system"):
        server.__enter__()
    assert server.stop() == 2
