"""Taking builds out of the engine: the index first, then its keys, in steps that leave serving alone.

What has served stays until no process can be on it any more, whatever is asked for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from indexes import valkey
from indexes.models import IndexBuild
from indexes.queue import enqueue

# A pointer reaches every process within a second, and a request that began before lasts
# no longer than its deadline. The rest is for processes that were cut off or paused.
GRACE = timedelta(seconds=60)


def remove(build_id: int) -> None:
    """Take the index and items of a build that is over out of the engine. May be repeated.

    A build that served a moment ago is left for a later call.
    """
    build = IndexBuild.objects.get(pk=build_id)
    if build.status not in IndexBuild.OVER or _wait(build):
        return
    valkey.drop_index(build.index_name)
    valkey.delete_prefix(build.key_prefix)
    IndexBuild.objects.filter(pk=build_id).update(removed_at=timezone.now())


def send(build: IndexBuild) -> None:
    """Have a build that is over removed on commit, or once no process can be on it any more.

    Should the message be lost, ``builds.resume_stalled`` sends another.
    """
    build.refresh_from_db(fields=["served_until"])
    enqueue("retire_build", build.pk, delay_s=_wait(build))


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
        live = instance.status == IndexBuild.Status.LIVE
        wait = GRACE.total_seconds() if live else _wait(instance)
        enqueue("remove_orphan", instance.index_name, instance.key_prefix, delay_s=wait)


def _wait(build: IndexBuild) -> float:
    """Return the seconds until no process can be on the build any more."""
    if build.served_until is None:
        return 0
    return max(0.0, (build.served_until + GRACE - timezone.now()).total_seconds())
