"""Findings about what the engine holds: indexes, keys and counts against the builds in the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone

from indexes import valkey
from indexes.commands import IndexState
from indexes.errors import SearchIndexMissing
from indexes.fleet import inventory
from indexes.fleet.findings import Finding, Kind, Severity
from indexes.fleet.inventory import Keys
from indexes.models import IndexBuild, IndexRefresh, ItemChange
from indexes.progress import SILENCE
from indexes.removal import GRACE

Status = IndexBuild.Status
# Of a build in one of these states the index is there; while it is created it need not be.
WITH_INDEX = (Status.LOADING, Status.INDEXING, Status.VALIDATING, Status.READY, Status.LIVE)
# Counts are compared only when nothing has changed for so long.
CALM = timedelta(seconds=60)


@dataclass
class Holdings:
    """What the engine held when it was looked at, and the builds that the database had after that.

    In this order, because a build has its row before its index: one that starts meanwhile
    is in the database when its index is in the engine.
    """

    at: datetime
    indexes: dict[str, str]
    states: dict[str, IndexState]
    keys: Keys
    builds: list[IndexBuild] = field(default_factory=list)


def look(seconds: float) -> Holdings:
    """Look at the engine, counting keys for about ``seconds``, then at the database. Raises SearchError."""
    at = timezone.now()
    indexes = inventory.indexes()
    states = {}
    for name in indexes:
        state = _state(name)
        if state is not None:
            states[name] = state
    keys = inventory.keys(seconds)
    builds = IndexBuild.objects.select_related("definition").order_by("definition_id", "number")
    return Holdings(at, indexes, states, keys, list(builds))


def findings(held: Holdings) -> Iterator[Finding]:
    """Yield what the engine holds that nobody owns, and what builds miss."""
    owned_names = {build.index_name for build in held.builds}
    owned_prefixes = {build.key_prefix for build in held.builds}
    yield from _orphans(held, owned_names, owned_prefixes)
    for build in held.builds:
        if build.status in IndexBuild.OVER:
            yield from _leftovers(held, build)
        elif build.status in WITH_INDEX:
            yield from _of_build(held, build)


def _orphans(held: Holdings, names: set[str], prefixes: set[str]) -> Iterator[Finding]:
    orphans = {name: prefix for name, prefix in held.indexes.items() if name not in names}
    for name, prefix in orphans.items():
        items = held.keys.counts[prefix]
        yield Finding(
            kind=Kind.ORPHAN_INDEX,
            target=name,
            severity=Severity.WARNING,
            what=f"No build owns index {name} and its {_number(items, held.keys)} items.",
            why="It takes memory and one of the server's indexes, and nothing searches it.",
            repair=f"Drop {name} and remove the keys that start with {prefix}, in small steps.",
        )
    known = prefixes | set(orphans.values())
    for prefix, items in sorted(held.keys.counts.items()):
        if prefix not in known:
            yield Finding(
                kind=Kind.ORPHAN_KEYS,
                target=prefix,
                severity=Severity.WARNING,
                what=f"No build owns the {_number(items, held.keys)} keys that start with {prefix}",
                why="They take memory, and nothing searches them.",
                repair=f"Remove the keys that start with {prefix}, in small steps.",
            )


def _leftovers(held: Holdings, build: IndexBuild) -> Iterator[Finding]:
    there = build.index_name in held.indexes
    items = held.keys.counts[build.key_prefix]
    if build.removed_at is None:
        # Served a moment ago, or its removal goes on right now.
        if _since(build.served_until, GRACE, held.at) or _since(
            build.heartbeat_at, SILENCE, held.at
        ):
            return
    elif build.removed_at > held.at or not (there or items):
        return
    yield Finding(
        kind=Kind.LEFTOVER,
        target=str(build.pk),
        severity=Severity.WARNING,
        what=f"{build.label} is {build.get_status_display().lower()}, and its removal has not finished: "
        f"{'its index and ' if there else ''}{_number(items, held.keys)} items are left.",
        why="It takes memory and can never serve again.",
        repair=f"Remove what is left of {build.label}.",
        build_id=build.pk,
    )


def _of_build(held: Holdings, build: IndexBuild) -> Iterator[Finding]:
    state = held.states.get(build.index_name)
    if state is None:
        yield from _missing(held, build)
    elif build.status in (Status.READY, Status.LIVE) and state.ready and is_calm(build):
        yield from _drift(held, build, state)


def _missing(held: Holdings, build: IndexBuild) -> Iterator[Finding]:
    # It may have started, or ended, since the engine was looked at.
    if _state(build.index_name) is not None:
        return
    build.refresh_from_db(fields=["status", "written"])
    if build.status not in WITH_INDEX:
        return
    items = held.keys.counts[build.key_prefix]
    live = build.status == Status.LIVE
    if live:
        why = "Every search on it fails, so surfaces give their fallback."
    elif build.status == Status.READY:
        why = "It cannot be made live or rolled back to."
    else:
        why = "What it loads is not indexed; it will fail."
    yield Finding(
        kind=Kind.MISSING_INDEX,
        target=str(build.pk),
        severity=Severity.ERROR,
        what=f"{build.label} is {build.get_status_display().lower()}, and the engine has no {build.index_name}. "
        f"{_number(items, held.keys)} of {build.written:,} items are there.",
        why=f"{why} A restart without persistence loses indexes, and so does FLUSHALL.",
        repair="Create the index again over the items that are there. Where some are gone, start a "
        "new build as well.",
        build_id=build.pk,
    )


def _drift(held: Holdings, build: IndexBuild, state: IndexState) -> Iterator[Finding]:
    keys = held.keys.counts[build.key_prefix] if held.keys.complete else None
    there = state.num_docs if keys is None else keys
    if there < build.written:
        yield Finding(
            kind=Kind.ITEMS_LOST,
            target=str(build.pk),
            severity=Severity.ERROR,
            what=f"{build.label} has lost {build.written - there:,} of {build.written:,} items.",
            why="They are not found. A full server that evicts keys loses items without an error, "
            "and so does a failover to a replica that was behind.",
            repair="Start a new build from the source.",
            build_id=build.pk,
        )
    elif (keys is not None and state.num_docs < keys) or state.failures:
        # valkey-search counts an item that it could index in part, RediSearch leaves it out.
        found = (
            f": it finds {state.num_docs:,} of {keys:,} items"
            if keys and keys > state.num_docs
            else ""
        )
        yield Finding(
            kind=Kind.NOT_INDEXED,
            target=str(build.pk),
            severity=Severity.ERROR,
            what=f"The engine could not index {state.failures:,} values of {build.label}{found}.",
            why="Items with such a value are stored, and searches do not find them, or not by that field.",
            repair="Start a new build from the source.",
            build_id=build.pk,
        )
    elif state.num_docs != build.written:
        yield Finding(
            kind=Kind.COUNTER,
            target=str(build.pk),
            severity=Severity.WARNING,
            what=f"The engine holds {state.num_docs:,} items of {build.label}, and its counter says "
            f"{build.written:,}.",
            why="Pages show a wrong number, and the next build is compared with it.",
            repair=f"Set the counter to {state.num_docs:,}.",
            build_id=build.pk,
        )


def is_calm(build: IndexBuild) -> bool:
    """Tell whether no item of the build is being changed, so that its counts can be compared."""
    if IndexRefresh.objects.filter(build=build, status__in=IndexRefresh.RUNNING).exists():
        return False
    recent = ItemChange.objects.filter(
        definition=build.definition_id, changed_at__gte=timezone.now() - CALM
    )
    return not recent.exists()


def _state(name: str) -> IndexState | None:
    try:
        return valkey.index_info(name)
    except SearchIndexMissing:
        return None


def _since(moment: datetime | None, span: timedelta, now: datetime) -> bool:
    return moment is not None and moment + span > now


def _number(items: int, keys: Keys) -> str:
    return f"{items:,}" if keys.complete else f"at least {items:,}"
