"""The life of a build: pending → creating → loading → indexing → validating → ready, or failed, or cancelled.

Every move is compare-and-set on the status it starts from. Work is done in
turns under a lease (``indexes.lease``), so that a message delivered twice or a
killed worker neither doubles nor loses anything. What is live stays live until
``indexes.cutover`` moves the pointer.
"""

from __future__ import annotations

import time

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from indexes import batch_transform, catalog, cutover, loading, validation, valkey
from indexes.catching_up import catch_up
from indexes.errors import BuildError, IndexesError
from indexes.lease import Lease, LeaseLost
from indexes.models import GateResult, IndexBuild, IndexDefinition
from indexes.naming import index_name, key_prefix
from indexes.preconditions import check_indexed, check_loaded, check_server, check_source, problems
from indexes.progress import SILENCE
from indexes.queue import enqueue as send
from indexes.removal import remove, remove_orphan
from indexes.schema import IndexSpec
from indexes.transitions import move, record
from indexes.validation import surfaces_fit

log = structlog.get_logger(__name__)
Status = IndexBuild.Status
Verdict = IndexBuild.Verdict

# Temporary failures in a row, with waits that double up to a minute: seven
# minutes in all, in which an endpoint that is being updated comes back.
MAX_SETBACKS = 12
LONGEST_WAIT = 60.0
POLL = 0.25


