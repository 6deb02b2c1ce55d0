"""Classical models out of `.onnx` files, run by onnxruntime: nothing of scikit-learn is needed.

What the file does not say stands in its metadata or in a sidecar, `FILE.onnx.json`: `kind`, `features` and `classes`.
What is still not known is asked of the operator, in one sentence; nothing is guessed.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.classical.predictor import (
    Feature,
    Kind,
    Label,
    Predictor,
    Row,
    key_of,
    probabilities_of,
    version_of,
)
from ore.errors import StartupError


class Notes(Struct, frozen=True):
    """What a sidecar or the file's own metadata tells; the sidecar goes first."""

    kind: Kind | None = None
    features: tuple[str, ...] = ()
    classes: tuple[Label, ...] = ()


_TYPES: Final[Mapping[str, tuple[Literal["number", "integer", "string"], str]]] = {
    "tensor(float)": ("number", "float32"),
    "tensor(double)": ("number", "float64"),
    "tensor(int64)": ("integer", "int64"),
    "tensor(int32)": ("integer", "int32"),
    "tensor(string)": ("string", "object"),
}
"""ONNX's types of inputs: what a client sends, and numpy's name."""


def load_onnx(name: str, path: Path) -> Predictor:
    """The model of a file. Raises `StartupError`, in one sentence."""
    session = _session(name, path)
    notes = _notes(name, path, session)
    inputs = session.get_inputs()
    texts = len(inputs) == 1 and inputs[0].type == "tensor(string)" and not notes.features and _width(inputs[0]) == 1
    features = () if texts else _features(name, inputs, notes)
    outputs = session.get_outputs()
    kind = notes.kind or _kind(name, outputs)
    run = _runner(session, inputs)
    classes = _classes(name, notes, lambda: run(["" if texts else _blank(features)])) if _classifies(kind) else ()
    tell = _teller(kind, classes)
    return Predictor(
        kind=kind,
        predict=lambda rows: tell(run(rows)),
        version=version_of(path),
        features=features,
        classes=classes,
        probabilities=_classifies(kind) and len(outputs) > 1,
        outputs=(_width(outputs[0]) or 1) if kind == "regression" else 1,
    )


def _classifies(kind: Kind) -> bool:
    return kind == "classification"


def _runner(session: Any, inputs: Sequence[Any]) -> Callable[[Sequence[Row]], Sequence[Any]]:
    """Runs rows through the model. Raises `ValueError` where it fails: only the values differ from run to run."""
    feed = _feed(inputs)

    def run(rows: Sequence[Row]) -> Sequence[Any]:
        try:
            return session.run(None, feed([(row,) if isinstance(row, str) else row for row in rows]))  # type: ignore[no-any-return]
        except Exception as error:
            raise ValueError(str(error).rpartition("Status Message: ")[2]) from error

    return run


