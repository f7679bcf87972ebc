"""A build takes over the changes that came while it was loading, before its gates are run.

First everything up to now is replayed while calls go on, then, with calls held up for
a moment, the few that came meanwhile; from then on the build gets each change at once.
A replay may be repeated: a killed worker's successor starts it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import structlog
from django.db import transaction
from django.db.models import Q

from indexes import index_lock, valkey
from indexes.changes import row_of, settle, wins
from indexes.errors import RowError
from indexes.item_vectors import Vectors
from indexes.item_writes import NO_ROW, Change, State, Target, Write, send_surely
from indexes.lease import Lease
from indexes.models import ItemChange
from indexes.naming import TEXT_FIELD, VECTOR_FIELD

log = structlog.get_logger(__name__)

BATCH: Final = 500
# With no more than that left, calls are held up for the rest.
FEW: Final = 100
ROUNDS: Final = 5


def catch_up(lease: Lease, **saved: Any) -> None:
    """Write over the build what is newer than its source, and save ``saved`` with the last of it.

    Raises LeaseLost, SearchError or EmbeddingError; it can then be called again.
    """
    build = lease.build
    replay = _Replay(lease)
    since: datetime | None = None
    for _ in range(ROUNDS):
        until = index_lock.wait_for_calls(build.definition_id)
        replay.run(since, lease.save)
        since = until
        if replay.left(since) <= FEW:
            break
    # The lease is renewed with the last of it alone: a transaction given up would take it back.
    with transaction.atomic():
        now = index_lock.hold(build.definition_id)
        replay.run(since)
        # The engine had exactly what was loaded, so its count now is that of the items.
        items = valkey.index_info(build.index_name).num_docs
        lease.save(written=items, indexed=items, caught_up_at=now, **saved)
    if replay.written:
        log.info("build caught up", build=build.label, changes=replay.written)


class _Replay:
    """Changes of an index, over what one build has from its source."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._target = Target(lease.build)
        origin = lease.build.vectors_from
        self._origin = Target(origin) if origin is not None else None
        self.written = 0

    def left(self, since: datetime) -> int:
        """Return how many changes came since, counted no further than matters."""
        return len(self._changes(since).values_list("pk")[: FEW + 1])

    def run(self, since: datetime | None, renew: Callable[[], None] = lambda: None) -> None:
        """Replay the changes since a time, or all; ``renew`` is called while it goes on."""
        for batch in self._batches(since):
            self._replay(batch, renew)
            renew()

    def _changes(self, since: datetime | None) -> Any:
        build = self._lease.build
        found = ItemChange.objects.filter(definition_id=build.definition_id, settled_at=None)
        if since is not None:
            found = found.filter(changed_at__gte=since)
        return found.order_by("pk")

    def _batches(self, since: datetime | None) -> Iterator[list[ItemChange]]:
        last = 0
        while batch := list(self._changes(since).filter(Q(pk__gt=last))[:BATCH]):
            yield batch
            last = batch[-1].pk

    def _replay(self, batch: list[ItemChange], renew: Callable[[], None]) -> None:
        states = self._target.states([change.item_id for change in batch])
        newer: list[ItemChange] = []
        settled: list[ItemChange] = []
        for change in batch:
            state = states[change.item_id]
            (newer if self._wins(change, state) else settled).append(change)
        settle(settled)
        vectors = Vectors()
        self._plan(newer, states, vectors)
        self._take_over(vectors, newer)
        vectors.embed_all(renew)
        writes = self._plan(newer, states, vectors)
        send_surely(writes)
        self.written += len(writes)

    def _wins(self, change: ItemChange, state: State) -> bool:
        if state.row == NO_ROW:
            # It was written by a replay that was cut off.
            return True
        time = self._lease.build.catalog_time
        return wins(change, source_version=state.version, source_time=time)

    def _plan(
        self, changes: list[ItemChange], states: dict[str, State], vectors: Vectors
    ) -> list[Write]:
        writes = []
        for change in changes:
            row = None if change.deleted else row_of(change)
            wanted = Change(change.item_id, change.version, row, change.partial)
            try:
                write = self._target.plan(wanted, states[change.item_id])
            except RowError as error:
                # As a row of the source that is no item.
                log.info(
                    "item unfit",
                    build=self._target.label,
                    item=change.item_id,
                    reason=error.reason,
                )
                continue
            if write is not None:
                write, failure = vectors.complete(self._target, write)
                if failure is not None:
                    log.warning(
                        "item without vector",
                        build=self._target.label,
                        item=change.item_id,
                        reason=failure.code,
                        message=failure.message,
                    )
            if write is not None:
                writes.append(write)
        return writes

    def _take_over(self, vectors: Vectors, changes: list[ItemChange]) -> None:
        """Take the vectors that the build of ``vectors_from`` has of the same texts."""
        if self._origin is None or not vectors.missing:
            return
        keys = [self._origin.key(change.item_id) for change in changes]
        for text, vector in valkey.hash_fields(keys, [TEXT_FIELD, VECTOR_FIELD], fresh=True):
            if text and vector:
                vectors.take_over(self._target, text, vector)
