"""scikit-learn models out of `.skops` files. Types that neither skops nor scikit-learn vouches for are refused by name.

A skops file is data: it names types, and loading it makes objects of them. Pickles, which run code, are never read.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from ore.backends.base import JsonObject
from ore.backends.classical.predictor import (
    Feature,
    Kind,
    Label,
    Predictor,
    Row,
    Value,
    key_of,
    probabilities_of,
    version_of,
)
from ore.errors import StartupError

logger = logging.getLogger("ore.classical")

MOST_NAMED: Final = 8
"""Types that a refusal names."""

_HARMLESS: Final = ("numpy.dtype",)
"""Types of others that skops leaves to us, and that only describe data."""

NAN: Final = float("nan")

_Tell = Callable[[Any], Any]
_Type = Literal["number", "string", "any"]
_Column = tuple[_Type, Value]
"""The type of a column, and what stands for a missing value of it."""


def load_skops(name: str, path: Path) -> Predictor:
    """The model of a file. Takes seconds: imports scikit-learn. Raises `StartupError`, in one sentence."""
    model = _loaded(name, path)
    # rows come without names, and are put in order by name before
    warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
    kind, first = _kind(name, model), _first_step(model)
    texts = _is_vectorizer(first)
    features, blanks = ((), ()) if texts else _features(name, model, first)
    classes = _classes(name, model) if kind == "classification" else ()
    matrix = list if texts else _matrix(features, blanks)
    has_probabilities = kind == "classification" and hasattr(model, "predict_proba")
    outputs = _outputs(model) if kind == "regression" else 1
    told = _teller(kind, model, classes if has_probabilities else (), outputs)
    return Predictor(
        kind=kind,
        predict=lambda rows: told(matrix(rows)),
        version=version_of(path),
        features=features,
        classes=classes,
        probabilities=has_probabilities,
        outputs=outputs,
    )


def _loaded(name: str, path: Path) -> Any:
    try:
        import skops.io
    except ImportError:
        raise _missing_extra(name) from None
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            unknown = skops.io.get_untrusted_types(file=path)
            own = [named for named in unknown if named in _HARMLESS or _is_sklearn_class(named)]
            if foreign := sorted(set(unknown) - set(own)):
                raise StartupError(_foreign(name, foreign))
            model = skops.io.load(path, trusted=own)
    except StartupError:
        raise
    except Exception as error:
        raise StartupError(
            f"The model {name} is no skops file that can be read ({_line(error)}); save it again with skops.io.dump."
        ) from error
    for warning in said:
        logger.warning("%s: %s", name, _line(warning.message))
    return model


def _missing_extra(name: str) -> StartupError:
    return StartupError(
        f"The model {name} needs scikit-learn; install it with `pip install 'open-responses-engine[sklearn]'`."
    )


def _foreign(name: str, types: Sequence[str]) -> str:
    named = ", ".join(types[:MOST_NAMED]) + (f" and {len(types) - MOST_NAMED} more" if len(types) > MOST_NAMED else "")
    return (
        f"The model {name} contains types that are not scikit-learn's: {named}; they could run code of their own, so "
        "build it without them, or convert it to ONNX."
    )


def _is_sklearn_class(named: str) -> bool:
    """Whether it is a class that scikit-learn itself defines. Functions are not: one may do anything to what it gets.

    The name comes out of the file, so nothing outside scikit-learn is imported for it.
    """
    module, _, attribute = named.rpartition(".")
    if not module.startswith("sklearn."):
        return False
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("sklearn.")


def _line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _kind(name: str, model: Any) -> Kind:
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    kinds: list[tuple[Any, Kind]] = [
        (is_classifier, "classification"),
        (is_outlier_detector, "outliers"),
        (is_clusterer, "clustering"),
        (is_regressor, "regression"),
    ]
    if not hasattr(model, "predict"):
        what = type(model).__name__
        raise StartupError(
            f"The model {name} is a {what}, which cannot predict new rows; save a fitted pipeline that ends with a "
            "classifier, a regressor, a clustering or an outlier detector that has predict."
        )
    for test, kind in kinds:
        if test(model):
            return kind
    raise StartupError(
        f"The model {name} is a {type(model).__name__}, which is no classifier, regressor, clustering or outlier "
        "detector; save one of these."
    )


def _first_step(model: Any) -> Any:
    """The part that sees the rows first."""
    for inner in ("best_estimator_", "estimator_", "regressor_"):
        if hasattr(model, inner):
            return _first_step(getattr(model, inner))
    if hasattr(model, "steps"):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        return _first_step(steps[0]) if steps else model
    if hasattr(model, "transformer_list"):
        return _first_step(model.transformer_list[0][1])
    return model


def _is_vectorizer(step: Any) -> bool:
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer

    return isinstance(step, CountVectorizer | HashingVectorizer)


def _classes(name: str, model: Any) -> tuple[Label, ...]:
    classes = model.classes_
    if isinstance(classes, list):
        raise StartupError(f"The model {name} predicts several labels at once; save one model for each of them.")
    labels = tuple(classes.tolist())
    if not all(isinstance(label, str | int | float) for label in labels):
        raise StartupError(f"The classes of the model {name} are neither text nor numbers; train it with such classes.")
    return labels


def _outputs(model: Any) -> int:
    """Numbers that a regression predicts for each row, as its last step tells."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    shape: tuple[int, ...] = getattr(getattr(last, "coef_", None), "shape", ())
    return int(getattr(last, "n_outputs_", shape[0] if len(shape) == 2 else 1))