def _session(name: str, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise StartupError(
            f"The model {name} needs onnxruntime; install it with `pip install 'open-responses-engine[sklearn]'`."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise StartupError(f"The model {name} is no ONNX file that can be run ({reason}); convert it again.") from error


def _notes(name: str, path: Path, session: Any) -> Notes:
    """Raises `StartupError` for notes that are none."""
    told = session.get_modelmeta().custom_metadata_map
    found: JsonObject = {key: _decoded(told[key]) for key in Notes.__struct_fields__ if key in told}
    sidecar = path.with_name(f"{path.name}.json")
    try:
        if sidecar.is_file():
            found |= msgspec.json.decode(sidecar.read_bytes(), type=JsonObject)
        return msgspec.convert(found, Notes)
    except (OSError, msgspec.DecodeError) as error:
        raise StartupError(
            f"What {sidecar.name} or the metadata of the model {name} say cannot be used ({error}); write kind, "
            "features and classes there."
        ) from error


def _decoded(text: str) -> Any:
    """Metadata are texts; lists in them are JSON."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _width(node: Any) -> int:
    """Columns of an input; 0 when the file leaves that open."""
    size = node.shape[1] if len(node.shape) == 2 else 1
    return size if isinstance(size, int) else 0


def _features(name: str, inputs: Sequence[Any], notes: Notes) -> tuple[Feature, ...]:
    if foreign := [node.type for node in inputs if node.type not in _TYPES]:
        raise StartupError(
            f"The model {name} has an input of type {foreign[0]}, which no row can fill; convert it again."
        )
    types = [_TYPES[node.type][0] for node in inputs]
    if len(inputs) == 1:
        width = _width(inputs[0]) or len(notes.features)
        types = types * width
        names = list(notes.features) or [f"x{index}" for index in range(width)]
    else:
        names = list(notes.features) or [node.name for node in inputs]
    if not names or len(names) != len(types):
        raise StartupError(
            f"The model {name} takes {len(types) or 'some'} features and names {len(names)}; write the names as "
            '"features" into a file beside it, with .json behind its name.'
        )
    return tuple(Feature(*pair, nullable=pair[1] == "number") for pair in zip(names, types, strict=True))


def _blank(features: Sequence[Feature]) -> tuple[Any, ...]:
    """A row that any model takes, to see what it says."""
    return tuple("" if feature.type == "string" else 0 for feature in features)


def _feed(inputs: Sequence[Any]) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """Rows as what the inputs take: one matrix, or a column for each."""
    import numpy

    if len(inputs) == 1:
        name, kind = inputs[0].name, _TYPES[inputs[0].type][1]
        flat = len(inputs[0].shape) == 1
        return lambda rows: {name: numpy.array(rows, dtype=kind).reshape(-1 if flat else (len(rows), -1))}

    def columns(rows: Sequence[Any]) -> dict[str, Any]:
        return {
            node.name: numpy.array(column, dtype=_TYPES[node.type][1]).reshape(-1, 1)
            for node, column in zip(inputs, zip(*rows, strict=True), strict=True)
        }

    return columns


def _kind(name: str, outputs: Sequence[Any]) -> Kind:
    """By its outputs. One that gives integers and numbers may be of several kinds."""
    if outputs[0].type == "tensor(string)" or (len(outputs) == 2 and outputs[1].type.startswith("seq(map(")):
        return "classification"
    if len(outputs) == 1 and outputs[0].type in ("tensor(float)", "tensor(double)"):
        return "regression"
    raise StartupError(
        f"The model {name} does not say what it predicts; write a file beside it, with .json behind its name, such as "
        '{"kind": "classification", "classes": ["ham", "spam"]}.'
    )


def _classes(name: str, notes: Notes, probe: Callable[[], Sequence[Any]]) -> tuple[Label, ...]:
    """Those of the notes; or the keys of a map of probabilities, where a blank row gives one."""
    if notes.classes:
        return notes.classes
    with contextlib.suppress(ValueError):
        said = probe()
        if len(said) > 1 and isinstance(said[1], list):
            return tuple(said[1][0])
    raise StartupError(
        f'The model {name} does not say which classes it knows; write them as "classes" into a file beside it, with '
        ".json behind its name."
    )


def _teller(kind: Kind, classes: Sequence[Label]) -> Callable[[Sequence[Any]], list[JsonObject]]:
    """What an answer of the runtime says, row by row."""
    match kind:
        case "classification":
            return lambda said: _classified(said, classes)
        case "regression":
            return lambda said: [{"prediction": _single(row)} for row in said[0].tolist()]
        case "clustering":
            return lambda said: [{"cluster": cluster} for cluster in said[0].ravel().tolist()]
        case "outliers":
            return lambda said: [
                {"outlier": sign < 0, "score": score}
                for sign, score in zip(said[0].ravel().tolist(), said[1].ravel().tolist(), strict=True)
            ]


def _single(row: Any) -> Any:
    return row[0] if isinstance(row, list) and len(row) == 1 else row


def _classified(said: Sequence[Any], classes: Sequence[Label]) -> list[JsonObject]:
    labels = [_label(label, classes) for label in said[0].ravel().tolist()]
    if len(said) < 2:
        return [{"label": label} for label in labels]
    keys = [key_of(label) for label in classes]
    rows = [list(row.values()) for row in said[1]] if isinstance(said[1], list) else said[1].tolist()
    return [
        {"label": label, "probabilities": probabilities_of(keys, row)} for label, row in zip(labels, rows, strict=True)
    ]


def _label(label: Label, classes: Sequence[Label]) -> Label:
    """The class; a label that is none of the classes is the place of one."""
    return label if label in classes else classes[int(label)]
