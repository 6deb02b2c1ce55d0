"""The schemas that a classical model publishes in `GET /v1/models`: what it takes, and what every answer satisfies."""

from typing import Final

from ore.backends.base import JsonObject
from ore.backends.classical.predictor import Predictor, key_of

VERSION: Final = "model_version"
ROWS: Final = "predictions"


def output_schema(predictor: Predictor) -> JsonObject:
    """What every answer satisfies: one row, or `predictions` of several."""
    return {"anyOf": [one_schema(predictor), several_schema(predictor)]}


def input_schema(predictor: Predictor) -> JsonObject:
    """What the text of the user may be: JSON of this schema; for a text pipeline, any text too."""
    if predictor.is_text:
        row: JsonObject = {"type": "string"}
    else:
        row = _object({feature.name: _feature(feature.type, feature.nullable) for feature in predictor.features})
    return {"anyOf": [row, {"type": "array", "items": row, "minItems": 1}]}


def _feature(type: str, nullable: bool) -> JsonObject:
    types = ["string", "number", "boolean"] if type == "any" else [type]
    return {"type": [*types, "null"] if nullable else types[0]}


def one_schema(predictor: Predictor) -> JsonObject:
    return _object({**answer_schema(predictor), VERSION: {"const": predictor.version}})


def several_schema(predictor: Predictor) -> JsonObject:
    rows = {"type": "array", "items": _object(answer_schema(predictor))}
    return _object({ROWS: rows, VERSION: {"const": predictor.version}})


def answer_schema(predictor: Predictor) -> JsonObject:
    number = {"type": "number"}
    match predictor.kind:
        case "classification":
            label = {"label": {"enum": list(predictor.classes)}}
            share = {"type": "number", "minimum": 0, "maximum": 1}
            shares = {"probabilities": _object({key_of(each): share for each in predictor.classes})}
            return {**label, **(shares if predictor.probabilities else {})}
        case "regression" if predictor.outputs > 1:
            count = predictor.outputs
            return {"prediction": {"type": "array", "items": number, "minItems": count, "maxItems": count}}
        case "regression":
            return {"prediction": number}
        case "clustering":
            return {"cluster": {"type": "integer"}}
        case "outliers":
            return {"outlier": {"type": "boolean"}, "score": number}


def _object(properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
