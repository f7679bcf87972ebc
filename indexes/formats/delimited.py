"""CSV with a header: comma, semicolon or tab, found from the header; quoted line breaks are fine."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain

from indexes.errors import CatalogError, RowError
from indexes.formats.rows import SourceRow, refuse_utf16, shown

DELIMITERS = ",;\t"
# Bounds memory when a file has no line breaks.
MAX_LINE = 1 << 20
# The default of 131,072 cuts off long vectors written as JSON. It holds for the whole process.
csv.field_size_limit(MAX_LINE)


def read(stream: BufferedReader, start: int) -> Iterator[SourceRow]:
    """Yield the records after ``start``, counted from 1 after the header. Empty cells are None."""
    records = _records(stream)
    header = _header(records)
    for number, record in enumerate(records, 1):
        if number > start and record:
            yield _row(number, header, record)


def count(stream: BufferedReader) -> Iterator[int]:
    """Yield the number of each record: the last is their count."""
    records = _records(stream)
    _header(records)
    for number, _ in enumerate(records, 1):
        yield number


def _records(stream: BufferedReader) -> Iterator[list[str] | csv.Error]:
    refuse_utf16(stream.peek(2)[:2])
    # Bytes that are not UTF-8 come through as surrogates, so that they spoil one row only.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = iter(lambda: text.readline(MAX_LINE), "")
    first = next(lines, "")
    reader = csv.reader(chain([first], lines), delimiter=_delimiter(first))
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _delimiter(first: str) -> str:
    """Return the delimiter that the header has most of, outside quotes."""
    bare = "".join(first.split('"')[::2])
    return max(DELIMITERS, key=bare.count)


def _header(records: Iterator[list[str] | csv.Error]) -> list[str]:
    header = next(records, [])
    if isinstance(header, csv.Error):
        raise CatalogError(f"The first line of the catalog is no CSV header: {header}.")
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise CatalogError(
            f'The header of the catalog names "{twice[0]}" twice: give each column its own name.'
        )
    return names


def _row(number: int, header: list[str], record: list[str] | csv.Error) -> SourceRow:
    if isinstance(record, csv.Error):
        return SourceRow(number, RowError("bad_csv", f"Not valid CSV: {record}."))
    if len(record) != len(header):
        problem = RowError(
            "column_count", f"The row has {len(record)} values, the header {len(header)} names."
        )
    elif not _is_utf8(record):
        problem = RowError("bad_encoding", "The row is not UTF-8: save the file as UTF-8.")
    else:
        return SourceRow(number, {n: v or None for n, v in zip(header, record, strict=True) if n})
    line = io.StringIO()
    csv.writer(line).writerow(record)
    return SourceRow(number, problem, shown(line.getvalue().rstrip("\r\n")))


def _is_utf8(record: list[str]) -> bool:
    try:
        "".join(record).encode()
    except UnicodeEncodeError:
        return False
    return True
