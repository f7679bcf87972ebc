"""The input files of a Batch Transform job: one JSON line for each text that needs a vector.

Each line is the body of a call to the endpoint, with the row number beside it:
``{"rp_row": 17, "inputs": "passage: Red shoes"}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import orjson

from indexes import valkey
from indexes.embedding import passage_record
from indexes.errors import RowError
from indexes.formats.rows import SourceRow
from indexes.items import CatalogItem, ItemMaker, text_digest
from indexes.models import IndexBuild
from indexes.naming import ROW_FIELD, TEXT_FIELD
from indexes.schema import PROBE_TEXT, EndpointSpec, IndexSpec

# Not a row: the text by which the job's model is told from another one.
PROBE_ROW: Final = 0
# Rows of a part: its vectors are held in memory while its rows are loaded.
PART_ROWS: Final = 2000
PART_VECTOR_BYTES: Final = 64 << 20
PART_BYTES: Final = 8 << 20
CHUNK_ROWS: Final = 1000


@dataclass(frozen=True)
class Part:
    """Consecutive rows of the source, and the lines of those that need a vector."""

    last_row: int
    texts: int
    body: bytes


def parts(
    build: IndexBuild, spec: IndexSpec, rows: Iterable[SourceRow], *, with_probe: bool
) -> Iterator[Part]:
    """Cut the rows into parts, which are the same however often they are cut.

    ``with_probe`` puts the probe text into the first part that has a text.
    """
    endpoint = spec.endpoint
    most_rows = min(PART_ROWS, max(1, PART_VECTOR_BYTES // (4 * endpoint.dimension)))
    probe = [_line(endpoint, PROBE_ROW, PROBE_TEXT)] if with_probe else []
    stream = iter(rows)
    earlier = _prefix_of_vectors(build)
    lines: list[bytes] = []
    read = size = last = 0

    def cut() -> Part:
        return Part(last, len(lines), b"".join([*probe, *lines] if lines else []))

    while chunk := list(islice(stream, min(CHUNK_ROWS, most_rows - read))):
        for number, text in _wanting(earlier, spec, chunk):
            lines.append(_line(endpoint, number, text))
            size += len(lines[-1])
        read += len(chunk)
        last = chunk[-1].number
        if read >= most_rows or size >= PART_BYTES:
            yield cut()
            probe = [] if lines else probe
            lines, read, size = [], 0, 0
    if read:
        yield cut()


def _prefix_of_vectors(build: IndexBuild) -> str | None:
    if build.vectors_from_id is None:
        return None
    # By its id: that build may be deleted meanwhile.
    kept = IndexBuild.objects.filter(pk=build.vectors_from_id)
    return kept.values_list("key_prefix", flat=True).first()


def _wanting(
    earlier: str | None, spec: IndexSpec, rows: list[SourceRow]
) -> Iterator[tuple[int, str]]:
    """Yield number and text of the rows whose vector is neither given nor to be taken over."""
    items = list(_items(spec, rows))
    if earlier is None:
        yield from ((number, item.text) for number, item in items)
        return
    keys = [earlier + item.id for _, item in items]
    digests = valkey.hash_fields(keys, [TEXT_FIELD])
    for (number, item), [digest] in zip(items, digests, strict=True):
        if digest != text_digest(item.text):
            yield number, item.text


def _items(spec: IndexSpec, rows: list[SourceRow]) -> Iterator[tuple[int, CatalogItem]]:
    """Yield the items without a vector of their own; the load counts the rows that are none."""
    maker = ItemMaker.of(spec)
    for number, values, _ in rows:
        if isinstance(values, RowError):
            continue
        try:
            item = maker.make(values)
        except RowError:
            continue
        if item.vector is None:
            yield number, item


def _line(endpoint: EndpointSpec, row: int, text: str) -> bytes:
    record = {ROW_FIELD: row, **passage_record(endpoint, text)}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
