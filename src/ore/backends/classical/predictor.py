"""What a loaded model is, whatever file it came from: a kind, features, classes, and a function of rows."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject

Kind = Literal["classification", "regression", "clustering", "outliers"]
Label = str | int | float | bool
Value = str | int | float | bool | None

Row = str | tuple[Value, ...]
"""A text, for a text pipeline; else a value for each feature, in the model's order."""

VERSION_DIGITS: Final = 12


class Feature(Struct, frozen=True):
    """A column that the model expects. `any`: nothing is known of its type but that it is no list and no object."""

    name: str
    type: Literal["number", "integer", "string", "any"] = "number"
    nullable: bool = True
    """Whether a value may be missing. The model may refuse it nevertheless, when it is asked."""


class Predictor(Struct, frozen=True, kw_only=True):
    """A model that is ready. `predict` is called on one thread, and gives an object for each row: what `answer_schema`
    describes.

    `predict` raises `ValueError` for values that the model cannot work with.
    """

    kind: Kind
    predict: Callable[[Sequence[Row]], list[JsonObject]]
    version: str
    features: tuple[Feature, ...] = ()
    """Empty for a text pipeline."""
    classes: tuple[Label, ...] = ()
    probabilities: bool = False
    """Whether a classifier tells how likely each class is."""
    outputs: int = 1
    """Numbers that a regression predicts for each row."""

    @property
    def is_text(self) -> bool:
        return not self.features


def key_of(label: Label) -> str:
    """A class as the key of an object: itself, or as JSON writes it."""
    return label if isinstance(label, str) else msgspec.json.encode(label).decode()


def probabilities_of(keys: Sequence[str], shares: Sequence[Any]) -> dict[str, float]:
    """By class. 32-bit arithmetic may step over 0 and 1 by a rounding error."""
    return {key: min(1.0, max(0.0, float(share))) for key, share in zip(keys, shares, strict=True)}


def version_of(path: Path) -> str:
    """A model's version is the beginning of its file's SHA-256."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:VERSION_DIGITS]}"
