"""Taking builds out of the engine: the index first, then its keys, in steps that leave serving alone.

What has served stays until no process can be on it any more, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from django.utils import timezone

from indexes import batch_transform, index_lock, valkey
from indexes.errors import IndexesError
from indexes.models import IndexBuild, IndexDefinition
from indexes.queue import enqueue

log = structlog.get_logger(__name__)

# Of one message; what is left after it goes into the next one, so that workers are free between.
TURN_S = 20.0

# A pointer reaches every process within a second, and a request that began before lasts
# no longer than its deadline. The rest is for processes that were cut off or paused.
GRACE = timedelta(seconds=60)


def remove(build_id: int, *, seconds: float = TURN_S) -> bool:
    """Take the index, items and job of a build that is over away, for about ``seconds``.

    Return whether all is gone; items that are left are enqueued. May be repeated.
    A build that served a moment ago is left for a later call, one whose row is deleted to
    ``remove_orphan``.
    """
    build = IndexBuild.objects.filter(pk=build_id).first()
    if build is None:
        return True
    if build.status not in IndexBuild.OVER or _wait(build):
        return False
    job_ended = _end_job(build.batch_job)
    # A call that changes items may still have it among the builds to write to.
    index_lock.wait_for_calls(build.definition_id)
    valkey.drop_index(build.index_name)
    found = IndexBuild.objects.filter(pk=build_id)
    # Without its index, a removed key costs the engine little.
    if not valkey.delete_prefix(build.key_prefix, seconds=seconds):
        # The scheduler takes it up where a message is lost.
        found.update(heartbeat_at=timezone.now())
        enqueue("retire_build", build_id)
        return False
    if job_ended:
        found.update(removed_at=timezone.now())
    return job_ended


def send(build: IndexBuild) -> None:
    """Have a build that is over removed on commit, or once no process can be on it any more.

    Should the message be lost, ``builds.resume_stalled`` sends another.
    """
    build.refresh_from_db(fields=["served_until"])
    enqueue("retire_build", build.pk, delay_s=_wait(build))


def remove_orphan(
    name: str,
    prefix: str,
    batch_job: Mapping[str, Any] | None = None,
    *,
    seconds: float = TURN_S,
) -> bool:
    """Take the index, items and job of a build away whose row is deleted, as ``remove`` does.

    It ends as soon as another build has the names: made by a definition of the same slug,
    that one clears them itself, and what it writes then is its own.
    """
    _end_job(batch_job or {})

    def unowned() -> bool:
        return not IndexBuild.objects.filter(index_name=name).exists()

    if not unowned():
        return True
    valkey.drop_index(name)
    if valkey.delete_prefix(prefix, seconds=seconds, still=unowned) or not unowned():
        return True
    enqueue("remove_orphan", name, prefix)
    return False


def on_build_deleted(instance: IndexBuild, **_: Any) -> None:
    """Take a build out of the engine when the deletion of its row commits.

    Called before any row is deleted: its definition, which says whether it serves, may go too.
    """
    if instance.removed_at is None:
        canary = IndexDefinition.objects.filter(canary_build=instance.pk).exists()
        serves = canary or instance.status == IndexBuild.Status.LIVE
        wait = GRACE.total_seconds() if serves else _wait(instance)
        names = (instance.index_name, instance.key_prefix, instance.batch_job)
        enqueue("remove_orphan", *names, delay_s=wait)


def _wait(build: IndexBuild) -> float:
    """Return the seconds until no process can be on the build any more."""
    if build.served_until is None:
        return 0
    return max(0.0, (build.served_until + GRACE - timezone.now()).total_seconds())


def _end_job(batch_job: Mapping[str, Any]) -> bool:
    """Stop the job and remove its folder; False where that is to be tried again.

    Nothing that AWS refuses keeps a build in the engine's memory.
    """
    try:
        batch_transform.remove(batch_job)
    except IndexesError as error:
        log.warning("batch job left", job=batch_job.get("name"), error=str(error))
        return not error.retryable
    return True
