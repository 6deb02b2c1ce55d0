"""CSV and Parquet out of an `input_file`, bounded in rows before they are read. Nothing is fetched: the file is in the
request, as a data URL or as base64 alone.
"""

import base64
import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from ore.backends.base import JsonObject
from ore.errors import InvalidRequest
from ore.protocol.decoding import quoted

PARQUET_MAGIC: Final = b"PAR1"

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of a Parquet file when it is unpacked."""


Pick = Callable[[Sequence[str]], Sequence[str]]
"""From the columns of a file to those that are wanted, in order. Raises `InvalidRequest` when they do not fit."""


class Table(Struct, frozen=True):
    """Rows of the wanted columns. `is_text`: all cells are strings, as CSV has them, and not of types of their own."""

    rows: Sequence[Sequence[Any]]
    is_text: bool


def read_table(part: JsonObject, pick: Pick, most: int) -> Table:
    """The table of an `input_file` part, of at most so many rows. Raises `InvalidRequest`."""
    data = _bytes_of(part)
    if data[:4] == PARQUET_MAGIC:
        return _parquet(data, pick, most)
    try:
        return _csv(data.decode("utf-8-sig"), pick, most)
    except (UnicodeDecodeError, csv.Error):
        raise _refused("The file is neither CSV in UTF-8 nor Parquet. Send one of these.") from None


def _bytes_of(part: JsonObject) -> bytes:
    data = part.get("file_data")
    if not data:
        raise _refused("This model reads files that are in the request. Send 'file_data', a data URL with base64.")
    head, comma, tail = data.partition(",")
    if comma and head.startswith("data:") and not head.endswith(";base64"):
        raise _refused("'file_data' is a data URL without base64. Send data:text/csv;base64,... instead.")
    try:
        return base64.b64decode(tail if comma else data, validate=True)
    except ValueError:
        raise _refused("'file_data' is not base64. Send a data URL such as data:text/csv;base64,...") from None


def _csv(text: str, pick: Pick, most: int) -> Table:
    """The first line names the columns. Blank lines are passed over."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = [column.strip() for column in next(lines, [])]
    places = [columns.index(name) for name in pick(columns)]
    rows = []
    for line in lines:
        if len(line) == len(columns):
            rows.append([line[place] for place in places])
        elif line:
            raise _refused(f"Line {lines.line_num} of the file has {len(line)} cells instead of {len(columns)}.")
        _check_count(len(rows), most)
    return Table(rows, is_text=True)


def _parquet(data: bytes, pick: Pick, most: int) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise _refused("This server reads CSV only: Parquet needs pyarrow there. Send CSV.") from None
    try:
        schema = parquet.read_schema(pyarrow.BufferReader(data))
        wanted = pick(schema.names)
        types = {name: schema.field(name).type for name in wanted}
        if nested := [name for name, kind in types.items() if pyarrow.types.is_nested(kind)]:
            raise _refused(f"The column {quoted(nested[0])} of the file is nested. Send a value in each cell.")
        texts = [name for name, kind in types.items() if _is_text(kind)]
        file = parquet.ParquetFile(pyarrow.BufferReader(data), read_dictionary=texts)
        _check_count(file.metadata.num_rows, most)
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MOST_BYTES:
            raise _refused("The Parquet file is too large when it is unpacked. Send a part of it.")
        table = file.read(columns=list(wanted), use_threads=False)
        columns = [_cells(table.column(name)) for name in wanted]
    except (pyarrow.ArrowException, OSError):
        raise _refused("The Parquet file cannot be read. Write it again, and send it.") from None
    return Table(list(zip(*columns, strict=True)), is_text=False)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _cells(column: Any) -> list[Any]:
    """The values of a column. A text that stands in many rows is one text: a small file could unpack to gigabytes."""
    cells: list[Any] = []
    for chunk in column.chunks:
        if not hasattr(chunk, "dictionary"):
            cells += chunk.to_pylist()
            continue
        values = chunk.dictionary.to_pylist()
        cells += [None if place is None else values[place] for place in chunk.indices.to_pylist()]
    return cells


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise _refused(f"The file has more than {most:,} rows, which this model takes at a time. Send a part of it.")


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="input")
