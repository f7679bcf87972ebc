"""The end of a refresh: items that the source has no more are removed, unless they are too many.

The keys are gone through twice, first only to count: an export that was cut off must
not empty an index. Memory holds the digests of the ids seen, and some hundred keys.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from django.db import transaction

from indexes import changes, index_lock, valkey
from indexes.errors import BuildError
from indexes.item_writes import Write, send
from indexes.lease import RefreshLease
from indexes.models import IndexRefresh
from indexes.naming import ROW_FIELD
from indexes.refresh.reading import AT_ONCE, Heart, add_items, check_live
from indexes.refresh.seen import Seen, digests

MOST_PERCENT: Final = 30
# Searches run between two steps.
LONGEST_REST_S: Final = 0.25


def check_rows(refresh: IndexRefresh) -> None:
    """Raise BuildError where the source has no rows, or too many that are no items."""
    if not refresh.cursor:
        raise BuildError(
            "The source has no rows, so nothing was removed. Export the catalog again; "
            "if it is meant, change the source and run a full build."
        )
    percent = 100 * refresh.rejected / refresh.cursor
    most = refresh.build.definition.max_rejected_percent
    if percent > most:
        reason, rows = max(refresh.rejected_reasons.items(), key=lambda pair: pair[1])
        raise BuildError(
            f"{refresh.rejected:,} of {refresh.cursor:,} rows were rejected ({percent:.0f} %); at most "
            f"{most} % may be. Most often: {reason.replace('_', ' ')} ({rows:,} rows). "
            "Nothing was removed. Correct the catalog, or run a full build, which keeps each "
            "rejected row."
        )


def remove_gone(lease: RefreshLease) -> None:
    """Remove the items whose ids no row had. Raises BuildError before the first one if they are too many."""
    refresh = lease.refresh
    seen = Seen.of(refresh)
    _check_share(lease, seen)
    for keys in _parts(lease, seen):
        started = time.monotonic()
        _remove(lease, keys)
        time.sleep(min(time.monotonic() - started, LONGEST_REST_S))


def _check_share(lease: RefreshLease, seen: Seen) -> None:
    refresh, heart = lease.refresh, Heart(lease)
    # Of a refresh that goes on after its worker was killed, some are removed already.
    gone = all_items = refresh.removed
    for part in valkey.scan_keys(refresh.build.key_prefix):
        all_items += len(part)
        gone += len(_outdated(refresh, _unseen(refresh, seen, part)))
        heart.beat()
    if 100 * gone > MOST_PERCENT * all_items:
        raise BuildError(
            f"The source no longer has {gone:,} of the {all_items:,} items "
            f"({100 * gone / all_items:.0f} %); a refresh removes at most {MOST_PERCENT} %, and this one "
            "removed none. If it is meant, run a full build; if not, export the catalog again."
        )


def _parts(lease: RefreshLease, seen: Seen) -> Iterator[Sequence[bytes]]:
    refresh, heart = lease.refresh, Heart(lease)
    for part in valkey.scan_keys(refresh.build.key_prefix):
        heart.beat()
        gone = _unseen(refresh, seen, part)
        for start in range(0, len(gone), AT_ONCE):
            yield gone[start : start + AT_ONCE]


def _remove(lease: RefreshLease, keys: Sequence[bytes]) -> None:
    refresh = lease.refresh
    with transaction.atomic():
        index_lock.hold(refresh.build.definition_id)
        lease.check()
        check_live(refresh.build)
        outdated = _outdated(refresh, keys)
        # A call may have deleted some since they were found.
        rows = valkey.hash_fields(outdated, [ROW_FIELD], fresh=True)
        there = [key for key, [row] in zip(outdated, rows, strict=True) if row is not None]
        if not there:
            return
        send([Write(key, delete=True) for key in there])
        add_items(refresh.build, -len(there))
        lease.save(removed=refresh.removed + len(there))


def _unseen(refresh: IndexRefresh, seen: Seen, keys: Sequence[bytes]) -> list[bytes]:
    start = len(valkey.key_bytes(refresh.build.key_prefix))
    found = seen.has(digests(key[start:] for key in keys))
    # One key may come twice.
    return list(dict.fromkeys(key for key, known in zip(keys, found, strict=True) if not known))


def _outdated(refresh: IndexRefresh, keys: Sequence[bytes]) -> list[bytes]:
    """Return the keys without those of items that the API put since the source was written."""
    start = len(valkey.key_bytes(refresh.build.key_prefix))
    by_id = {key[start:].decode("utf-8", "surrogatepass"): key for key in keys}
    for change in changes.of(refresh.build.definition_id, list(by_id)).values():
        puts = not change.deleted and not change.partial
        if puts and changes.wins(change, source_version=None, source_time=refresh.catalog_time):
            del by_id[change.item_id]
    return list(by_id.values())
