"""Loading a catalog into a build: read, embed, write, in shards that can be repeated.

A shard is written first and committed after: the cursor and the counters move
together by compare-and-set, so a killed worker costs one shard, and the same
rows written again are the same keys. Memory holds two shards at a time, as the
next one is read while one is written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from indexes import catalog, shards, valkey
from indexes.embedding import passage_calls
from indexes.errors import BuildError, SearchIndexMissing
from indexes.hash_writer import HashWriter
from indexes.items import item_hash
from indexes.lease import Lease
from indexes.models import IndexBuild, RejectedRow
from indexes.naming import ROW_FIELD
from indexes.passages import Call, PassageCalls
from indexes.shards import SHARD_ROWS, Numbered, Pace, Shard
from indexes.valkey_client import confirm_writes, primaries
from indexes.vectors import Origin, VectorSources

# The lease is renewed about as often.
BEAT_S = 1.0
# A slice goes on at least this many times as long as it took to get to its
# first shard, so that reopening a big packed file never becomes the main work.
WORK_PER_SKIP = 4
# Enough to see what is wrong; the counters go on.
MAX_KEPT_ROWS = 10_000


def load_slice(
    lease: Lease, *, seconds: float, call: Call | None = None, shard_rows: int = SHARD_ROWS
) -> bool:
    """Load from the build's cursor on, for about ``seconds``. True when the source is at its end.

    ``call`` stands in for calls to the endpoint. Raises LeaseLost, or the error that
    stopped it; committed shards stay.
    """
    build = lease.build
    spec = build.to_spec()
    if catalog.version(spec.catalog) != build.catalog_version:
        raise BuildError(f"{spec.catalog.uri} changed while it was loaded: start the build again.")
    _items_indexed(build)
    heart = _Heart(lease)
    pace = Pace(shard_rows)
    opened = time.monotonic()
    with ExitStack() as stack:
        rows = stack.enter_context(closing(catalog.read_rows(spec.catalog, start=build.cursor)))
        calls = stack.enter_context(
            passage_calls(spec.endpoint, beat=heart.beat)
            if call is None
            else PassageCalls(spec.endpoint, call, beat=heart.beat)
        )
        writer = stack.enter_context(HashWriter(beat=heart.beat))
        sources = VectorSources(build, spec, calls, heart.beat)
        read = _looked_up(build, shards.read(spec, rows, pace))
        ahead = shards.ahead(read, heart.beat)
        until = None
        for shard in stack.enter_context(closing(ahead)):
            now = time.monotonic()
            until = until or now + max(seconds, WORK_PER_SKIP * (now - opened))
            count = len(shard.items) + len(shard.rejected)
            _load(lease, shard, sources, writer, heart)
            pace.took(count, time.monotonic() - now)
            if time.monotonic() > until:
                return False
    return True


@dataclass
class _Heart:
    """Shows that the worker is alive, and how many rows of the shard under way are done."""

    lease: Lease
    under_way: int = 0
    last: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Renew the lease unless that was done a moment ago. Raises LeaseLost."""
        if time.monotonic() - self.last >= BEAT_S:
            self.lease.save(under_way=self.under_way)
            self.last = time.monotonic()


def _load(
    lease: Lease, shard: Shard, sources: VectorSources, writer: HashWriter, heart: _Heart
) -> None:
    build = lease.build
    servers = primaries()
    repeated = _set_duplicates_aside(build, shard)
    counts: Counter[Origin] = Counter()
    heart.under_way = len(shard.rejected)
    for numbered, vector, origin in sources.of(shard, repeated):
        key = valkey.key_bytes(build.key_prefix + numbered.item.id)
        writer.put(key, item_hash(numbered.item, vector, row=numbered.row))
        counts[origin] += 1
        heart.under_way += 1
        heart.beat()
    written = writer.flush()
    # A shard that is counted is not written again, so a failover must not lose it.
    confirm_writes(f"{settings.VALKEY_NAMESPACE}:written", since=servers)
    _commit(lease, shard, written, counts)
    heart.last = time.monotonic()


def _looked_up(build: IndexBuild, stream: Iterable[Shard]) -> Iterator[Shard]:
    """Yield shards with the rows that wrote their keys.

    It runs while the shard before is written: ids that this one has too are left open.
    """
    before: set[str] = set()
    for shard in stream:
        closed = [numbered for numbered in shard.items if numbered.item.id not in before]
        shard.written_by = _written_by(build, closed)
        before = {numbered.item.id for numbered in shard.items}
        yield shard


def _written_by(build: IndexBuild, items: Sequence[Numbered]) -> dict[int, int | None]:
    """Return the row that wrote the key of each row's item, None where there is none."""
    keys = [build.key_prefix + numbered.item.id for numbered in items]
    found = valkey.hash_fields(keys, [ROW_FIELD], fresh=True)
    return {
        numbered.row: None if row is None else int(row)
        for numbered, [row] in zip(items, found, strict=True)
    }


def _set_duplicates_aside(build: IndexBuild, shard: Shard) -> set[int]:
    """Reject items whose key an earlier row wrote; return the rows whose key they themselves wrote.

    Those were written by a worker that did not get to commit the shard.
    """
    left_open = [numbered for numbered in shard.items if numbered.row not in shard.written_by]
    written_by = shard.written_by | _written_by(build, left_open)
    fresh: list[Numbered] = []
    repeated = set()
    for numbered in shard.items:
        first = written_by[numbered.row]
        if first is not None and first != numbered.row:
            shard.reject(numbered.row, shards.duplicate(numbered.item, first), numbered.content)
            continue
        fresh.append(numbered)
        if first is not None:
            repeated.add(numbered.row)
    shard.items = fresh
    return repeated


def _commit(lease: Lease, shard: Shard, written: int, counts: Counter[Origin]) -> None:
    build = lease.build
    room = max(0, MAX_KEPT_ROWS - build.rejected)
    for row in shard.rejected:
        row.build = build
    reasons = Counter(build.rejected_reasons)
    reasons.update(row.reason for row in shard.rejected)
    origins = {origin.value: getattr(build, origin) + counts[origin] for origin in Origin}
    indexed = _items_indexed(build)
    with transaction.atomic():
        lease.save(
            cursor=shard.last,
            written=build.written + written,
            indexed=indexed,
            **origins,
            under_way=0,
            rejected=build.rejected + len(shard.rejected),
            rejected_reasons=dict(reasons),
            setbacks=0,
            notice="",
        )
        RejectedRow.objects.bulk_create(shard.rejected[:room])


def _items_indexed(build: IndexBuild) -> int:
    """Return how many items the engine has indexed. Raises BuildError when it has lost the index."""
    try:
        return valkey.index_info(build.index_name).num_docs
    except SearchIndexMissing as error:
        # Going on would fill a prefix that nothing indexes.
        raise BuildError(
            f"The search engine lost {build.index_name} while it was loaded, as a restart without "
            "persistence does. Start a new build."
        ) from error
