"""Taking builds out of the engine: the index first, then its keys, in steps that leave serving alone."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from indexes import valkey
from indexes.models import IndexBuild
from indexes.queue import enqueue


def remove(build_id: int) -> None:
    """Take the index and items of a build that is over out of the engine. May be repeated."""
    build = IndexBuild.objects.get(pk=build_id)
    if build.status not in IndexBuild.OVER:
        return
    valkey.drop_index(build.index_name)
    valkey.delete_prefix(build.key_prefix)
    IndexBuild.objects.filter(pk=build_id).update(removed_at=timezone.now())


def remove_orphan(name: str, prefix: str) -> None:
    """Take an index whose build row is deleted out of the engine."""
    if IndexBuild.objects.filter(index_name=name).exists():
        # A definition of the same slug was made since: its build clears the names itself.
        return
    valkey.drop_index(name)
    valkey.delete_prefix(prefix)


def on_build_deleted(instance: IndexBuild, **_: Any) -> None:
    """Take a build out of the engine when the deletion of its row commits."""
    if instance.removed_at is None:
        enqueue("remove_orphan", instance.index_name, instance.key_prefix)
