"""What serves: promote, roll back, canary and retire. Each is a move of pointers in one transaction.

A build that was live stays ready in the engine for the index's ``keep_hours``, so
that the way back is as quick as the way there, and requests that began on it end well.
"""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from indexes import valkey
from indexes.errors import BuildError, SearchIndexMissing
from indexes.models import IndexBuild, IndexDefinition
from indexes.queue import enqueue
from indexes.signals import live_build_changed
from indexes.transitions import move

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict


def promote(
    build: IndexBuild, *, by: User | None = None, why: str = "", override: bool = False
) -> None:
    """Make a ready build live; the one that was live stays ready, older ones are retired.

    Raises BuildError when it is not ready, the engine has lost its index, or a gate failed
    and ``override`` is not set, which takes a reason.
    """
    _check_engine(build)
    with transaction.atomic():
        definition = _locked(build)
        build.refresh_from_db()
        verdict = _verdict(build, override, why)
        previous = definition.live_build
        now = timezone.now()
        changes = {"verdict": verdict, "live_at": now, "superseded_at": None}
        if not move(build, Status.LIVE, only_from=[Status.READY], by=by, why=why, **changes):
            raise BuildError(
                f"{build.label} is {build.get_status_display().lower()}: "
                "only a build that is ready can be made live."
            )
        for older in definition.builds.filter(status=Status.READY, number__lt=build.number):
            retire(older, by=by, why=f"{build.label} is live.")
        if previous is not None:
            # Kept for the way back.
            move(
                previous,
                Status.READY,
                only_from=[Status.LIVE],
                by=by,
                why=f"{build.label} took its place.",
                superseded_at=now,
            )
        # A retired build may have been the canary.
        definition.refresh_from_db()
        definition.live_build = build
        if definition.canary_build_id == build.pk:
            definition.canary_build, definition.canary_percent = None, 0
        definition.save(update_fields=["live_build", "canary_build", "canary_percent"])
        live_build_changed.send(sender=IndexDefinition, definition=definition)


def roll_back(definition: IndexDefinition, *, by: User | None = None, why: str = "") -> IndexBuild:
    """Make the build live again that was live before, and return it. Raises BuildError."""
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


def start_canary(build: IndexBuild, percent: int, *, by: User | None = None) -> None:
    """Let a ready build answer ``percent`` (1 to 99) of its index's traffic, or change how much.

    Raises BuildError when nothing is live beside it, it is not ready, or a gate failed.
    """
    if not 1 <= percent <= 99:
        raise BuildError("A canary takes 1 to 99 % of the traffic: to give it all, make it live.")
    _check_engine(build)
    with transaction.atomic():
        definition = _locked(build)
        build.refresh_from_db()
        if build.status != Status.READY:
            raise BuildError(f"{build.label} is not ready, so it cannot take traffic.")
        if build.verdict == Verdict.BLOCKED:
            raise BuildError(f"{build.label} failed a gate, so it cannot take traffic.")
        if definition.live_build_id is None:
            raise BuildError("No build is live that a canary could stand beside: make it live.")
        definition.canary_build, definition.canary_percent = build, percent
        definition.save(update_fields=["canary_build", "canary_percent"])
        live_build_changed.send(sender=IndexDefinition, definition=definition)


def stop_canary(definition: IndexDefinition, *, by: User | None = None) -> None:
    """Give the live build all the traffic again; nothing happens where there is no canary."""
    with transaction.atomic():
        definition = IndexDefinition.objects.select_for_update().get(pk=definition.pk)
        if definition.canary_build_id is None:
            return
        definition.canary_build, definition.canary_percent = None, 0
        definition.save(update_fields=["canary_build", "canary_percent"])
        live_build_changed.send(sender=IndexDefinition, definition=definition)


def retire(build: IndexBuild, *, by: User | None = None, why: str = "") -> None:
    """Give up a ready build: it can no longer be made live, and leaves the engine on commit."""
    with transaction.atomic():
        definition = _locked(build)
        if definition.canary_build_id == build.pk:
            stop_canary(definition, by=by)
        if not move(build, Status.RETIRED, only_from=[Status.READY], by=by, why=why):
            raise BuildError(f"{build.label} is not ready, so it cannot be retired.")
        enqueue("retire_build", build.pk)


def retire_expired() -> list[str]:
    """Retire the builds whose time for a roll back is over; return their labels."""
    now = timezone.now()
    retired = []
    kept = IndexBuild.objects.filter(status=Status.READY).exclude(superseded_at=None)
    for build in kept.select_related("definition"):
        hours = build.definition.keep_hours
        over = (
            build.superseded_at is not None and build.superseded_at + timedelta(hours=hours) < now
        )
        if over and build.definition.canary_build_id != build.pk:
            retire(build, why=f"Kept for {hours} hours.")
            retired.append(build.label)
    return retired


def _check_engine(build: IndexBuild) -> None:
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing as error:
        raise BuildError(
            f"The search engine no longer has {build.index_name}. Start a new build."
        ) from error


def _locked(build: IndexBuild) -> IndexDefinition:
    return IndexDefinition.objects.select_for_update().get(pk=build.definition_id)


def _verdict(build: IndexBuild, override: bool, why: str) -> str:
    if build.verdict != Verdict.BLOCKED:
        return build.verdict
    if not override:
        raise BuildError(
            f"{build.label} failed a gate: its page says which. Mend the cause and build again, "
            "or override with a reason."
        )
    if not why.strip():
        raise BuildError("Say why the failed gate is overridden.")
    return Verdict.OVERRIDDEN
