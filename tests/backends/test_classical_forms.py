"""What an answer of a classical model looks like: as published, or as a caller's schema wants it. Needs no model."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

import pydantic
import pytest
from openai.lib._pydantic import to_strict_json_schema

from ore.backends.classical.forms import form_of
from ore.backends.classical.predictor import Kind, Predictor
from ore.backends.classical.published import output_schema
from ore.core.structured import mismatch
from ore.errors import InvalidRequest

VERSION = "sha256:0123456789ab"
HAM = {"label": "ham", "probabilities": {"ham": 0.75, "spam": 0.25}}
SPAM = {"label": "spam", "probabilities": {"ham": 0.0, "spam": 1.0}}


def predictor(kind: Kind = "classification", **more: Any) -> Predictor:
    facts: dict[str, Any] = {"classes": ("ham", "spam"), "probabilities": True} if kind == "classification" else {}
    return Predictor(kind=kind, predict=lambda rows: [{} for _ in rows], version=VERSION, **{**facts, **more})


def wants(schema: Any) -> dict[str, Any]:
    """A `text.format` with that schema, or with that of a pydantic model, as the SDK sends it."""
    if isinstance(schema, type):
        schema = to_strict_json_schema(schema)
    return {"type": "json_schema", "name": "wanted", "schema": schema, "strict": True}


def written(form: Any, answers: Sequence[dict[str, Any]]) -> str:
    return "".join(form.text(answer, at, len(answers)) for at, answer in enumerate(answers))


def told(schema: Any, *answers: dict[str, Any], by: Predictor | None = None, many: bool = False) -> Any:
    """What is answered to a caller with that schema; it satisfies it."""
    wanted = wants(schema)
    text = written(form_of(wanted, by or predictor(), len(answers), many=many), answers)
    assert mismatch(wanted["schema"], text) is None
    return json.loads(text)


def refused(schema: Any, *, by: Predictor | None = None, count: int = 1) -> str:
    with pytest.raises(InvalidRequest) as caught:
        form_of(wants(schema), by or predictor(), count, many=count > 1)
    assert caught.value.param == "text.format.schema"
    return caught.value.message


ANSWERS: list[tuple[Predictor, dict[str, Any]]] = [
    (predictor(), HAM),
    (predictor(probabilities=False), {"label": "spam"}),
    (predictor(classes=(1, 2)), {"label": 2, "probabilities": {"1": 0.5, "2": 0.5}}),
    (predictor("regression"), {"prediction": -1.5}),
    (predictor("regression", outputs=2), {"prediction": [1.0, 2.0]}),
    (predictor("clustering"), {"cluster": 3}),
    (predictor("outliers"), {"outlier": True, "score": -0.1}),
]


@pytest.mark.parametrize(("model", "answer"), ANSWERS)
@pytest.mark.parametrize("format", ["text", "json_object"])
def test_answers_satisfy_the_published_schema(model: Predictor, answer: dict[str, Any], format: str) -> None:
    """One row, a list of one and a list of several, for each kind of model: always an object."""
    for count, many in ((1, False), (1, True), (3, True)):
        text = written(form_of({"type": format}, model, count, many=many), [answer] * count)
        assert mismatch(output_schema(model), text) is None
        told = json.loads(text)
        assert told["model_version"] == VERSION
        assert told.get("predictions", answer.get("label", told)) is not None
        assert ("predictions" in told) == many


@pytest.mark.parametrize(("model", "answer"), ANSWERS)
def test_the_published_schema_may_be_asked_for(model: Predictor, answer: dict[str, Any]) -> None:
    """Whole, or one of its two forms."""
    whole = output_schema(model)
    for schema in (whole, *whole["anyOf"]):
        told(schema, answer, by=model)
    told(whole["anyOf"][1], answer, answer, by=model, many=True)


class Topic(StrEnum):
    HAM = "ham"
    SPAM = "spam"


class Shares(pydantic.BaseModel):
    ham: float
    spam: float


class Mail(pydantic.BaseModel):
    """All that there is, by types of pydantic: references, nested models, literals."""

    label: Literal["ham", "spam"]
    topic: Topic
    confidence: float = pydantic.Field(ge=0, le=1, description="how sure")
    probabilities: Shares
    model_version: str


class Mails(pydantic.BaseModel):
    mails: list[Mail]
    version: str


def test_pydantic_models_are_filled_by_names_and_enums() -> None:
    """A name says what is meant; else an enum of the classes does."""
    mail = Mail.model_validate(told(Mail, HAM))
    assert (mail.label, mail.topic, mail.confidence, mail.probabilities.spam) == ("ham", Topic.HAM, 0.75, 0.25)
    assert mail.model_version == VERSION


def test_an_array_of_rows_is_found_where_it_stands() -> None:
    """Under any name, for one row as for several; what is the same for all may stand beside it."""
    mails = Mails.model_validate(told(Mails, HAM, SPAM, many=True))
    assert [mail.label for mail in mails.mails] == ["ham", "spam"]
    assert mails.version == VERSION
    assert len(told(Mails, HAM)["mails"]) == 1
    assert told({"type": "array", "items": {"type": "object", "properties": {"label": {}}}}, HAM, SPAM, many=True) == [
        {"label": "ham"},
        {"label": "spam"},
    ]


def test_a_list_of_one_row_fills_one_row() -> None:
    assert told(Mail, SPAM, many=True)["label"] == "spam"


def row(required: bool = True, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties) if required else []}


def test_classes_that_are_numbers_may_be_asked_for_as_text() -> None:
    """As JSON writes them."""
    model, answer = predictor(classes=(1, 2)), {"label": 2, "probabilities": {"1": 0.5, "2": 0.5}}
    assert told(row(label={"type": "string"}), answer, by=model) == {"label": "2"}
    assert told(row(label={"type": "integer"}), answer, by=model) == {"label": 2}
    assert told(row(label={"enum": ["1", "2", "3"]}), answer, by=model) == {"label": "2"}


def test_other_kinds_are_filled_too() -> None:
    """Regression, clusters and outliers, by the names that callers use."""
    number, by = {"type": "number"}, predictor("regression")
    assert told(row(value=number), {"prediction": 2.5}, by=by) == {"value": 2.5}
    assert told(row(cluster={"type": "integer"}), {"cluster": 1}, by=predictor("clustering")) == {"cluster": 1}
    answer = {"outlier": False, "score": 0.2}
    schema = row(is_outlier={"type": "boolean"}, score=number)
    assert told(schema, answer, by=predictor("outliers")) == {"is_outlier": False, "score": 0.2}


def test_what_is_not_required_may_be_left_out() -> None:
    assert told(row(required=False, label={"type": "string"}, why={"type": "string"}), HAM) == {"label": "ham"}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (row(label={"type": "string"}, why={"type": "string"}), "'why' is nothing"),
        (row(label={"type": "integer"}), "'label' is of type 'integer'"),
        (row(label={"enum": ["ham"]}), "lacks its class 'spam'"),
        (row(label={"type": "string", "pattern": "^h"}), "'pattern'"),
        (row(label={"type": "string", "maxLength": 3}), "'maxLength'"),
        (row(confidence={"type": "number", "minimum": 0.5}), "does not take every number"),
        (row(probabilities=row(eggs={"type": "number"})), "names 'eggs'"),
        (row(rows={"type": "array", "items": row(label={}), "minItems": 2}), "may not have 1 entries"),
        (row(label={"anyOf": [{"type": "string"}, {"type": "integer"}]}), "alternatives"),
        (row(label={"$ref": "#/$defs/none"}), "$defs/none"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, **row(label={"$ref": "#/$defs/a"})}, "circles"),
        ({"type": "string"}, "is no object"),
        ({"type": "object"}, "is no object"),
        ({**row(label={}), "minProperties": 3}, "'minProperties'"),
        ({**row(label={}), "required": ["other"]}, "'other' is required"),
        ({**row(label={}), "type": 7}, "7"),
        ({"$ref": "#"}, "leads nowhere"),
    ],
)
def test_what_cannot_be_filled_is_named(schema: dict[str, Any], named: str) -> None:
    """And the refusal tells what the model gives."""
    message = refused(schema)
    assert named in message
    assert "label (one of 'ham', 'spam')" in message


def test_one_row_is_no_place_for_several() -> None:
    assert "the input has 2" in refused(Mail, count=2)


def test_a_model_without_probabilities_makes_none_up() -> None:
    """They are refused, and not offered."""
    message = refused(row(label={}, confidence={"type": "number"}), by=predictor(probabilities=False))
    assert "'confidence' is nothing that it says" in message
    assert "probabilit" not in message
