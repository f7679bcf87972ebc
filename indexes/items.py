"""From a catalog row to an item: its id, the text to embed, and its fields as the engine takes them.

The engines drop a whole item, or only its bad field, without saying which; so
every value is checked here, and a bad one rejects its row with a reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.errors import RowError
from indexes.given import Vector, given_vector, given_version
from indexes.naming import CONTENT_FIELD, ROW_FIELD, TEXT_FIELD, VECTOR_FIELD, VERSION_FIELD
from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec, IndexSpec
from indexes.values import TooLong, encode, tag_text

MAX_ID = 256
# Models read some 512 tokens; more text only costs time and request size.
MAX_TEXT = 8000
# Digests only tell whether something changed; nobody gains by a collision.
DIGEST_BYTES = 16
# In place of the digest of a text where its vector is not made from it.
NO_DIGEST = b""

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """A product document before it is written; ``vector`` where its row brought one along."""

    id: str
    text: str
    fields: dict[str, bytes]
    vector: Vector | None = None
    version: float | None = None


class ItemMaker:
    """Turns the rows of a catalog into items with these fields.

    Without an endpoint, of which a ready vector has the dimension, no vector is read.
    """

    def __init__(
        self,
        catalog: CatalogSpec,
        fields: Sequence[FieldSpec],
        endpoint: EndpointSpec | None = None,
    ) -> None:
        self._id_field = catalog.id_field
        self._template = catalog.text_template
        self._version_field = catalog.version_field
        self._vector_field = catalog.vector_field
        self._endpoint = endpoint
        self._fields = fields

    @classmethod
    def of(cls, spec: IndexSpec) -> ItemMaker:
        """Return the maker of the items of a build."""
        return cls(spec.catalog, spec.fields, spec.endpoint)

    def make(self, row: Mapping[str, Any]) -> CatalogItem:
        """Return the item, or raise RowError with a reason that can be counted."""
        item_id = read_id(lookup(row, self._id_field), self._id_field)
        text = fill(self._template, row)
        if not text:
            raise RowError("empty_text", "The text template gives no text for this row.")
        fields = {}
        for field in self._fields:
            value = encode_field(field, lookup(row, field.source))
            if value is not None:
                fields[field.name] = value
        return CatalogItem(item_id, text, fields, self._vector(row), self._version(row))

    def _vector(self, row: Mapping[str, Any]) -> Vector | None:
        if not self._vector_field or self._endpoint is None:
            return None
        return given_vector(lookup(row, self._vector_field), self._vector_field, self._endpoint)

    def _version(self, row: Mapping[str, Any]) -> float | None:
        if not self._version_field:
            return None
        return given_version(lookup(row, self._version_field), self._version_field)


def lookup(row: Any, path: str) -> Any:
    """Return the value at a dotted path, or None; a list on the way is looked into, item by item."""
    # What nearly every row is; the abstract type is slow to ask for.
    if type(row) is dict and (path in row or "." not in path):
        return row.get(path)
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


def text_digest(text: str) -> bytes:
    """Return what two texts share only if they are the same: 16 bytes."""
    return blake2b(_text_bytes(text), digest_size=DIGEST_BYTES).digest()


def content_digest(item: CatalogItem) -> bytes:
    """Return what differs when anything of an item but its version does: 16 bytes.

    Over the text, the encoded fields in the order of their names, and the vector of the row.
    """
    parts = [_text_bytes(item.text)]
    for name in sorted(item.fields):
        parts += (name.encode(), item.fields[name])
    if item.vector is not None:
        parts.append(encode_vector(item.vector))
    # The lengths first, or the end of one part could be the beginning of the next.
    lengths = ",".join([str(len(part)) for part in parts])
    return blake2b(b"".join((lengths.encode(), b";", *parts)), digest_size=DIGEST_BYTES).digest()


def item_hash(item: CatalogItem, vector: bytes, *, row: int | None = None) -> dict[str, Any]:
    """Return the whole hash of an item: its fields and the platform's own.

    The digest of the text is empty where the row brought the vector along, so that no build
    takes that vector for one which the endpoint made.
    """
    values: dict[str, Any] = {
        **item.fields,
        VECTOR_FIELD: vector,
        TEXT_FIELD: NO_DIGEST if item.vector is not None else text_digest(item.text),
        CONTENT_FIELD: content_digest(item),
    }
    if row is not None:
        values[ROW_FIELD] = row
    if item.version is not None:
        values[VERSION_FIELD] = repr(item.version)
    return values


def encode_vector(vector: npt.NDArray[np.float32]) -> bytes:
    """Return a vector as the engines take it: little-endian FLOAT32."""
    return vector.astype("<f4", copy=False).tobytes()


def decode_vector(raw: bytes) -> Vector:
    """Return the vector of its bytes in a hash."""
    return np.frombuffer(raw, dtype="<f4")


def read_id(value: Any, path: str) -> str:
    """Return the id that a row holds at ``path``, or raise RowError ``missing_id`` or ``bad_id``."""
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


def encode_field(field: FieldSpec, value: Any) -> bytes | None:
    """Return a field's value as the engine takes it, None for none, or raise RowError."""
    try:
        return encode(field, value)
    except TooLong as error:
        raise RowError(f"long_{field.type}", f"{field.name}: {error}.") from error
    except ValueError as error:
        raise RowError(f"bad_{field.type}", f"{field.name}: {error}.") from error


def _text_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        return ", ".join(filter(None, map(_words, value)))
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return tag_text(value)
