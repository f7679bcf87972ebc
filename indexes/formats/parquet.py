"""Parquet: rows in file order, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from io import BufferedReader
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexes.errors import CatalogError
from indexes.formats.rows import SourceRow

BATCH_ROWS = 1000
# Without it a column of a whole row group is read at once, and writers make groups of a million rows.
BUFFER_BYTES = 1 << 20


def read(file: BufferedReader, start: int, *, array: str = "") -> Iterator[SourceRow]:
    """Yield the rows after ``start``; lists of numbers in the column ``array`` come as NumPy arrays.

    The file must be seekable.
    """
    with _translated():
        parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        number, groups = _row_groups(parquet, start)
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups):
            before = number
            number += batch.num_rows
            if number > start:
                done = max(start - before, 0)
                rows = islice(_rows(batch, array), done, None)
                yield from map(SourceRow, range(before + done + 1, number + 1), rows)


def count(file: BufferedReader) -> Iterator[int]:
    """Yield the number of rows, which the file knows."""
    with _translated():
        yield pq.ParquetFile(file).metadata.num_rows


def _row_groups(parquet: Any, start: int) -> tuple[int, list[int]]:
    """Return how many rows whole row groups before ``start`` hold, and the groups to read."""
    skipped = 0
    total = parquet.num_row_groups
    for group in range(total):
        rows = parquet.metadata.row_group(group).num_rows
        if skipped + rows > start:
            return skipped, list(range(group, total))
        skipped += rows
    return skipped, []


def _rows(batch: Any, array: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as JSON would hold them, so that all formats give the same items."""
    columns = [
        _arrays(column)
        if field.name == array and _is_list_of_numbers(field.type)
        else _values(column, field.type)
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    names = batch.schema.names
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values(column: Any, kind: Any) -> list[Any]:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's datetime has no nanoseconds.
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values if _is_plain(kind) else [_json(value) for value in values]


def _is_plain(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def _is_list_of_numbers(kind: Any) -> bool:
    types = pa.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return lists and bool(types.is_integer(kind.value_type) or types.is_floating(kind.value_type))


def _arrays(column: Any) -> list[Any]:
    """Return the lists of a column as arrays over Arrow's own memory; a null in one is NaN there."""
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    arrays = np.split(numbers, np.cumsum(lengths)[:-1])
    if column.null_count:
        missing = column.is_null().to_pylist()
        return [None if gone else part for gone, part in zip(missing, arrays, strict=True)]
    return arrays


def _json(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _json(part) for key, part in value.items()}
        case list() | tuple():
            return [_json(part) for part in value]
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.decode(errors="replace")
    return value


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"The catalog is not a readable Parquet file: {error}") from error
