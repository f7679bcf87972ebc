"""JSON lines: one object a line; the row number is the line number."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

import orjson

from indexes.errors import RowError
from indexes.formats.rows import SourceRow, refuse_utf16, shown

# Bounds memory when a file has no line breaks, such as one JSON array.
MAX_LINE = 1 << 20


def read(stream: BufferedReader, start: int) -> Iterator[SourceRow]:
    """Yield the rows after line ``start``. Blank lines are passed over."""
    for number, line in enumerate(_lines(stream), 1):
        if number == 1:
            refuse_utf16(line)
            line = line.removeprefix(codecs.BOM_UTF8)
        if number > start and (line := line.strip()):
            yield _row(number, line)


def count(stream: BufferedReader) -> Iterator[int]:
    """Yield the number of each line: the last is their count."""
    for number, _ in enumerate(_lines(stream), 1):
        yield number


def _lines(stream: BufferedReader) -> Iterator[bytes]:
    """Yield lines; of one that is too long only the beginning, one byte over the bound."""
    while line := stream.readline(MAX_LINE + 1):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE + 1)
        yield line


def _row(number: int, line: bytes) -> SourceRow:
    if len(line) > MAX_LINE:
        problem = RowError("too_long", f"The line is longer than {MAX_LINE >> 20} MiB.")
        return SourceRow(number, problem, shown(line))
    try:
        values = _loads(line)
    except ValueError as error:
        return SourceRow(number, _problem(line, error), shown(line))
    if not isinstance(values, dict):
        kind = "list" if isinstance(values, list) else "single value"
        problem = RowError("not_an_object", f"A row is a JSON object {{…}}, this is a {kind}.")
        return SourceRow(number, problem, shown(line))
    return SourceRow(number, values)


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # Writers such as Python's leave NaN and Infinity in numbers, which are no JSON: what is
        # wrong then is the value of one field.
        if b"NaN" not in line and b"Infinity" not in line:
            raise
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _problem(line: bytes, error: ValueError) -> RowError:
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return RowError("bad_encoding", f"Not UTF-8 at byte {wrong.start + 1} of the line.")
    return RowError("bad_json", f"Not valid JSON: {error}.")
