"""Changes of single items, kept over what the source says: which of the two wins, and when.

``ItemChange`` holds the newest change of each item. Builds that can be searched get
a change at once (``indexes.item_calls``); a build that was loading takes over what
came meanwhile (``indexes.catching_up``); a refresh leaves alone what is newer than
its source.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from indexes import index_lock
from indexes.models import IndexBuild, ItemChange

Status = IndexBuild.Status

# A change that comes late must not bring a deleted item back: so long its version is remembered.
KEEP_DELETIONS: Final = timedelta(days=7)
_STEP: Final = 1000


def of(definition_id: int, ids: Collection[str]) -> dict[str, ItemChange]:
    """Return the newest changes of these items, by item id."""
    found = ItemChange.objects.filter(definition_id=definition_id, item_id__in=ids)
    return {change.item_id: change for change in found}


def wins(change: ItemChange, *, source_version: float | None, source_time: datetime | None) -> bool:
    """Tell whether a change is newer than what a source says of its item.

    The higher version wins. Where one has none, or they are equal, the later does: the change,
    or the source as a whole. ``source_time`` is when it was written; None where nobody knows.
    """
    if None not in (change.version, source_version) and change.version != source_version:
        return bool(change.version > source_version)  # type: ignore[operator]  # neither is None
    return source_time is None or change.changed_at > source_time


def row_of(change: ItemChange) -> dict[str, Any]:
    """Return the row of a change; empty for a deletion."""
    row: dict[str, Any] = orjson.loads(change.row) if change.row else {}
    return row


def settle(changes: Iterable[ItemChange]) -> None:
    """Note that a source holds the same as these changes or newer: no later build needs them."""
    for change in changes:
        # Not one that has come since.
        same = ItemChange.objects.filter(pk=change.pk, changed_at=change.changed_at)
        same.update(settled_at=timezone.now())


def takes_changes() -> Q:
    """Return the condition of the builds that get each change at once."""
    caught_up = Q(status=Status.VALIDATING, caught_up_at__isnull=False)
    return Q(status__in=(Status.LIVE, Status.READY)) | caught_up


def prune() -> int:
    """Delete the changes that no build needs any more; return how many.

    None of an index of which a build is under way that has yet to take them over.
    """
    under_way = IndexBuild.objects.filter(
        definition=OuterRef("definition"), status__in=IndexBuild.RUNNING, caught_up_at=None
    )
    remembered = Q(
        deleted=True, newest__isnull=False, changed_at__gt=timezone.now() - KEEP_DELETIONS
    )
    settled = ItemChange.objects.exclude(settled_at=None).exclude(remembered)
    settled = settled.filter(~Exists(under_way))
    pruned = 0
    for definition_id in settled.order_by().values_list("definition_id", flat=True).distinct():
        ids = settled.filter(definition_id=definition_id).order_by("pk").values("pk")
        deleted = _STEP
        # In steps: one statement for millions would hold their locks for its whole time.
        while deleted == _STEP:
            with transaction.atomic():
                # A call counts on the rows that it found to be there until it has locked them.
                index_lock.hold(definition_id)
                deleted, _ = ItemChange.objects.filter(pk__in=ids[:_STEP]).delete()
            pruned += deleted
    return pruned
