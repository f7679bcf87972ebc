"""What the items of a catalog look like to the engine, from its first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import lru_cache
from itertools import islice

from indexes import catalog
from indexes.catalog import read_rows
from indexes.errors import CatalogError, RowError
from indexes.fleet.costs import FieldShape, Shape
from indexes.items import CatalogItem, ItemMaker
from indexes.naming import key_prefix
from indexes.schema import CatalogSpec, FieldSpec, FieldType, IndexSpec
from indexes.values import words

SAMPLE_ROWS = 500
# Counting the rows of a large file takes minutes, and a page waits for it.
COUNT_S = 2.0
# What a field holds where no row could be read: bytes, and words of a text.
_ASSUMED_SIZE = {
    FieldType.TAG: 12,
    FieldType.NUMERIC: 6,
    FieldType.TEXT: 60,
    FieldType.STORED: 80,
}
_ASSUMED_WORDS = 9
_ASSUMED_ID = 12


def shape(spec: IndexSpec, namespace: str) -> tuple[Shape, bool]:
    """Return the shape of a build's items, and whether it was measured rather than assumed."""
    items = _first_items(spec)
    ids = [len(item.id.encode(errors="surrogatepass")) for item in items] or [_ASSUMED_ID]
    own = Shape(
        dimension=spec.endpoint.dimension,
        algorithm=spec.algorithm,
        m=spec.m,
        key=len(key_prefix(namespace, spec.slug, 100)) + sum(ids) / len(ids),
        fields=tuple(_field(field, items) for field in spec.fields),
    )
    return own, bool(items)


def count(spec: CatalogSpec) -> int | None:
    """Return the rows of the source; None where it cannot be read, or is too long to count here."""
    try:
        return _count(spec, catalog.version(spec))
    except CatalogError:
        return None


def _first_items(spec: IndexSpec) -> Sequence[CatalogItem]:
    try:
        return _items(spec.catalog, spec.fields, catalog.version(spec.catalog))
    except CatalogError:
        return ()


# An index page asks again at each change of its form. The version tells a changed file.
@lru_cache(maxsize=16)
def _items(
    spec: CatalogSpec, fields: tuple[FieldSpec, ...], version: str
) -> tuple[CatalogItem, ...]:
    maker = ItemMaker(spec, fields)
    found = []
    with closing(read_rows(spec)) as rows:
        for row in islice(rows, SAMPLE_ROWS):
            with suppress(RowError):
                if not isinstance(row.values, RowError):
                    found.append(maker.make(row.values))
    return tuple(found)


@lru_cache(maxsize=64)
def _count(spec: CatalogSpec, version: str) -> int | None:
    return catalog.count_rows(spec, seconds=COUNT_S)


def _field(field: FieldSpec, items: Sequence[CatalogItem]) -> FieldShape:
    if not items:
        words_of_text = _ASSUMED_WORDS if field.type == FieldType.TEXT else 1
        return FieldShape(field.name, field.type, _ASSUMED_SIZE[field.type], parts=words_of_text)
    values = [item.fields[field.name] for item in items if field.name in item.fields]
    parts = [part for value in values for part in _parts(field, value)]
    lonely = sum(times == 1 for times in Counter(parts).values())
    return FieldShape(
        name=field.name,
        type=field.type,
        size=sum(map(len, values)) / len(items),
        present=len(values) / len(items),
        parts=len(parts) / len(items),
        distinct=lonely / len(parts) if parts else 0.0,
    )


def _parts(field: FieldSpec, value: bytes) -> list[str]:
    text = value.decode(errors="replace")
    match field.type:
        case FieldType.TEXT:
            return words(text)
        case FieldType.TAG if field.multiple:
            return text.split(field.separator)
    return [text]
