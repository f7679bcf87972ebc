"""Parquet: rows in file order, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from io import BufferedReader
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexes.errors import CatalogError
from indexes.formats.rows import SourceRow

BATCH_ROWS = 1000


def read(file: BufferedReader, start: int) -> Iterator[SourceRow]:
    """Yield the rows after ``start``. The file must be seekable."""
    with _translated():
        parquet = pq.ParquetFile(file)
        number, groups = _row_groups(parquet, start)
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups):
            for values in _plain(batch).to_pylist():
                number += 1
                if number > start:
                    yield SourceRow(number, _json(values))


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


def _plain(batch: Any) -> Any:
    """Cast nanoseconds, which Python's datetime cannot hold, to microseconds."""
    for position, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            micros = batch.column(position).cast(pa.timestamp("us", field.type.tz), safe=False)
            batch = batch.set_column(position, field.name, micros)
    return batch


def _json(value: Any) -> Any:
    """Return a Parquet value as JSON would hold it, so that both formats give the same items."""
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
