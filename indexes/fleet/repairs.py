"""What mends a finding. Each repair looks again first: what was found may be gone, or have an owner by now."""

from __future__ import annotations

import math
import time

import structlog
from django.contrib.auth.models import User
from django.db import transaction

from indexes import builds, cutover, removal, valkey
from indexes.errors import BuildError, SearchIndexMissing
from indexes.fleet import inventory
from indexes.fleet.findings import Kind
from indexes.fleet.holdings import WITH_INDEX, is_calm
from indexes.models import IndexBuild
from indexes.queue import enqueue
from indexes.transitions import note

log = structlog.get_logger(__name__)
Status = IndexBuild.Status

REPAIRABLE = (
    Kind.ORPHAN_INDEX,
    Kind.ORPHAN_KEYS,
    Kind.LEFTOVER,
    Kind.MISSING_INDEX,
    Kind.ITEMS_LOST,
    Kind.NOT_INDEXED,
    Kind.COUNTER,
)
# For what the engine takes to go through the keys of a large build again.
BACKFILL_S = 3600.0
POLL_S = 0.5


def repair(kind: Kind, target: str, *, by: User | None = None, wait: bool = False) -> str:
    """Mend one finding and return what was done, in words.

    With ``wait`` it is done here to its end, else workers go on with it. Raises BuildError
    where it is not there any more, or cannot be mended, and SearchError.
    """
    match kind:
        case Kind.ORPHAN_INDEX:
            prefix = inventory.own_prefix(target)
            if prefix is None:
                raise BuildError(f"The engine has no index {target} of this installation any more.")
            done = _remove_unowned(target, prefix, wait)
        case Kind.ORPHAN_KEYS:
            name = inventory.name_of(target)
            if name is None:
                raise BuildError(f"{target} is not a key prefix of this installation's builds.")
            done = _remove_unowned(name, target, wait)
        case Kind.LEFTOVER:
            done = _remove_again(_build(target), wait)
        case Kind.MISSING_INDEX:
            done = _create_again(_build(target), by, wait)
        case Kind.ITEMS_LOST | Kind.NOT_INDEXED:
            done = _build_anew(_build(target), by, "The doctor found items missing.")
        case Kind.COUNTER:
            done = _count_again(_build(target))
        case _:
            raise BuildError("A person has to mend this.")
    log.info("repaired", kind=str(kind), target=target, by=str(by or ""), done=done)
    return done


def _build(target: str, *, held: bool = False) -> IndexBuild:
    """Return the build of a finding; ``held`` keeps it as it is until the transaction ends."""
    rows = IndexBuild.objects.select_for_update(no_key=True) if held else IndexBuild.objects.all()
    build = rows.filter(pk=int(target)).first() if target.isdecimal() else None
    if build is None:
        raise BuildError("The build is deleted.")
    return build


def _remove_unowned(name: str, prefix: str, wait: bool) -> str:
    owners = IndexBuild.objects.filter(index_name=name)
    if owner := owners.first():
        raise BuildError(f"{owner.label} owns {name} by now: it is left alone.")
    if not wait:
        enqueue("remove_orphan", name, prefix)
        return f"A worker removes {name} and the keys that start with {prefix}"
    removal.remove_orphan(name, prefix, seconds=math.inf)
    return f"Removed {name} and the keys that start with {prefix}"


def _remove_again(build: IndexBuild, wait: bool) -> str:
    found = IndexBuild.objects.filter(pk=build.pk, status__in=IndexBuild.OVER)
    if not found.update(removed_at=None):
        raise BuildError(
            f"{build.label} is {build.get_status_display().lower()}: it is left alone."
        )
    if not wait:
        enqueue("retire_build", build.pk)
        return f"A worker removes what is left of {build.label}."
    if not removal.remove(build.pk, seconds=math.inf):
        return f"{build.label} served a moment ago: the scheduler removes it in a minute."
    return f"Removed what was left of {build.label}."


def _create_again(build: IndexBuild, by: User | None, wait: bool) -> str:
    _check_needed(build)
    if _has_index(build):
        raise BuildError(f"The engine has {build.index_name} by now.")
    items = inventory.count(build.key_prefix, enough=max(build.written, 1))
    if not items and build.status != Status.LIVE:
        return _give_up(build, by)
    with transaction.atomic():
        # Or it could end and leave the engine between the check and the command.
        build = _build(str(build.pk), held=True)
        _check_needed(build)
        valkey.create_index(build.index_name, build.key_prefix, build.to_spec())
        why = f"Its index was missing and is created again, over {items:,} items."
        note(build, by=by, why=why)
    done = [f"Created {build.index_name} again."]
    if wait and items:
        done.append(_await(build))
    elif items:
        done.append(f"The engine goes through {items:,} items; searches find those that are done.")
    if items < build.written and not build.is_running:
        gone = build.written - items
        done.append(_build_anew(build, by, f"{gone:,} of its items are gone."))
    return " ".join(done)


def _check_needed(build: IndexBuild) -> None:
    if build.status not in WITH_INDEX:
        raise BuildError(
            f"{build.label} is {build.get_status_display().lower()}: it needs no index now."
        )


def _give_up(build: IndexBuild, by: User | None) -> str:
    """End a build of which nothing is left."""
    why = "Its index and items are gone from the engine."
    if build.status == Status.READY:
        cutover.retire(build, by=by, why=why)
        return f"{build.label} is retired, as nothing is left of it."
    builds.cancel(build, by=by, why=why)
    return f"{build.label} is cancelled, as nothing is left of it. " + _build_anew(build, by, why)


def _build_anew(build: IndexBuild, by: User | None, why: str) -> str:
    newer = build.definition.builds.filter(
        status__in=IndexBuild.RUNNING, number__gt=build.number
    ).first()
    if newer is not None:
        return f"{newer.label} is being built already."
    anew = builds.start(build.definition, requested_by=by, why=f"{build.label}: {why}")
    return f"Started {anew.label}."


def _count_again(build: IndexBuild) -> str:
    if not is_calm(build):
        raise BuildError(f"Items of {build.label} are being changed: its counter moves by itself.")
    state = valkey.index_info(build.index_name)
    if not state.ready:
        raise BuildError(f"The engine still indexes {build.label}: look again when it has ended.")
    known = IndexBuild.objects.filter(
        pk=build.pk, status=build.status, written=build.written, indexed=build.indexed
    )
    if not known.update(written=state.num_docs, indexed=state.num_docs):
        raise BuildError(f"{build.label} changed meanwhile: look again.")
    return f"Set the counter of {build.label} to {state.num_docs:,}."


def _has_index(build: IndexBuild) -> bool:
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing:
        return False
    return True


def _await(build: IndexBuild) -> str:
    until = time.monotonic() + BACKFILL_S
    while not (state := valkey.index_info(build.index_name)).ready:
        if time.monotonic() > until:
            return f"The engine has gone through {state.percent:.0%} of the items and goes on."
        time.sleep(POLL_S)
    return f"It holds {state.num_docs:,} items."
