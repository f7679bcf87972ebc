"""The pass over the source: shard by shard, what differs is written and what was seen is kept.

The endpoint is slow, and a call of the items API must not wait for it. So rows are
judged and embedded without a lock, and judged again with the index's lock held, a few at
a time, when they are written: whoever spoke last of an item has the last word. A shard
that is repeated finds its own marks on the items it wrote, and counts the same again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction
from django.db.models import F

from indexes import catalog, changes, index_lock, shards, valkey
from indexes.embedding import passage_calls
from indexes.errors import BuildError, EmbeddingRejected, RowError, SearchIndexMissing
from indexes.item_writes import send
from indexes.items import encode_vector
from indexes.lease import RefreshLease
from indexes.models import IndexBuild, RefreshShard
from indexes.passages import PassageCalls
from indexes.refresh.judging import Fate, Judge, Judged
from indexes.refresh.seen import Seen, digests
from indexes.schema import IndexSpec
from indexes.shards import SHARD_ROWS, Numbered, Pace, Shard
from indexes.valkey_client import confirm_writes, primaries

# Calls of the items API wait while so many are written.
AT_ONCE = 200
BEAT_S = 1.0
# A slice goes on at least this many times as long as it took to get to its first shard.
WORK_PER_SKIP = 4
# So many texts refused and none taken: the endpoint is to blame, not the texts.
MANY_REFUSED = 8

_VectorKey = tuple[str, bytes]


def read_slice(lease: RefreshLease, *, seconds: float, shard_rows: int = SHARD_ROWS) -> bool:
    """Read from the refresh's cursor on, for about ``seconds``. True when the source is at its end.

    Raises LeaseLost, or the error that stopped it; committed shards stay.
    """
    refresh = lease.refresh
    spec = refresh.build.to_spec()
    check_engine(refresh.build)
    check_source(lease, spec)
    opened = time.monotonic()
    with ExitStack() as stack:
        rows = stack.enter_context(closing(catalog.read_rows(spec.catalog, start=refresh.cursor)))
        heart = Heart(lease)
        calls = stack.enter_context(passage_calls(spec.endpoint, beat=heart.beat))
        reader = _Reader(lease, spec, calls)
        pace = Pace(shard_rows)
        ahead = shards.ahead(shards.read(spec, rows, pace), heart.beat)
        until = None
        for shard in stack.enter_context(closing(ahead)):
            now = time.monotonic()
            until = until or now + max(seconds, WORK_PER_SKIP * (now - opened))
            size = len(shard.items) + len(shard.rejected)
            reader.take(shard)
            heart.last = time.monotonic()
            pace.took(size, heart.last - now)
            if heart.last > until:
                return False
    return True


def check_source(lease: RefreshLease, spec: IndexSpec) -> None:
    """Raise BuildError where the source is no longer what the refresh began with."""
    if catalog.version(spec.catalog) != lease.refresh.catalog_version:
        raise BuildError(
            f"{spec.catalog.uri} changed while it was read: start the refresh again. "
            "Nothing was removed."
        )


def check_engine(build: IndexBuild) -> None:
    """Raise BuildError where the engine has lost the index of the build."""
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing as error:
        raise BuildError(
            f"The search engine has lost {build.index_name}. Start a full build."
        ) from error


def check_live(build: IndexBuild) -> None:
    """Raise BuildError unless the build is live; it stays so until the open transaction ends."""
    # What is retired is being removed: a key written after that would stay for good.
    rows = IndexBuild.objects.select_for_update(no_key=True).filter(pk=build.pk)
    if list(rows.values_list("status", flat=True)) != [IndexBuild.Status.LIVE]:
        raise BuildError(
            f"{build.label} is not live any more. Refresh the build that took its place."
        )


@dataclass
class Heart:
    """Shows that the worker is alive."""

    lease: RefreshLease
    last: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Renew the lease unless that was done a moment ago. Raises LeaseLost."""
        if time.monotonic() - self.last >= BEAT_S:
            self.lease.save()
            self.last = time.monotonic()


