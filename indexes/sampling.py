"""The first rows of a catalog as items, and the fields found in them: what the admin previews."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from indexes.catalog import read_rows
from indexes.errors import CatalogError, RowError
from indexes.formats.rows import SourceRow, as_json
from indexes.items import ItemMaker
from indexes.schema import CatalogSpec, FieldSpec
from indexes.values import decode

SHOWN_ROWS = 20
SCANNED_ROWS = 100
# Deeper paths work too; a list of them all would hide the ones that matter.
MAX_DEPTH = 3


@dataclass(frozen=True)
class SampledRow:
    """A row and the item it becomes, or why it becomes none. ``values`` are (field, text)."""

    number: int
    id: str = ""
    text: str = ""
    values: tuple[tuple[str, str], ...] = ()
    error: str = ""
    content: str = ""


@dataclass
class FoundField:
    """A path that rows hold a value at."""

    path: str
    rows: int = 0
    kind: str = ""
    example: str = ""


@dataclass(frozen=True)
class Sample:
    """The beginning of a catalog; ``error`` is why it could not be read further."""

    rows: list[SampledRow] = field(default_factory=list)
    found: list[FoundField] = field(default_factory=list)
    scanned: int = 0
    error: str = ""


def sample(catalog: CatalogSpec, fields: Sequence[FieldSpec] = ()) -> Sample:
    """Read the first rows of a catalog. Never raises for what the catalog is or holds."""
    rows: list[SourceRow] = []
    error = ""
    try:
        with closing(read_rows(catalog)) as stream:
            rows.extend(islice(stream, SCANNED_ROWS))
    except CatalogError as problem:
        error = str(problem)
    else:
        error = "" if rows else "The catalog has no rows."
    maker = ItemMaker(catalog, fields)
    return Sample(
        rows=[_sampled(row, maker, fields) for row in rows[:SHOWN_ROWS]],
        found=_found(rows),
        scanned=len(rows),
        error=error,
    )


def _sampled(row: SourceRow, maker: ItemMaker, fields: Sequence[FieldSpec]) -> SampledRow:
    try:
        if isinstance(row.values, RowError):
            raise row.values
        item = maker.make(row.values)
    except RowError as error:
        content = row.content or _short(row.values)
        return SampledRow(row.number, error=str(error), content=content)
    values = tuple(
        (spec.name, _shown(decode(spec, raw)) if (raw := item.fields.get(spec.name)) else "")
        for spec in fields
    )
    return SampledRow(row.number, item.id, item.text, values)


def _found(rows: Sequence[SourceRow]) -> list[FoundField]:
    found: dict[str, FoundField] = {}
    for row in rows:
        if isinstance(row.values, RowError):
            continue
        for path, value in _paths(row.values):
            entry = found.setdefault(path, FoundField(path))
            entry.rows += 1
            entry.kind = entry.kind or _kind(value)
            entry.example = entry.example or _shown(value)
    return list(found.values())


def _paths(
    values: Mapping[str, Any], prefix: str = "", depth: int = 1
) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _paths(value, f"{prefix}{name}.", depth + 1)
        elif value not in (None, "", []):
            yield f"{prefix}{name}", value


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "number"
        case list():
            return "list"
        case Mapping():
            return "object"
    return "text"


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return _short(", ".join(map(str, value)))
    return _short(value)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= 160 else f"{text[:159]}…"