def start(
    definition: IndexDefinition,
    *,
    requested_by: User | None = None,
    why: str = "",
    enqueue: bool = True,
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
        spec = definition.to_spec()
        build = IndexBuild.objects.create(
            definition=definition,
            number=last + 1,
            spec=spec.model_dump(mode="json"),
            fingerprint=spec.fingerprint,
            vectors_from=_source_of_vectors(definition, spec),
            index_name=index_name(*names),
            key_prefix=key_prefix(*names),
            requested_by=requested_by,
            heartbeat_at=timezone.now(),
        )
        record(build, Status.PENDING, by=requested_by, why=why)
        if enqueue:
            send("run_build", build.pk)
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


def cancel(build: IndexBuild, *, by: User | None = None, why: str = "") -> None:
    """End a running build from outside: its worker notices at its next write. Raises BuildError."""
    with transaction.atomic():
        over = {"finished_at": timezone.now(), "lease_until": None}
        if not move(build, Status.CANCELLED, only_from=IndexBuild.RUNNING, by=by, why=why, **over):
            raise BuildError(f"{build.label} is not running any more.")
        send("retire_build", build.pk)


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
            send("run_build", build.pk)
            resumed.append(build.label)
    left = IndexBuild.objects.filter(
        status__in=IndexBuild.OVER, removed_at=None, heartbeat_at__lt=now - SILENCE
    )
    for build in left:
        send("retire_build", build.pk)
    return resumed


def _source_of_vectors(definition: IndexDefinition, spec: IndexSpec) -> IndexBuild | None:
    """Return the build whose vectors may be taken over: the live one, else the newest kept one."""
    kept = definition.builds.filter(status__in=(Status.LIVE, Status.READY))
    # Vectors of two models in one build would be taken for those of one in the next.
    mixed = GateResult.objects.filter(gate="probe", outcome=GateResult.Outcome.FAILED)
    kept = kept.exclude(pk__in=mixed.values("build"))
    alike = [
        build
        for build in kept.order_by("-number")
        if build.to_spec().endpoint.fingerprint == spec.endpoint.fingerprint
    ]
    return next((build for build in alike if build.status == Status.LIVE), next(iter(alike), None))


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
        wait = _load(lease, seconds)
        if wait is not None:
            return wait
    if build.status == Status.INDEXING:
        wait = _await_engine(lease, seconds)
        if wait is not None:
            return wait
    return _validate(lease, seconds)


def _create(lease: Lease) -> None:
    build = lease.build
    spec = build.to_spec()
    # Left over from a worker that died here, or from a definition of the same slug.
    valkey.drop_index(build.index_name)
    check_server(spec)
    probe = check_source(build)
    lease.save()
    while not valkey.delete_prefix(build.key_prefix, seconds=1):
        lease.save()
    valkey.create_index(build.index_name, build.key_prefix, spec)
    lease.save(
        status=Status.LOADING,
        probe=probe,
        catalog_version=catalog.version(spec.catalog),
        catalog_time=catalog.modified_at(spec.catalog),
        total_rows=catalog.count_rows(spec.catalog),
        loading_at=timezone.now(),
        setbacks=0,
        notice="",
    )


def _load(lease: Lease, seconds: float) -> float | None:
    """Load until the source is at its end; else return the seconds to wait before the next turn."""
    build = lease.build
    if build.to_spec().embed_with == "batch":
        wait = batch_transform.prepare(lease, seconds=seconds)
        if wait is not None:
            lease.release(setbacks=0)
            return wait
    if not loading.load_slice(lease, seconds=seconds):
        lease.release(setbacks=0, notice="")
        return 0
    check_loaded(build)
    lease.save(status=Status.INDEXING, setbacks=0, notice="")
    batch_transform.finish(lease)
    return None


def _await_engine(lease: Lease, seconds: float) -> float | None:
    """Wait until the engine has indexed all; else return the seconds to wait before the next turn."""
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
    lease.save(status=Status.VALIDATING, indexed=state.num_docs, setbacks=0, notice="")
    return None


def _validate(lease: Lease, seconds: float) -> float | None:
    """Run the gates; then make the build live, or leave it ready for a person to decide."""
    build = lease.build
    if build.caught_up_at is None:
        # Only now that the engine was seen to hold exactly what was loaded.
        catch_up(lease, setbacks=0, notice="")
    if not validation.run(lease, seconds=seconds):
        lease.release(setbacks=0)
        return 0
    with transaction.atomic():
        waits = _waits_for_person(build)
        lease.release(
            status=Status.READY,
            why=waits or "Passed every gate.",
            notice=waits,
            finished_at=timezone.now(),
            setbacks=0,
        )
        if not waits:
            cutover.promote(build, why="Passed every gate.")
    return None


def _waits_for_person(build: IndexBuild) -> str:
    """Return why a finished build is not made live at once; empty where it is."""
    # Locked before the build's row is, as by every move: what is decided here still holds
    # when the build is promoted, and two builds that finish at once come one after another.
    definition = IndexDefinition.objects.select_for_update().get(pk=build.definition_id)
    live = definition.live_build
    surfaces_fit.look_again(build)
    if build.verdict == Verdict.BLOCKED:
        return "It failed a gate: mend the cause and build again, or override with a reason."
    if definition.promotion == IndexDefinition.Promotion.MANUAL:
        return "The index waits for a person to make its builds live."
    if live is not None and live.fingerprint and live.fingerprint != build.fingerprint:
        return (
            f"It has another embedding model or metric than {live.label}: look at its gates, "
            "try it as a canary, then make it live."
        )
    if live is not None and live.number > build.number:
        return f"{live.label}, which was started later, is live already."
    return ""


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
        sentence = _sentence(error)
        with transaction.atomic():
            lease.release(
                status=Status.FAILED, why=sentence, error=sentence, finished_at=timezone.now()
            )
            send("retire_build", build.pk)
        log.error("build failed", build=build.label, error=str(error))
    except (LeaseLost, IndexBuild.DoesNotExist):
        _tidy_after_loss(build)
    return None


def _tidy_after_loss(build: IndexBuild) -> None:
    """Remove what this worker wrote after its build was cancelled or deleted."""
    status = IndexBuild.objects.filter(pk=build.pk).values_list("status", flat=True).first()
    if status is None:
        remove_orphan(build.index_name, build.key_prefix, build.batch_job)
    elif status in IndexBuild.OVER:
        remove(build.pk)


def _sentence(error: IndexesError) -> str:
    text = str(error) or error.reason
    return text if text.endswith((".", "!", "?")) else f"{text}."
