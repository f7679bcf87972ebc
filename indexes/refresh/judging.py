"""What becomes of one row of the source: compared with the item that the live build has.

The newest of three says what an item is: the row, what the items API said of it, and the
hash, whose version may be higher than the row's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from typing import NamedTuple

from indexes import changes, valkey
from indexes.errors import RowError
from indexes.item_rows import named_fields, read_vector
from indexes.item_writes import Write
from indexes.items import CatalogItem, content_digest, encode_vector, item_hash, text_digest
from indexes.models import IndexRefresh, ItemChange
from indexes.naming import (
    CONTENT_FIELD,
    REFRESH_FIELD,
    ROW_FIELD,
    TEXT_FIELD,
    VECTOR_FIELD,
    VERSION_FIELD,
)
from indexes.schema import IndexSpec
from indexes.shards import Numbered

# Behind the number of the refresh, in the mark of an item that it wrote.
_EMBEDDED, _ADDED = "e", "n"
_FIELDS = (CONTENT_FIELD, TEXT_FIELD, VERSION_FIELD, ROW_FIELD, REFRESH_FIELD)


class Fate(Enum):
    UNCHANGED = auto()
    # By this refresh, before its worker was killed.
    WRITTEN = auto()
    # What is there is newer than the source.
    KEPT = auto()
    TO_WRITE = auto()


class Held(NamedTuple):
    """What the build holds of an item."""

    content: bytes | None
    text: bytes | None
    version: float | None
    row: bytes | None
    mark: str

    @property
    def exists(self) -> bool:
        return self.row is not None or self.content is not None


@dataclass(slots=True)
class Judged:
    """A row, what becomes of it, and what of it the build holds."""

    numbered: Numbered
    item: CatalogItem
    held: Held
    fate: Fate
    embedded: bool = False
    added: bool = False
    digest: bytes = field(default=b"")
    # What the API said of it before the source was written.
    overtaken: ItemChange | None = None

    @property
    def needs_vector(self) -> bool:
        """Tell whether its text has to be embedded: no vector came with it, and none is there."""
        return self.item.vector is None and self.held.text != self.digest


class Judge:
    """Compares rows with the live build, for one refresh."""

    def __init__(self, refresh: IndexRefresh, spec: IndexSpec) -> None:
        self._refresh = refresh
        self._build = refresh.build
        self._spec = spec

    def judge(self, numbered: Sequence[Numbered]) -> list[Judged]:
        """Return what becomes of these rows as things stand. Raises SearchError."""
        ids = [one.item.id for one in numbered]
        said = self._said(ids)
        held = self._held(ids)
        return [
            self._judged(one, state, said.get(one.item.id))
            for one, state in zip(numbered, held, strict=True)
        ]

    def write(self, judged: Judged, vector: bytes | None) -> Write:
        """Return the commands that write a row over its item; ``vector`` where one is needed."""
        item, held = judged.item, judged.held
        values = item_hash(item, b"", row=judged.numbered.row)
        judged.embedded, judged.added = vector is not None, not held.exists
        if item.vector is not None:
            values[VECTOR_FIELD] = encode_vector(item.vector)
        elif vector is not None:
            values[VECTOR_FIELD] = vector
        else:
            del values[VECTOR_FIELD]
        marks = (_EMBEDDED if judged.embedded else "") + (_ADDED if judged.added else "")
        values[REFRESH_FIELD] = f"{self._refresh.pk}{marks}"
        # HSET leaves fields that the row has no more. They go after it, as an item that is
        # deleted first would be missing from searches in between.
        gone = [spec.name for spec in self._spec.fields if spec.name not in item.fields]
        key = valkey.key_bytes(self._build.key_prefix + item.id)
        return Write(key, values, gone if held.exists else [])

    def _said(self, ids: Sequence[str]) -> dict[str, ItemChange]:
        definition = self._build.definition_id
        # Most indexes have none; to ask for thousands by id takes longer than all else.
        if not ItemChange.objects.filter(definition=definition).exists():
            return {}
        return changes.of(definition, ids)

    def _held(self, ids: Sequence[str]) -> list[Held]:
        keys = [self._build.key_prefix + item_id for item_id in ids]
        return [
            Held(content, text, None if version is None else float(version), row, _text(mark))
            for content, text, version, row, mark in valkey.hash_fields(keys, _FIELDS, fresh=True)
        ]

    def _judged(self, numbered: Numbered, held: Held, change: ItemChange | None) -> Judged:
        item = numbered.item
        overtaken = change is not None and not self._wins(change, item.version)
        newer = change is not None and not overtaken
        if change is not None and newer and change.partial:
            laid_over = _with(item, change, self._spec)
            newer = laid_over is None
            item = laid_over or item
        judged = Judged(numbered, item, held, Fate.TO_WRITE, digest=text_digest(item.text))
        same_version = item.version is None or item.version == held.version
        if held.content == content_digest(item) and same_version:
            number, marks = _number(held.mark)
            judged.fate = Fate.UNCHANGED
            if number == self._refresh.pk:
                judged.fate = Fate.WRITTEN
                judged.embedded, judged.added = _EMBEDDED in marks, _ADDED in marks
        elif newer or _older(item.version, held.version):
            judged.fate = Fate.KEPT
            return judged
        if overtaken and change is not None and change.settled_at is None:
            judged.overtaken = change
        return judged

    def _wins(self, change: ItemChange, version: float | None) -> bool:
        time: datetime | None = self._refresh.catalog_time
        return changes.wins(change, source_version=version, source_time=time)


def _with(item: CatalogItem, change: ItemChange, spec: IndexSpec) -> CatalogItem | None:
    """Return an item with a partial change over it; None where the change does not fit the build.

    A partial change names nothing of the text, so the text is the row's.
    """
    row = changes.row_of(change)
    try:
        named = named_fields(row, spec)
        vector = read_vector(row, spec)
    except RowError:
        return None
    merged = {**item.fields, **named}
    return replace(
        item,
        fields={name: raw for name, raw in merged.items() if raw is not None},
        vector=item.vector if vector is None else vector,
        version=item.version if change.version is None else change.version,
    )


def _older(version: float | None, than: float | None) -> bool:
    return version is not None and than is not None and version < than


def _text(mark: bytes | None) -> str:
    return "" if mark is None else mark.decode("ascii", "replace")


def _number(mark: str) -> tuple[int, str]:
    number = mark.rstrip(_EMBEDDED + _ADDED)
    return int(number) if number.isdecimal() else 0, mark[len(number) :]
