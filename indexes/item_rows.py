"""The entries of a call that changes items: rows as a catalog has them, or what to delete.

A row with none of the fields of the text template is a partial one: it changes the
fields it names and leaves the rest. Names are dotted paths, as in a catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from indexes.errors import RowError
from indexes.given import given_vector, given_version
from indexes.items import PLACEHOLDER, ItemMaker, encode_field, lookup, read_id
from indexes.schema import CatalogSpec, IndexSpec

# Where a catalog names no version field.
VERSION_NAMES: Final = ("version", "updated_at")
# Rows are walked by recursion, and no catalog needs a tenth of it.
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Sent:
    """One entry of a call that is right by itself: a row, or without one a deletion."""

    position: int
    id: str
    version: float | None
    row: dict[str, Any] | None
    partial: bool = False


class RowReader:
    """Reads rows for an index of this spec. Doors raise RowError with a reason, as loading does."""

    def __init__(self, spec: IndexSpec) -> None:
        self._spec = spec
        self._maker = ItemMaker.of(spec)

    def put(self, position: int, entry: Any) -> Sent:
        """Return the row of an item to be written, checked as one of a catalog is."""
        row = _object(entry)
        catalog = self._spec.catalog
        item_id = read_id(lookup(row, catalog.id_field), catalog.id_field)
        version = read_version(row, catalog)
        partial = not any(names(row, path) for path in text_paths(catalog))
        if partial:
            named_fields(row, self._spec)
        else:
            self._maker.make(row)
        return Sent(position, item_id, version, row, partial)

    def delete(self, position: int, entry: Any) -> Sent:
        """Return the deletion of an id, or of an object with ``id`` and maybe a version."""
        if isinstance(entry, str | int | float):
            return Sent(position, read_id(entry, "id"), None, None)
        row = _object(entry)
        catalog = self._spec.catalog
        name = "id" if "id" in row else catalog.id_field
        version = read_version(row, catalog)
        if version is None and catalog.version_field:
            version = _first_version(row)
        return Sent(position, read_id(lookup(row, name), name), version, None)

    def id_in(self, entry: Any) -> str | None:
        """Return the id of an entry that is refused, where it can be read."""
        if not isinstance(entry, Mapping):
            return None
        try:
            return read_id(lookup(entry, self._spec.catalog.id_field) or entry.get("id"), "id")
        except RowError:
            return None


def read_version(row: Mapping[str, Any], catalog: CatalogSpec) -> float | None:
    """Return a row's version, None without one. Raises RowError ``bad_version``."""
    if catalog.version_field:
        return given_version(lookup(row, catalog.version_field), catalog.version_field)
    return _first_version(row)


def text_paths(catalog: CatalogSpec) -> list[str]:
    """Return the paths that the text template names."""
    return [found.strip() for found in PLACEHOLDER.findall(catalog.text_template)]


def names(row: Mapping[str, Any], path: str) -> bool:
    """Tell whether a row says anything at a dotted path: a value, or null to remove it.

    What stands there in place of an object, such as a list or null, replaces all that is below.
    """
    if path in row:
        return True
    head, dot, rest = path.partition(".")
    if not dot or head not in row:
        return False
    below = row[head]
    return names(below, rest) if isinstance(below, Mapping) else True


def named_fields(row: Mapping[str, Any], spec: IndexSpec) -> dict[str, bytes | None]:
    """Return the fields that a partial row names, as the engine takes them; None removes one.

    Raises RowError; also for a vector it names that is none.
    """
    read_vector(row, spec)
    return {
        field.name: encode_field(field, lookup(row, field.source))
        for field in spec.fields
        if names(row, field.source)
    }


def read_vector(row: Mapping[str, Any], spec: IndexSpec) -> Any:
    """Return the ready vector of a row, or None. Raises RowError ``bad_vector``."""
    field = spec.catalog.vector_field
    return given_vector(lookup(row, field), field, spec.endpoint) if field else None


def merged(row: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with a partial one written over it: objects are merged, all else is replaced."""
    # A path written as one name would hide the same path written as objects.
    kept = {key: row[key] for key in row if "." not in key or not names(change, key)}
    for key, value in change.items():
        before = kept.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        kept[key] = merged(before, value) if both else value  # type: ignore[arg-type]  # both are
    return kept


def _first_version(row: Mapping[str, Any]) -> float | None:
    return next((given_version(row[name], name) for name in VERSION_NAMES if _has(row, name)), None)


def _has(row: Mapping[str, Any], name: str) -> bool:
    return row.get(name) not in (None, "")


def _object(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        kind = "a list" if isinstance(entry, list) else "a single value"
        raise RowError("not_an_object", f"An item is a JSON object {{…}}, this is {kind}.")
    if _deeper(entry, MAX_DEPTH):
        raise RowError("too_deep", f"Its values are nested more than {MAX_DEPTH} levels deep.")
    return entry


def _deeper(value: Any, levels: int) -> bool:
    if levels == 0:
        return True
    return any(_deeper(part, levels - 1) for part in _containers(value))


def _containers(value: Any) -> Iterator[Any]:
    parts = value.values() if isinstance(value, dict) else value
    return (part for part in parts if isinstance(part, dict | list))
