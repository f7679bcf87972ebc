"""Loading a catalog into a build: read, embed, write, in shards that can be repeated.

A shard is written first and committed after: the cursor and the counters move
together by compare-and-set, so a killed worker costs one shard, and the same
rows written again are the same keys. Memory holds one shard at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import transaction

from indexes import catalog, valkey
from indexes.embedding import embed_passages
from indexes.errors import BuildError, EmbeddingRejected, RowError, SearchIndexMissing
from indexes.formats.rows import SourceRow, as_json, shown
from indexes.items import CatalogItem, ItemMaker, encode_vector, item_hash
from indexes.lease import Lease
from indexes.models import IndexBuild, RejectedRow
from indexes.naming import ROW_FIELD
from indexes.schema import EndpointSpec, IndexSpec

Embed = Callable[[EndpointSpec, Sequence[str]], npt.NDArray[np.float32]]
Numbered = tuple[int, CatalogItem]

SHARD_ROWS = 1000
# Calls to the endpoint between two renewals of the lease.
CALLS_PER_CHUNK = 8
# A slice goes on at least this many times as long as it took to get to its
# first row, so that reopening a big packed file never becomes the main work.
WORK_PER_SKIP = 4
# Enough to see what is wrong; the counters go on.
MAX_KEPT_ROWS = 10_000


def load_slice(
    lease: Lease,
    *,
    seconds: float,
    embed: Embed = embed_passages,
    shard_rows: int = SHARD_ROWS,
) -> bool:
    """Load from the build's cursor on, for about ``seconds``. True when the source is at its end.

    Raises LeaseLost, or the error that stopped it; committed shards stay.
    """
    build = lease.build
    spec = build.to_spec()
    if catalog.version(spec.catalog) != build.catalog_version:
        raise BuildError(f"{spec.catalog.uri} changed while it was loaded: start the build again.")
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing as error:
        # Going on would fill a prefix that nothing indexes.
        raise BuildError(
            f"The search engine lost {build.index_name} while it was loaded, as a restart without "
            "persistence does. Start a new build."
        ) from error
    opened = time.monotonic()
    with closing(catalog.read_rows(spec.catalog, start=build.cursor)) as rows:
        first = list(islice(rows, 1))
        now = time.monotonic()
        until = now + max(seconds, WORK_PER_SKIP * (now - opened))
        stream = chain(first, rows)
        while shard := list(islice(stream, shard_rows)):
            _load(lease, spec, shard, embed)
            if time.monotonic() > until:
                return False
    return True


@dataclass
class _Shard:
    """What becomes of the rows of one shard."""

    items: list[Numbered] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def reject(self, number: int, error: RowError, content: str) -> None:
        message = shown(str(error))[:500]
        self.rejected.append(
            RejectedRow(row=number, reason=error.reason, message=message, content=content)
        )


def _load(lease: Lease, spec: IndexSpec, rows: list[SourceRow], embed: Embed) -> None:
    build = lease.build
    shard = _read(spec, rows)
    _set_duplicates_aside(build, shard)
    # Models pad a batch to its longest text: alike lengths halve the time of long titles.
    shard.items.sort(key=lambda numbered: len(numbered[1].text))
    written = 0
    size = spec.endpoint.max_batch * CALLS_PER_CHUNK
    for start in range(0, len(shard.items), size):
        chunk = shard.items[start : start + size]
        embedded = _embedded(spec.endpoint, chunk, shard, embed)
        done = valkey.write_hashes(_hashes(build, embedded))
        if not done and len(chunk) > 1:
            numbers = [number for number, _ in chunk]
            raise BuildError(
                f"All {len(chunk)} texts between rows {min(numbers):,} and {max(numbers):,} were "
                f"refused. {shard.rejected[-1].message}"
            )
        written += done
        lease.save(under_way=min(start + size, len(shard.items)))
    _commit(lease, shard, rows[-1].number, written)


def _read(spec: IndexSpec, rows: Iterable[SourceRow]) -> _Shard:
    maker = ItemMaker.of(spec)
    shard = _Shard()
    seen: dict[str, int] = {}
    for number, values, content in rows:
        try:
            if isinstance(values, RowError):
                raise values
            item = maker.make(values)
            first = seen.setdefault(item.id, number)
            if first != number:
                raise _duplicate(item, first)
            shard.items.append((number, item))
        except RowError as error:
            shard.reject(number, error, content or as_json(values))
    return shard


def _set_duplicates_aside(build: IndexBuild, shard: _Shard) -> None:
    """Reject items whose key an earlier row wrote; a key that this very row wrote is a repeated shard."""
    keys = [build.key_prefix + item.id for _, item in shard.items]
    written_by = valkey.hash_fields(keys, [ROW_FIELD], fresh=True)
    fresh = []
    for (number, item), [row] in zip(shard.items, written_by, strict=True):
        if row is None or int(row) == number:
            fresh.append((number, item))
        else:
            shard.reject(number, _duplicate(item, int(row)), item.text[:500])
    shard.items = fresh


def _embedded(
    endpoint: EndpointSpec, chunk: list[Numbered], shard: _Shard, embed: Embed
) -> Iterator[tuple[int, CatalogItem, npt.NDArray[np.float32]]]:
    """Yield items with their vectors. A text that the endpoint refuses rejects its row only."""
    try:
        vectors = embed(endpoint, [item.text for _, item in chunk])
    except EmbeddingRejected as error:
        if len(chunk) == 1:
            [(number, item)] = chunk
            refused = RowError("text_refused", f"The embedding endpoint refuses the text: {error}")
            shard.reject(number, refused, item.text[:500])
            return
        middle = len(chunk) // 2
        yield from _embedded(endpoint, chunk[:middle], shard, embed)
        yield from _embedded(endpoint, chunk[middle:], shard, embed)
        return
    for (number, item), vector in zip(chunk, vectors, strict=True):
        yield number, item, vector


def _hashes(
    build: IndexBuild, embedded: Iterable[tuple[int, CatalogItem, npt.NDArray[np.float32]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item, vector in embedded:
        yield build.key_prefix + item.id, item_hash(item, encode_vector(vector), row=number)


def _commit(lease: Lease, shard: _Shard, cursor: int, written: int) -> None:
    build = lease.build
    room = max(0, MAX_KEPT_ROWS - build.rejected)
    for row in shard.rejected:
        row.build = build
    with transaction.atomic():
        lease.save(
            cursor=cursor,
            written=build.written + written,
            embedded=build.embedded + written,
            under_way=0,
            rejected=build.rejected + len(shard.rejected),
            setbacks=0,
            notice="",
        )
        RejectedRow.objects.bulk_create(shard.rejected[:room])


def _duplicate(item: CatalogItem, first: int) -> RowError:
    return RowError("duplicate_id", f'The id "{item.id}" is that of row {first}, which is kept.')
