"""What a request says, as rows of a model's features: JSON, a text, or a file with a table.

Everything is checked against what the model expects, and a refusal lists that. Only what the user said last is read;
nothing is opened that is not in the request.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import anyio.to_thread
import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.classical.predictor import Feature, Predictor, Row, Value
from ore.backends.classical.tables import read_table
from ore.errors import InvalidRequest
from ore.protocol.decoding import quoted, quoted_all, type_name

MOST_NAMED: Final = 30
"""Features that a refusal lists."""

LONG: Final = 64 * 1024
"""Characters above which reading a request would keep others waiting."""


class Rows(Struct, frozen=True):
    """`many`: whether they came as a list, and are answered with one."""

    rows: Sequence[Row]
    many: bool


async def read_rows(request: ModelRequest, predictor: Predictor, most: int) -> Rows:
    """The rows of the last message of the user. Raises `InvalidRequest`."""
    said = _said_last(request)

    def read() -> Rows:
        found = _from_text(said.text, predictor) if said.file is None else _from_file(said.file, predictor, most)
        if len(found.rows) > most:
            raise InvalidRequest(
                f"The input has {len(found.rows):,} rows, and this model takes {most:,} at a time. Send fewer of them.",
                param="input",
            )
        if not found.rows:
            raise InvalidRequest(f"The input has no rows. {_expected(predictor)}", param="input")
        return found

    size = len(said.text) + (len(said.file.get("file_data") or "") if said.file else 0)
    return await anyio.to_thread.run_sync(read) if size > LONG else read()


class _Said(Struct, frozen=True):
    text: str
    file: JsonObject | None


def _said_last(request: ModelRequest) -> _Said:
    """The text of the last message of the user, and its file. Text beside a file is not read."""
    messages = [item for item in request.items if item.get("role") == "user"]
    parts: Sequence[JsonObject] = messages[-1]["content"] if messages else ()
    for part in parts:
        if part["type"] not in ("input_text", "text", "input_file"):
            raise InvalidRequest(
                f"This model reads no parts of type {quoted(part['type'])}. Send rows as text or as a file.",
                param="input",
            )
    files = [part for part in parts if part["type"] == "input_file"]
    if len(files) > 1:
        raise InvalidRequest("This model reads one file at a time. Send one request for each.", param="input")
    text = "\n".join(part["text"] for part in parts if part["type"] != "input_file")
    return _Said(text, files[0] if files else None)


def _from_text(text: str, predictor: Predictor) -> Rows:
    if predictor.is_text:
        return _texts(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"The input is not JSON. {_expected(predictor)}", param="input") from None
    many = isinstance(value, list)
    rows = value if many else [value]
    read = _reader(predictor)
    return Rows([read(row, f"Row {at}" if many else "The row") for at, row in enumerate(rows, 1)], many)


def _texts(text: str) -> Rows:
    """A JSON array of strings is a batch; everything else is one text."""
    if text.lstrip().startswith("["):
        try:
            return Rows(msgspec.json.decode(text, type=list[str]), many=True)
        except (msgspec.DecodeError, RecursionError):
            pass
    return Rows([text], many=False)


def _reader(predictor: Predictor) -> Callable[[Any, str], Row]:
    """Reads one row, an object or a list of values."""
    features = predictor.features
    names = [feature.name for feature in features]
    known = frozenset(names)

    def read(row: Any, what: str) -> Row:
        if isinstance(row, dict):
            if row.keys() != known:
                raise _wrong_names(row, known, what, predictor)
            row = [row[name] for name in names]
        elif not isinstance(row, list):
            raise InvalidRequest(f"{what} is {type_name(row)}, not an object. {_expected(predictor)}", param="input")
        elif len(row) != len(names):
            raise InvalidRequest(
                f"{what} has {len(row)} values instead of {len(names)}. {_expected(predictor)}", param="input"
            )
        return tuple(_value(value, feature, what) for value, feature in zip(row, features, strict=True))

    return read


def _wrong_names(row: Mapping[str, Any], known: frozenset[str], what: str, predictor: Predictor) -> InvalidRequest:
    missing = [feature.name for feature in predictor.features if feature.name not in row]
    unknown = [name for name in row if name not in known]
    faults = [f"lacks {quoted_all(missing)}"] if missing else []
    faults += [f"has {quoted_all(unknown)}, which this model does not know"] if unknown else []
    return InvalidRequest(f"{what} {' and '.join(faults)}. {_expected(predictor)}", param="input")


def _value(value: Any, feature: Feature, what: str) -> Value:
    """A value in the feature's type. Raises `InvalidRequest`."""
    if value is None and feature.nullable:
        return None
    if _FITS[feature.type](value):
        return value  # type: ignore[no-any-return]
    null = " or null" if feature.nullable else ""
    raise InvalidRequest(
        f"{what} has {quoted(feature.name)} of type {type_name(value)}, and this model needs "
        f"{_WORDS[feature.type]}{null} there.",
        code="invalid_type",
        param="input",
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "number": _is_number,
    "integer": _is_integer,
    "string": lambda value: isinstance(value, str),
    "any": lambda value: isinstance(value, str | bool) or _is_number(value),
}