def _features(name: str, model: Any, first: Any) -> tuple[tuple[Feature, ...], tuple[Value, ...]]:
    """The features, and what stands for a missing value of each."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        names = getattr(first, "feature_names_in_", None)
    count = len(names) if names is not None else getattr(model, "n_features_in_", getattr(first, "n_features_in_", 0))
    if not count:
        raise StartupError(f"The model {name} does not say which features it takes; fit it, and save it again.")
    columns: list[_Column] = [("number", NAN)] * count
    for at, column in _columns(first):
        columns[at] = column
    named = [f"x{index}" for index in range(count)] if names is None else names.tolist()
    features = tuple(Feature(feature, kind) for feature, (kind, _) in zip(named, columns, strict=True))
    return features, tuple(blank for _, blank in columns)


def _columns(first: Any) -> Iterator[tuple[int, _Column]]:
    """What is known of columns, by their place: the transformers that see them first tell it."""
    if not hasattr(first, "transformers_"):
        yield from enumerate(_told_columns(first))
        return
    for name, transformer, _ in first.transformers_:
        places = first._transformer_to_input_indices.get(name, ())
        unknown: _Column = ("any" if isinstance(transformer, str) else "number", NAN)
        yield from zip(places, _told_columns(transformer) or [unknown] * len(places), strict=True)


def _told_columns(transformer: Any) -> list[_Column]:
    """Of the columns that a transformer sees, in order; empty where all of them are numbers, or nobody knows."""
    first = _first_step(transformer)
    if _is_vectorizer(first):
        return [("string", "")]
    if hasattr(first, "categories_"):
        return [_category(categories) for categories in first.categories_]
    if hasattr(first, "statistics_"):
        return [("string" if isinstance(value, str) else "number", NAN) for value in first.statistics_]
    return []


def _category(categories: Any) -> _Column:
    known = categories.tolist()
    texts = any(isinstance(value, str) for value in known)
    return ("string" if texts else "number", None if None in known else NAN)


def _matrix(features: Sequence[Feature], blanks: Sequence[Value]) -> _Tell:
    """Rows as the array that the model takes: of numbers, or of objects where columns differ in type."""
    import numpy

    if all(feature.type == "number" for feature in features):
        return lambda rows: numpy.array(rows, dtype=float)  # None becomes nan

    def mixed(rows: Sequence[Row]) -> Any:
        matrix = numpy.empty((len(rows), len(features)), dtype=object)
        for at, row in enumerate(rows):
            matrix[at] = [blank if value is None else value for value, blank in zip(row, blanks, strict=True)]
        return matrix

    return mixed


def _teller(kind: Kind, model: Any, classes: Sequence[Label], outputs: int) -> _Tell:
    """What the model says of a matrix, row by row. Without `classes` a classifier gives labels alone."""
    match kind:
        case "classification":
            return _classified(model, classes)
        case "regression":
            return _regressed(model, outputs)
        case "clustering":
            return lambda matrix: [{"cluster": cluster} for cluster in model.predict(matrix).tolist()]
        case "outliers":
            return _detected(model)


def _classified(model: Any, classes: Sequence[Label]) -> _Tell:
    """Labels by `predict`: the likeliest class is not what every classifier predicts."""
    keys = [key_of(label) for label in classes]

    def tell(matrix: Any) -> list[JsonObject]:
        labels = model.predict(matrix).tolist()
        if not keys:
            return [{"label": label} for label in labels]
        shares = model.predict_proba(matrix).tolist()
        return [
            {"label": label, "probabilities": probabilities_of(keys, row)}
            for label, row in zip(labels, shares, strict=True)
        ]

    return tell


def _regressed(model: Any, outputs: int) -> _Tell:
    def tell(matrix: Any) -> list[JsonObject]:
        values = model.predict(matrix).reshape(-1, outputs).tolist()
        return [{"prediction": row if outputs > 1 else row[0]} for row in values]

    return tell


def _detected(model: Any) -> _Tell:
    def tell(matrix: Any) -> list[JsonObject]:
        found, scores = model.predict(matrix).tolist(), model.decision_function(matrix).tolist()
        return [{"outlier": sign < 0, "score": score} for sign, score in zip(found, scores, strict=True)]

    return tell
