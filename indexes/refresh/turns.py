"""The life of a refresh: pending → reading → removing → done, or failed.

It works in turns under a lease, as a build does, so that a message delivered twice or a
killed worker neither doubles nor loses anything. What it has written stays when it fails;
the next one goes on from there.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from indexes import catalog
from indexes.errors import BuildError, IndexesError
from indexes.lease import LeaseLost, RefreshLease
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh
from indexes.progress import SILENCE
from indexes.queue import enqueue as send
from indexes.refresh.reading import check_live, check_source, read_slice
from indexes.refresh.removing import check_rows, remove_gone

log = structlog.get_logger(__name__)
Status = IndexRefresh.Status

# Temporary failures in a row, with waits that double up to a minute: seven minutes in all.
MAX_SETBACKS = 12
LONGEST_WAIT = 60.0
# Refreshes of an index that are kept to look back at.
KEPT = 200


def start(
    definition: IndexDefinition, *, requested_by: User | None = None, enqueue: bool = True
) -> IndexRefresh:
    """Start a refresh of the live build, enqueued on commit.

    Without ``enqueue`` the caller runs it. Raises BuildError with every reason that keeps it
    from being started.
    """
    with transaction.atomic():
        definition = IndexDefinition.objects.select_for_update().get(pk=definition.pk)
        live = definition.live_build
        reasons = problems(definition)
        if live is None or reasons:
            raise BuildError(" ".join(reasons))
        refresh = IndexRefresh.objects.create(
            build=live, requested_by=requested_by, heartbeat_at=timezone.now()
        )
        _forget_old(definition)
        if enqueue:
            send("run_refresh", refresh.pk)
    return refresh


def problems(definition: IndexDefinition) -> list[str]:
    """Return every reason why the index cannot be refreshed now, each a sentence."""
    live = definition.live_build
    if live is None:
        return ["Nothing is live that could be refreshed: run a full build first."]
    found = []
    if live.refreshes.filter(status__in=IndexRefresh.RUNNING).exists():
        found.append(f"{live.label} is being refreshed already.")
    draft, built = definition.to_spec(), live.to_spec()
    same = {
        "The fields": draft.fields == built.fields,
        "The catalog source": draft.catalog == built.catalog,
        "The embedding endpoint": draft.endpoint.fingerprint == built.endpoint.fingerprint,
    }
    found += [
        f"{part} changed since {live.label} was built: that takes a full build."
        for part, is_same in same.items()
        if not is_same
    ]
    return found


def run(refresh_id: int, *, seconds: float = 20) -> float | None:
    """Do one turn of work, of about ``seconds``, on a running refresh.

    Return the seconds to wait before the next turn, or None when there is none:
    it has ended, or another worker has it.
    """
    lease = RefreshLease.claim(refresh_id)
    if lease is None:
        return None
    try:
        wait = _turn(lease, seconds)
    except LeaseLost:
        return None
    except IndexesError as error:
        return _set_back(lease, error)
    refresh = lease.refresh
    log.info("refresh turn", build=refresh.build.label, status=refresh.status, rows=refresh.cursor)
    return wait


def run_to_end(refresh_id: int) -> None:
    """Run every turn here, without a queue."""
    while (wait := run(refresh_id)) is not None:
        time.sleep(wait)


def resume_stalled() -> list[str]:
    """Enqueue running refreshes that nobody works on; return the labels of their builds."""
    now = timezone.now()
    # Without a lease, a message may have been lost between two turns.
    stalled = Q(lease_until__lt=now) | Q(lease_until=None, heartbeat_at__lt=now - SILENCE)
    resumed = []
    running = IndexRefresh.objects.filter(stalled, status__in=IndexRefresh.RUNNING)
    for refresh in running.select_related("build"):
        # Compare-and-set, so that two schedulers do not enqueue it twice.
        seen = IndexRefresh.objects.filter(pk=refresh.pk, heartbeat_at=refresh.heartbeat_at)
        if seen.update(heartbeat_at=now):
            send("run_refresh", refresh.pk)
            resumed.append(refresh.build.label)
    return resumed


def _turn(lease: RefreshLease, seconds: float) -> float | None:
    """Carry the refresh as far as a turn goes. Returns what ``run`` returns."""
    refresh = lease.refresh
    if refresh.setbacks > MAX_SETBACKS:
        raise BuildError(
            f"No progress in {MAX_SETBACKS} turns in a row after row {refresh.cursor:,}. "
            f"{refresh.notice or 'The log of the worker says why.'}"
        )
    with transaction.atomic():
        check_live(refresh.build)
    if refresh.status == Status.PENDING and not _begin(lease):
        return None
    if refresh.status == Status.READING:
        if not read_slice(lease, seconds=seconds):
            lease.release(setbacks=0)
            return 0
        check_source(lease, refresh.build.to_spec())
        check_rows(refresh)
        lease.save(status=Status.REMOVING, setbacks=0)
    remove_gone(lease)
    _end(lease, Status.DONE)
    return None


def _begin(lease: RefreshLease) -> bool:
    """Note what the source is; False where it is what the build has already, which ends it."""
    refresh = lease.refresh
    spec = refresh.build.to_spec().catalog
    noted: dict[str, Any] = {
        "catalog_version": catalog.version(spec),
        "catalog_time": catalog.modified_at(spec),
    }
    if noted["catalog_version"] == _version_held(refresh):
        notice = "The source has not changed since it was last read, so there was nothing to do."
        _end(lease, Status.DONE, notice=notice, **noted)
        return False
    lease.save(**noted, total_rows=catalog.count_rows(spec), status=Status.READING, setbacks=0)
    return True


def _version_held(refresh: IndexRefresh) -> str:
    """Return the version of the source that the build is known to hold, or nothing."""
    build = refresh.build
    others = build.refreshes.exclude(pk=refresh.pk)
    # One that failed before it read anything changed nothing.
    last = others.exclude(catalog_version="").order_by("-created_at", "-pk").first()
    if last is None:
        return build.catalog_version
    return last.catalog_version if last.status == Status.DONE else ""


def _end(lease: RefreshLease, status: Status, **changes: Any) -> None:
    with transaction.atomic():
        lease.release(status=status, finished_at=timezone.now(), setbacks=0, **changes)
        lease.refresh.shards.all().delete()


def _set_back(lease: RefreshLease, error: IndexesError) -> float | None:
    """Wait after a temporary error; fail the refresh on any other."""
    refresh = lease.refresh
    label = refresh.build.label
    try:
        # What a transaction took back is still on the instance.
        refresh.refresh_from_db()
        if refresh.lease_until is not None:
            lease.until = refresh.lease_until
        sentence = _sentence(error)
        if error.retryable:
            lease.release(notice=f"{sentence} Trying again."[:300])
            log.warning("refresh set back", build=label, error=str(error))
            return min(2.0**refresh.setbacks / 2, LONGEST_WAIT)
        _end(lease, Status.FAILED, error=sentence, notice="")
        log.error("refresh failed", build=label, error=str(error))
    except (LeaseLost, IndexRefresh.DoesNotExist, IndexBuild.DoesNotExist):
        pass
    return None


def _forget_old(definition: IndexDefinition) -> None:
    ended = IndexRefresh.objects.filter(build__definition=definition)
    ended = ended.exclude(status__in=IndexRefresh.RUNNING).order_by("-created_at")
    old = list(ended.values_list("pk", flat=True)[KEPT : KEPT + 100])
    IndexRefresh.objects.filter(pk__in=old).delete()


def _sentence(error: IndexesError) -> str:
    text = str(error) or error.reason
    return text if text.endswith((".", "!", "?")) else f"{text}."
