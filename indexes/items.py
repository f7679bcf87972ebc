"""From a catalog row to an item: its id, the text to embed, and its fields as the engine takes them.

The engines drop a whole item, or only its bad field, without saying which; so
every value is checked here, and a bad one rejects its row with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.errors import RowError
from indexes.schema import CatalogSpec, FieldSpec
from indexes.values import encode, tag_text

MAX_ID = 256
# Models read some 512 tokens; more text only costs time and request size.
MAX_TEXT = 8000

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """A product document before it has its vector."""

    id: str
    text: str
    fields: dict[str, bytes]


class ItemMaker:
    """Turns the rows of a catalog into items with these fields."""

    def __init__(self, catalog: CatalogSpec, fields: Sequence[FieldSpec]) -> None:
        self._id_field = catalog.id_field
        self._template = catalog.text_template
        self._fields = fields

    def make(self, row: Mapping[str, Any]) -> CatalogItem:
        """Return the item, or raise RowError with a reason that can be counted."""
        item_id = _item_id(lookup(row, self._id_field), self._id_field)
        text = fill(self._template, row)
        if not text:
            raise RowError("empty_text", "The text template gives no text for this row.")
        fields = {}
        for field in self._fields:
            value = _encoded(field, lookup(row, field.source))
            if value is not None:
                fields[field.name] = value
        return CatalogItem(item_id, text, fields)


def lookup(row: Any, path: str) -> Any:
    """Return the value at a dotted path, or None; a list on the way is looked into, item by item."""
    if isinstance(row, list):
        found = [value for item in row if (value := lookup(item, path)) is not None]
        return found or None
    if not isinstance(row, Mapping):
        return None
    if path in row:
        return row[path]
    head, dot, rest = path.partition(".")
    return lookup(row.get(head), rest) if dot else None


def fill(template: str, row: Mapping[str, Any]) -> str:
    """Fill ``{path}`` placeholders from a row: what is missing is empty, white space is squeezed."""
    filled = PLACEHOLDER.sub(lambda found: _words(lookup(row, found[1].strip())), template)
    return " ".join(filled.split())[:MAX_TEXT]


def encode_vector(vector: npt.NDArray[np.float32]) -> bytes:
    """Return a vector as the engines take it: little-endian FLOAT32."""
    return vector.astype("<f4").tobytes()


def _item_id(value: Any, path: str) -> str:
    if value is None or value == "":
        raise RowError("missing_id", f'"{path}" is missing: without an id the row is no item.')
    if isinstance(value, bool):
        raise RowError("bad_id", f'"{path}" is true or false, not an id.')
    try:
        item_id = tag_text(value)
        item_id.encode()
    except ValueError:
        raise RowError("bad_id", f'"{path}" is not a text or a number.') from None
    if not item_id or len(item_id) > MAX_ID or "\0" in item_id:
        raise RowError("bad_id", f'"{path}" must have 1 to {MAX_ID} characters and no NUL.')
    return item_id


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        return ", ".join(filter(None, map(_words, value)))
    return "" if value is None else tag_text(value)


def _encoded(field: FieldSpec, value: Any) -> bytes | None:
    try:
        return encode(field, value)
    except ValueError as error:
        raise RowError(f"bad_{field.type}", f"{field.name}: {error}.") from error