class _Reader:
    """Takes shard after shard, for as long as a turn lasts."""

    def __init__(self, lease: RefreshLease, spec: IndexSpec, calls: PassageCalls) -> None:
        self._lease = lease
        self._build = lease.refresh.build
        self._calls = calls
        self._judge = Judge(lease.refresh, spec)
        self._seen = Seen.of(lease.refresh)
        self._vectors: dict[_VectorKey, bytes] = {}

    def take(self, shard: Shard) -> None:
        """Write what differs in a shard, then commit it."""
        found = self._set_duplicates_aside(shard)
        judged = self._judge.judge(shard.items)
        done = [one for one in judged if one.fate is not Fate.TO_WRITE]
        todo = [one for one in judged if one.fate is Fate.TO_WRITE]
        self._embed(shard, todo)
        refused = {row.row for row in shard.rejected}
        left = [one.numbered for one in todo if one.numbered.row not in refused]
        servers = primaries() if left else frozenset[str]()
        for start in range(0, len(left), AT_ONCE):
            done += self._write(shard, left[start : start + AT_ONCE])
        if left:
            # A shard that is counted is not looked at again, so a failover must not lose it.
            confirm_writes(f"{settings.VALKEY_NAMESPACE}:written", since=servers)
        self._vectors.clear()
        self._commit(shard, done, found)
        changes.settle([one.overtaken for one in judged if one.overtaken is not None])
        self._seen.add(digests(found))

    def _set_duplicates_aside(self, shard: Shard) -> list[bytes]:
        """Reject the rows whose id was seen in another shard; return the ids of the others."""
        ids = [valkey.key_bytes(one.item.id) for one in shard.items]
        known = self._seen.has(digests(ids))
        fresh, found = [], []
        for one, item_id, duplicate in zip(shard.items, ids, known, strict=True):
            if duplicate:
                error = RowError("duplicate_id", f'An earlier row has the id "{one.item.id}".')
                shard.reject(one.row, error, one.content)
            else:
                fresh.append(one)
                found.append(item_id)
        shard.items = fresh
        return found

    def _embed(self, shard: Shard, todo: Sequence[Judged]) -> None:
        """Embed the texts that no vector is known of; one that is refused rejects its row."""
        wanted = [one for one in todo if one.needs_vector and _key(one) not in self._vectors]
        # Models pad a batch to its longest text: alike lengths together.
        wanted.sort(key=lambda one: len(one.item.text))
        refused, taken = 0, 0
        for start, found in self._calls.embed([one.item.text for one in wanted]):
            if not isinstance(found, EmbeddingRejected):
                taken += len(found)
                for one, vector in zip(wanted[start : start + len(found)], found, strict=True):
                    self._vectors[_key(one)] = encode_vector(vector)
                continue
            refused += 1
            if refused >= MANY_REFUSED and not taken:
                raise BuildError(f"The embedding endpoint refuses every text. {found}") from found
            numbered = wanted[start].numbered
            error = RowError("text_refused", f"The embedding endpoint refuses the text: {found}")
            shard.reject(numbered.row, error, numbered.content)

    def _write(self, shard: Shard, numbered: Sequence[Numbered]) -> list[Judged]:
        """Write these rows where they still differ, with no call of the items API in between."""
        while True:
            with transaction.atomic():
                index_lock.hold(self._build.definition_id)
                self._lease.check()
                check_live(self._build)
                judged = self._judge.judge(numbered)
                todo = [one for one in judged if one.fate is Fate.TO_WRITE]
                lacking = [
                    one for one in todo if one.needs_vector and _key(one) not in self._vectors
                ]
                if not lacking:
                    send([self._judge.write(one, self._vector(one)) for one in todo])
                    return judged
            # A call changed them a moment ago.
            self._embed(shard, lacking)
            refused = {row.row for row in shard.rejected}
            numbered = [one for one in numbered if one.row not in refused]

    def _vector(self, judged: Judged) -> bytes | None:
        return self._vectors[_key(judged)] if judged.needs_vector else None

    def _commit(self, shard: Shard, done: Sequence[Judged], found: Sequence[bytes]) -> None:
        refresh = self._lease.refresh
        fates = Counter(one.fate for one in done)
        reasons = Counter(refresh.rejected_reasons)
        reasons.update(row.reason for row in shard.rejected)
        added = sum(one.added for one in done)
        with transaction.atomic():
            self._lease.save(
                cursor=shard.last,
                unchanged=refresh.unchanged + fates[Fate.UNCHANGED],
                written=refresh.written + fates[Fate.WRITTEN] + fates[Fate.TO_WRITE],
                embedded=refresh.embedded + sum(one.embedded for one in done),
                kept=refresh.kept + fates[Fate.KEPT],
                rejected=refresh.rejected + len(shard.rejected),
                rejected_reasons=dict(reasons),
                setbacks=0,
                notice="",
            )
            RefreshShard.objects.create(
                refresh=refresh, cursor=shard.last, seen=digests(found).tobytes()
            )
            add_items(self._build, added)


def add_items(build: IndexBuild, number: int) -> None:
    """Count items that the build has more, or fewer."""
    if number:
        IndexBuild.objects.filter(pk=build.pk).update(
            written=F("written") + number, indexed=F("indexed") + number
        )


def _key(judged: Judged) -> _VectorKey:
    return judged.item.id, judged.digest
