"""A numbered row of a catalog, or why it is none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from indexes.errors import CatalogError, RowError

# What is kept of a row that could not be read, for people to recognise it.
MAX_CONTENT = 2000
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class SourceRow(NamedTuple):
    """One row: its number in the source from 1, its values or the error, and the text of a bad one."""

    number: int
    values: dict[str, Any] | RowError
    content: str = ""


def shown(raw: bytes | str) -> str:
    """Return the beginning of a bad row as text that a database can hold."""
    if isinstance(raw, str):
        # Halves of surrogate pairs, as which CSV brings bytes that are no UTF-8, become signs.
        text = raw[:MAX_CONTENT].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    else:
        text = raw[:MAX_CONTENT].decode(errors="replace")
    return text.replace("\0", "\ufffd")


def as_json(value: Any) -> str:
    """Return the beginning of a row's value as JSON, whatever it holds.

    Not by orjson, which refuses the integers beyond 64 bits that Parquet's decimals become.
    """
    return shown(json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":")))


def refuse_utf16(beginning: bytes) -> None:
    """Raise CatalogError for a file in UTF-16, of which no row could be read."""
    if beginning.startswith(UTF16_MARKS):
        raise CatalogError("The catalog is written in UTF-16: save it as UTF-8.")