_WORDS: Final = {
    "number": "a finite number",
    "integer": "an integer",
    "string": "a string",
    "any": "a string, a number or a boolean",
}


def _expected(predictor: Predictor) -> str:
    """What a right input is, in words."""
    if predictor.is_text:
        return "This model expects a text, or a JSON array of texts."
    named = [f"{feature.name} ({_SHORT[feature.type]})" for feature in predictor.features[:MOST_NAMED]]
    more = len(predictor.features) - len(named)
    return (
        "This model expects a JSON object, or a list of them, with "
        f"{', '.join(named)}{f' and {more} more, which GET /v1/models lists' if more else ''}."
    )


_SHORT: Final = {"number": "number", "integer": "integer", "string": "string", "any": "any"}


# Files


def _from_file(part: JsonObject, predictor: Predictor, most: int) -> Rows:
    if predictor.is_text:
        return Rows([_text(row[0]) for row in read_table(part, _text_column, most).rows], many=True)
    table = read_table(part, lambda columns: _feature_columns(columns, predictor), most)
    converts = [_CELLS[feature.type] if table.is_text else _as_is for feature in predictor.features]

    def read(row: Sequence[Any], what: str) -> Row:
        cells = zip(row, converts, predictor.features, strict=True)
        return tuple(_value(convert(cell), feature, what) for cell, convert, feature in cells)

    return Rows([read(row, f"Row {at} of the file") for at, row in enumerate(table.rows, 1)], many=True)


def _feature_columns(columns: Sequence[str], predictor: Predictor) -> Sequence[str]:
    """The features in their order, if the columns are just those."""
    names = [feature.name for feature in predictor.features]
    if set(columns) != set(names):
        raise _wrong_names(dict.fromkeys(columns), frozenset(names), "The file", predictor)
    if len(columns) != len(names):
        raise InvalidRequest("The file has two columns of one name. Leave one of them out.", param="input")
    return names


def _text_column(columns: Sequence[str]) -> Sequence[str]:
    """The only column, or the one that is called text."""
    if len(columns) == 1 or columns.count("text") == 1:
        return columns if len(columns) == 1 else ["text"]
    raise InvalidRequest("The file needs one column, or one that is called 'text'.", param="input")


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise InvalidRequest("The column of texts has a value that is no text.", code="invalid_type", param="input")
    return cell


def _as_is(cell: Any) -> Any:
    return cell


def _number(cell: str) -> Any:
    """A cell of CSV as a number; empty is a missing value; what is none stays text, and is refused as that."""
    text = cell.strip()
    if not text:
        return None
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def _integer(cell: str) -> Any:
    try:
        return int(cell) if cell.strip() and "_" not in cell else cell or None
    except ValueError:
        return cell


_CELLS: Final[Mapping[str, Callable[[str], Any]]] = {
    "number": _number,
    "integer": _integer,
    "string": lambda cell: cell or None,
    "any": _number,
}
