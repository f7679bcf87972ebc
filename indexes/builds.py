"""The life of a build: pending → creating → loading → indexing → ready → live, or failed, or retired.

Every move is compare-and-set on the status it starts from. Work is done in
turns under a lease (``indexes.lease``), so that a message delivered twice or a
killed worker neither doubles nor loses anything. What is live stays live until
``promote`` moves the pointer.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from indexes import loading, valkey
from indexes.catalog import count_rows, version
from indexes.errors import BuildError, IndexesError, SearchIndexMissing
from indexes.gates import check_indexed, check_loaded, check_source, problems
from indexes.lease import Lease, LeaseLost
from indexes.models import IndexBuild, IndexDefinition
from indexes.naming import index_name, key_prefix
from indexes.progress import SILENCE
from indexes.signals import live_build_changed

log = structlog.get_logger(__name__)
Status = IndexBuild.Status

# Temporary failures in a row, with waits that double up to a minute: seven
# minutes in all, in which an endpoint that is being updated comes back.
MAX_SETBACKS = 12
LONGEST_WAIT = 60.0
POLL = 0.25


def start(
    definition: IndexDefinition, *, requested_by: User | None = None, enqueue: bool = True
) -> IndexBuild:
    """Freeze the definition as the next build and enqueue it on commit.

    Without ``enqueue`` the caller runs it. Raises BuildError with every reason
    that keeps it from being built.
    """
    with transaction.atomic():
        definition = IndexDefinition.objects.select_for_update().get(pk=definition.pk)
        if reasons := problems(definition):
            raise BuildError(" ".join(reasons))
        last = definition.builds.aggregate(last=Max("number"))["last"] or 0
        names = (settings.VALKEY_NAMESPACE, definition.slug, last + 1)
        build = IndexBuild.objects.create(
            definition=definition,
            number=last + 1,
            spec=definition.to_spec().model_dump(mode="json"),
            index_name=index_name(*names),
            key_prefix=key_prefix(*names),
            requested_by=requested_by,
            heartbeat_at=timezone.now(),
        )
        if enqueue:
            _enqueue("run_build", build.pk)
    return build


def run(build_id: int, *, seconds: float = 20) -> float | None:
    """Do one turn of work, of about ``seconds``, on a running build.

    Return the seconds to wait before the next turn, or None when there is none:
    the build has ended, or another worker has it.
    """
    lease = Lease.claim(build_id)
    if lease is None:
        return None
    build = lease.build
    try:
        wait = _turn(lease, seconds)
    except LeaseLost:
        _tidy_after_loss(build)
        return None
    except IndexesError as error:
        return _set_back(lease, error)
    log.info("build turn", build=build.label, status=build.status, rows=build.cursor)
    return wait


def run_to_end(build_id: int) -> None:
    """Run every turn here, without a queue."""
    while (wait := run(build_id)) is not None:
        time.sleep(wait)


def promote(build: IndexBuild) -> None:
    """Make a READY build live; the one that was live becomes READY, older ones are retired.

    Raises BuildError when the build is not READY or the engine has lost its index.
    """
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing as error:
        raise BuildError(
            f"The search engine no longer has {build.index_name}. Start a new build."
        ) from error
    with transaction.atomic():
        definition = IndexDefinition.objects.select_for_update().get(pk=build.definition_id)
        previous = definition.live_build_id
        if not _move(build.pk, Status.READY, Status.LIVE):
            build.refresh_from_db()
            raise BuildError(
                f"{build.label} is {build.get_status_display().lower()}: "
                "only a build that is ready can be made live."
            )
        for older in definition.builds.filter(status=Status.READY):
            retire(older)
        if previous is not None:
            # Kept for the way back.
            _move(previous, Status.LIVE, Status.READY)
        definition.live_build = build
        definition.save(update_fields=["live_build"])
        live_build_changed.send(sender=IndexDefinition, definition=definition)
    build.refresh_from_db()


def retire(build: IndexBuild) -> None:
    """Give up a READY build: it can no longer be made live, and leaves the engine on commit."""
    with transaction.atomic():
        if not _move(build.pk, Status.READY, Status.RETIRED):
            raise BuildError(f"{build.label} is not ready, so it cannot be retired.")
        _enqueue("retire_build", build.pk)


def stop(build: IndexBuild, reason: str) -> None:
    """End a running build as failed, from outside: its worker notices at its next write."""
    with transaction.atomic():
        stopped = IndexBuild.objects.filter(pk=build.pk, status__in=IndexBuild.RUNNING).update(
            status=Status.FAILED, error=reason, finished_at=timezone.now(), lease_until=None
        )
        if not stopped:
            raise BuildError(f"{build.label} is not running any more.")
        _enqueue("retire_build", build.pk)


def remove(build_id: int) -> None:
    """Take the index and items of a failed or retired build out of the engine. May be repeated."""
    build = IndexBuild.objects.get(pk=build_id)
    if build.status not in (Status.FAILED, Status.RETIRED):
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
        _enqueue("remove_orphan", instance.index_name, instance.key_prefix)


def resume_stalled() -> list[str]:
    """Enqueue running builds that nobody works on, and removals that were cut off."""
    now = timezone.now()
    # Without a lease, a message may have been lost between two turns.
    stalled = Q(lease_until__lt=now) | Q(lease_until=None, heartbeat_at__lt=now - SILENCE)
    resumed = []
    for build in IndexBuild.objects.filter(stalled, status__in=IndexBuild.RUNNING):
        # Compare-and-set, so that two schedulers do not enqueue it twice.
        seen = IndexBuild.objects.filter(pk=build.pk, heartbeat_at=build.heartbeat_at)
        if seen.update(heartbeat_at=now):
            _enqueue("run_build", build.pk)
            resumed.append(build.label)
    left = IndexBuild.objects.filter(
        status__in=(Status.FAILED, Status.RETIRED), removed_at=None, heartbeat_at__lt=now - SILENCE
    )
    for build in left:
        _enqueue("retire_build", build.pk)
    return resumed


def _turn(lease: Lease, seconds: float) -> float | None:
    """Carry the build as far as a turn goes. Returns what ``run`` returns."""
    build = lease.build
    if build.setbacks > MAX_SETBACKS:
        raise BuildError(
            f"No progress in {MAX_SETBACKS} turns in a row after row {build.cursor:,}. "
            f"{build.notice or 'The log of the worker says why.'}"
        )
    if build.status == Status.PENDING:
        lease.save(status=Status.CREATING, started_at=timezone.now())
    if build.status == Status.CREATING:
        _create(lease)
    if build.status == Status.LOADING:
        if not loading.load_slice(lease, seconds=seconds):
            lease.release(setbacks=0, notice="")
            return 0
        check_loaded(build)
        lease.save(status=Status.INDEXING, setbacks=0, notice="")
    return _finish(lease, seconds)


def _create(lease: Lease) -> None:
    build = lease.build
    spec = build.to_spec()
    check_source(spec)
    lease.save()
    # Left over from a worker that died here, or from a definition of the same slug.
    valkey.drop_index(build.index_name)
    valkey.delete_prefix(build.key_prefix)
    valkey.create_index(build.index_name, build.key_prefix, spec)
    lease.save(
        status=Status.LOADING,
        catalog_version=version(spec.catalog),
        total_rows=count_rows(spec.catalog),
        loading_at=timezone.now(),
        setbacks=0,
        notice="",
    )


def _finish(lease: Lease, seconds: float) -> float | None:
    """Wait until the engine has indexed all, then make the build live."""
    build = lease.build
    until = time.monotonic() + seconds
    before = build.indexed
    state = valkey.index_info(build.index_name)
    while not (state.ready and state.num_docs >= build.written) and time.monotonic() < until:
        notice = f"The engine has indexed {state.num_docs:,} of {build.written:,} items."
        lease.save(indexed=state.num_docs, notice=notice)
        time.sleep(POLL)
        state = valkey.index_info(build.index_name)
    if not state.ready:
        lease.release(setbacks=0 if state.num_docs > before else build.setbacks)
        return 1
    check_indexed(build, state)
    with transaction.atomic():
        lease.release(
            status=Status.READY,
            indexed=state.num_docs,
            finished_at=timezone.now(),
            setbacks=0,
            notice="",
        )
        promote(build)
    return None


def _set_back(lease: Lease, error: IndexesError) -> float | None:
    """Wait after a temporary error; fail the build on any other."""
    build = lease.build
    try:
        # What a transaction took back is still on the instance.
        build.refresh_from_db()
        if error.retryable:
            lease.release(notice=f"{_sentence(error)} Trying again."[:300])
            log.warning("build set back", build=build.label, error=str(error))
            return min(2.0**build.setbacks / 2, LONGEST_WAIT)
        with transaction.atomic():
            lease.release(status=Status.FAILED, error=_sentence(error), finished_at=timezone.now())
            _enqueue("retire_build", build.pk)
        log.error("build failed", build=build.label, error=str(error))
    except (LeaseLost, IndexBuild.DoesNotExist):
        _tidy_after_loss(build)
    return None


def _tidy_after_loss(build: IndexBuild) -> None:
    """Remove what this worker wrote after its build was stopped or deleted."""
    status = IndexBuild.objects.filter(pk=build.pk).values_list("status", flat=True).first()
    if status is None:
        remove_orphan(build.index_name, build.key_prefix)
    elif status == Status.FAILED:
        remove(build.pk)


def _move(build_id: int, old: str, new: str) -> bool:
    return IndexBuild.objects.filter(pk=build_id, status=old).update(status=new) == 1


def _sentence(error: IndexesError) -> str:
    text = str(error) or error.reason
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _enqueue(task: str, *args: Any) -> None:
    """Send a task on commit, by name: the tasks import this module.

    A broker that is down does not undo the commit: ``resume_stalled`` sends it later.
    """
    message = current_app.signature(f"indexes.tasks.{task}", args=args)
    transaction.on_commit(message.delay, robust=True)
