"""What serves: promote, roll back, canary and retire. Each is a move of pointers in one transaction.

Every move locks the definition first, so that moves of one index happen one after
another and each decides on what the one before it left. A build that was live
stays ready in the engine for the index's ``keep_hours``, so that the way back is
as quick as the way there; so does one that waits for a person, once a newer one
waits. Whatever served stays in the engine a while longer than it is wanted
(``removal.GRACE``), for processes and requests that are still on it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from indexes import removal, valkey
from indexes.errors import BuildError, SearchIndexMissing
from indexes.models import GateResult, IndexBuild, IndexDefinition
from indexes.signals import live_build_changed
from indexes.transitions import move, note
from indexes.validation import surfaces_fit

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict
Outcome = GateResult.Outcome

OVERRIDE = "indexes.override_gates"

# What a build that never was live has for a person to look at, though its index keeps nothing.
LEAST_WAIT = timedelta(hours=1)


def promote(
    build: IndexBuild, *, by: User | None = None, why: str = "", override: bool = False
) -> None:
    """Make a ready build live; the one that was live stays ready, others of before are retired.

    A canary ends when its build goes live or is retired, and else goes on. Raises BuildError
    when the build is not ready, the engine has lost its items, or a gate failed and ``override``
    is not set, which takes a reason and a person with the permission. Whether published surfaces
    fit is looked at again.
    """
    _check_engine(build)
    surfaces_fit.look_again(build)
    with transaction.atomic():
        definition = _locked(build)
        verdict = _verdict(build, override, by, why)
        previous = definition.live_build
        now = timezone.now()
        changes = {"verdict": verdict, "live_at": now, "superseded_at": None}
        if not move(build, Status.LIVE, only_from=[Status.READY], by=by, why=why, **changes):
            raise BuildError(
                f"{build.label} is {build.get_status_display().lower()}: "
                "only a build that is ready can be made live."
            )
        if definition.canary_build_id == build.pk:
            _point_canary(definition, None, 0)
        reason = f"{build.label} is live."
        for other in given_up(definition, build):
            _retire(definition, other, by=by, why=reason)
        if previous is not None:
            # Kept for the way back.
            move(
                previous,
                Status.READY,
                only_from=[Status.LIVE],
                by=by,
                why=f"{build.label} took its place.",
                superseded_at=now,
                served_until=now,
            )
        definition.live_build = build
        definition.save(update_fields=["live_build"])
        _tell(definition, moved=True)


def roll_back(definition: IndexDefinition, *, by: User | None = None, why: str = "") -> IndexBuild:
    """Make the build live again that was live before, and return it. Raises BuildError."""
    # Chosen before any lock is waited for: of two people who roll back at once, the
    # second is refused rather than rolled forward again.
    build = way_back(definition)
    if build is None:
        raise BuildError(
            f'No earlier build of "{definition}" is kept: build again from the earlier settings.'
        )
    promote(build, by=by, why=why or "Rolled back.")
    return build


def way_back(definition: IndexDefinition) -> IndexBuild | None:
    """Return the build that a roll back would make live."""
    kept = definition.builds.filter(status=Status.READY).exclude(superseded_at=None)
    return kept.order_by("-superseded_at").first()


def start_canary(build: IndexBuild, percent: int, *, by: User | None = None, why: str = "") -> None:
    """Let a ready build answer ``percent`` (1 to 99) of its index's traffic, or change how much.

    Another canary of the index ends. Raises BuildError when nothing is live beside it, it is
    not ready, or a gate failed.
    """
    if not 1 <= percent <= 99:
        raise BuildError("A canary takes 1 to 99 % of the traffic: to give it all, make it live.")
    _check_engine(build)
    with transaction.atomic():
        definition = _locked(build)
        if build.status != Status.READY:
            raise BuildError(
                f"{build.label} is {build.get_status_display().lower()}: "
                "only a build that is ready can take part of the traffic."
            )
        if build.verdict == Verdict.BLOCKED:
            raise BuildError(
                f"{build.label} failed a gate, so it cannot take traffic: mend the cause and "
                "build again."
            )
        if definition.live_build_id is None:
            raise BuildError("No build is live that a canary could stand beside: make it live.")
        if (definition.canary_build_id, definition.canary_percent) == (build.pk, percent):
            return
        if definition.canary_build_id != build.pk:
            _end_canary(definition, by=by, why=f"{build.label} is the canary now.")
        _point_canary(definition, build, percent)
        note(build, by=by, why=_joined(f"Answers {percent} % of the traffic.", why))
        _tell(definition)


def stop_canary(definition: IndexDefinition, *, by: User | None = None, why: str = "") -> None:
    """Give the live build all the traffic again; nothing happens where there is no canary."""
    with transaction.atomic():
        definition = _lock(definition.pk, str(definition))
        if _end_canary(definition, by=by, why=_joined("Answers no traffic any more.", why)):
            _tell(definition)


def retire(build: IndexBuild, *, by: User | None = None, why: str = "") -> None:
    """Give up a ready build: it can no longer be made live, and leaves the engine.

    It leaves on commit, or when the last request that may be on it has ended. Raises BuildError.
    """
    with transaction.atomic():
        definition = _locked(build)
        was_canary = definition.canary_build_id == build.pk
        if not _retire(definition, build, by=by, why=why):
            raise BuildError(
                f"{build.label} is {build.get_status_display().lower()}, not ready, "
                "so it cannot be retired."
            )
        if was_canary:
            _tell(definition)


def retire_expired() -> list[str]:
    """Retire the builds whose time is over, for a roll back or for a person; return their labels."""
    retired = []
    for found in _expired(IndexBuild.objects.all()):
        with transaction.atomic():
            definitions = IndexDefinition.objects.select_for_update()
            definition = definitions.filter(pk=found.definition_id).first()
            if definition is None:
                continue
            # Looked at again under the lock: a roll back or a canary may have come first,
            # or another scheduler.
            for build in _expired(IndexBuild.objects.filter(pk=found.pk)):
                if _retire(definition, build, why=_why_expired(build)):
                    retired.append(build.label)
    return retired


def _expired(builds: QuerySet[IndexBuild]) -> list[IndexBuild]:
    """Return those of the builds that nothing and nobody keeps any more."""
    now = timezone.now()
    ready = builds.filter(status=Status.READY).select_related("definition").order_by("number")
    return [
        build
        for build in ready
        if (until := _kept_until(build)) is not None
        and until < now
        and build.definition.canary_build_id != build.pk
    ]


def _kept_until(build: IndexBuild) -> datetime | None:
    """Return when the time of a ready build is over; None where it has no end yet."""
    keep = timedelta(hours=build.definition.keep_hours)
    if build.superseded_at is not None:
        return build.superseded_at + keep
    # It never was live, and waits for a person until a newer one can be chosen instead.
    if build.finished_at is None or _successor(build) is None:
        return None
    return build.finished_at + max(keep, LEAST_WAIT)


def _successor(build: IndexBuild) -> IndexBuild | None:
    """Return the newest build that makes one which waits for a person needless."""
    newer = build.definition.builds.filter(
        number__gt=build.number, status__in=(Status.READY, Status.LIVE)
    )
    if build.verdict != Verdict.BLOCKED:
        # What failed a gate is no choice beside what did not.
        newer = newer.exclude(status=Status.READY, verdict=Verdict.BLOCKED)
    return newer.order_by("-number").first()


def _why_expired(build: IndexBuild) -> str:
    if build.superseded_at is not None:
        return f"Kept for {build.definition.keep_hours} hours."
    newer = _successor(build)
    return (
        f"Never made live, and {newer.label if newer else 'a newer build'} can be chosen instead."
    )


def given_up(definition: IndexDefinition, build: IndexBuild) -> list[IndexBuild]:
    """Return the ready builds that go when ``build`` goes live, the oldest first.

    Nobody needs them then: one way back is enough, and that is the build which is live now.
    """
    before = Q(number__lt=build.number) | Q(superseded_at__isnull=False)
    ready = definition.builds.filter(before, status=Status.READY)
    return list(ready.exclude(pk=build.pk).order_by("number"))


def _retire(
    definition: IndexDefinition, build: IndexBuild, *, by: User | None = None, why: str = ""
) -> bool:
    """Retire a ready build of the locked definition, its canary first; False when it is not ready."""
    if definition.canary_build_id == build.pk:
        _end_canary(definition, by=by, why=why)
    if not move(build, Status.RETIRED, only_from=[Status.READY], by=by, why=why):
        return False
    removal.send(build)
    return True


def _end_canary(definition: IndexDefinition, *, by: User | None, why: str) -> bool:
    canary = definition.canary_build
    if canary is None:
        return False
    _point_canary(definition, None, 0)
    IndexBuild.objects.filter(pk=canary.pk).update(served_until=timezone.now())
    note(canary, by=by, why=why)
    return True


def _point_canary(definition: IndexDefinition, build: IndexBuild | None, percent: int) -> None:
    definition.canary_build, definition.canary_percent = build, percent
    definition.save(update_fields=["canary_build", "canary_percent"])


def _tell(definition: IndexDefinition, *, moved: bool = False) -> None:
    live_build_changed.send(sender=IndexDefinition, definition=definition, moved=moved)


def _check_engine(build: IndexBuild) -> None:
    try:
        state = valkey.index_info(build.index_name)
    except SearchIndexMissing as error:
        raise BuildError(
            f"The search engine no longer has {build.index_name}. Start a new build."
        ) from error
    if build.indexed and not state.num_docs:
        raise BuildError(
            f"The search engine no longer has the items of {build.index_name}. Start a new build."
        )


def _locked(build: IndexBuild) -> IndexDefinition:
    """Lock the definition of a build and return it, with the build as it is by then."""
    definition = _lock(build.definition_id, build.label)
    try:
        build.refresh_from_db()
    except IndexBuild.DoesNotExist as error:
        raise BuildError(f"{build.label} was deleted.") from error
    return definition


def _lock(definition_id: int, name: str) -> IndexDefinition:
    try:
        return IndexDefinition.objects.select_for_update().get(pk=definition_id)
    except IndexDefinition.DoesNotExist as error:
        raise BuildError(f"The index of {name} was deleted.") from error


def _verdict(build: IndexBuild, override: bool, by: User | None, why: str) -> str:
    """Return the verdict that the build goes live with; raise BuildError where it may not."""
    if build.verdict != Verdict.BLOCKED:
        return build.verdict
    if not override:
        misfit = build.gates.filter(gate=surfaces_fit.NAME, outcome=Outcome.FAILED).first()
        raise BuildError(
            _joined(
                f"{build.label} failed a gate: its page says which.",
                misfit.message if misfit else "Mend the cause and build again.",
                "Or override with a reason, on its page.",
            )
        )
    if by is None or not by.has_perm(OVERRIDE):
        raise BuildError(
            f"{build.label} failed a gate. To override it takes a person with the permission "
            f'"Can make a build live that failed a gate" ({OVERRIDE}).'
        )
    if not why.strip():
        raise BuildError("Say why the failed gate is overridden.")
    return Verdict.OVERRIDDEN


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
