"""Schedules of indexes: full rebuilds and refreshes, as rows of the scheduler's table.

The index says what is wanted; the rows follow, and whatever is changed in them alone is
put back. The scheduler sees a change of its table within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Final, TypeVar

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask

from indexes import builds, cron, cutover
from indexes import refresh as refreshes
from indexes.cron import in_words as in_words
from indexes.errors import BuildError
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh

Started = TypeVar("Started", IndexBuild, IndexRefresh)

log = structlog.get_logger(__name__)

# The field of an index that holds a schedule, its task, and what people call it.
_KINDS: Final = (
    ("rebuild_cron", "indexes.tasks.rebuild_index", "full rebuild"),
    ("refresh_cron", "indexes.tasks.refresh_index", "refresh"),
)
_TASKS: Final = tuple(task for _, task, _ in _KINDS)
_FIELDS: Final = frozenset(field for field, _, _ in _KINDS)


def sync(definition: IndexDefinition) -> None:
    """Make the scheduler's rows of an index what its schedules say."""
    for field, task, kind in _KINDS:
        name = f"{definition.slug}: {kind}"
        text = getattr(definition, field)
        try:
            schedule = cron.parse(text) if text else None
        except ValueError as error:
            # Written past the form, which does not let it through.
            schedule = None
            log.warning("schedule unreadable", index=definition.slug, kind=kind, error=str(error))
            _note(definition.pk, f'The schedule of the {kind}, "{text}", does nothing: {error}')
        if schedule is None:
            _delete(PeriodicTask.objects.filter(name=name, task__in=_TASKS))
        else:
            _put(name, task, definition.pk, schedule)


def sync_all() -> None:
    """Bring the rows of all indexes in step, and delete those of indexes that are gone."""
    definitions = list(IndexDefinition.objects.all())
    for definition in definitions:
        with transaction.atomic():
            sync(definition)
    wanted = [_args(definition.pk) for definition in definitions]
    _delete(PeriodicTask.objects.filter(task__in=_TASKS).exclude(args__in=wanted))


def next_run(text: str, after: datetime | None = None) -> datetime | None:
    """Return when a schedule is due next; None for none, or one that cannot be read."""
    try:
        return cron.next_after(text, after or timezone.now()) if text else None
    except ValueError:
        return None


def rebuild(definition_id: int) -> IndexBuild | None:
    """Start the full build that is due, unless one is running; None where none was started.

    A build of the schedule that still waits for a person gives way to the new one, or they
    would pile up in the engine.
    """

    def begin(definition: IndexDefinition) -> IndexBuild | None:
        if definition.builds.filter(status__in=IndexBuild.RUNNING).exists():
            log.info("rebuild left out", index=definition.slug, reason="a build is running")
            return None
        build = builds.start(definition, why="By its schedule.")
        waiting = definition.builds.filter(
            status=IndexBuild.Status.READY, live_at=None, requested_by=None
        )
        # Its vectors are taken over from one of them, where the live build has another model.
        needed = (definition.canary_build_id or 0, build.vectors_from_id or 0)
        for older in waiting.exclude(pk__in=needed):
            try:
                cutover.retire(older, why=f"Its schedule started {build.label}.")
            except BuildError as error:
                # Somebody moved it first: the new build has started all the same.
                log.info("waiting build left", build=older.label, reason=str(error))
        return build

    return _begin(definition_id, "full rebuild", begin)


def refresh(definition_id: int) -> IndexRefresh | None:
    """Start the refresh that is due, unless one is running; None where none was started."""

    def begin(definition: IndexDefinition) -> IndexRefresh | None:
        running = IndexRefresh.objects.filter(
            build__definition=definition, status__in=IndexRefresh.RUNNING
        )
        if running.exists():
            log.info("refresh left out", index=definition.slug, reason="a refresh is running")
            return None
        return refreshes.start(definition)

    return _begin(definition_id, "refresh", begin)


def on_saved(
    instance: IndexDefinition,
    raw: bool = False,
    update_fields: Collection[str] | None = None,
    **_: Any,
) -> None:
    """Follow a definition that was saved, in the transaction of its save."""
    # The moves of live pointers are frequent, and have nothing to do with it.
    if not raw and (update_fields is None or _FIELDS & set(update_fields)):
        sync(instance)


def on_deleted(instance: IndexDefinition, **_: Any) -> None:
    """Delete the schedules of an index that is deleted."""
    _delete(PeriodicTask.objects.filter(task__in=_TASKS, args=_args(instance.pk)))


def _begin(
    definition_id: int, kind: str, begin: Callable[[IndexDefinition], Started | None]
) -> Started | None:
    definition = IndexDefinition.objects.filter(pk=definition_id).first()
    if definition is None:
        return None
    try:
        started = begin(definition)
    except BuildError as error:
        log.error("schedule started nothing", index=definition.slug, kind=kind, error=str(error))
        moment = timezone.localtime().strftime("%d %b %H:%M")
        _note(definition_id, f"The {kind} of {moment} could not start. {error}")
        return None
    if started is not None:
        _note(definition_id, "")
    return started


def _note(definition_id: int, text: str) -> None:
    rows = IndexDefinition.objects.filter(~Q(schedule_notice=text[:500]), pk=definition_id)
    rows.update(schedule_notice=text[:500])


def _put(name: str, task: str, definition_id: int, schedule: Any) -> None:
    row = CrontabSchedule.from_schedule(schedule)
    if row.pk is None:
        row.save()
    wanted = {
        "task": task,
        "args": _args(definition_id),
        "crontab": row,
        "interval": None,
        "solar": None,
        "clocked": None,
        "enabled": True,
        "one_off": False,
    }
    found = PeriodicTask.objects.filter(name=name).first()
    if found is None:
        PeriodicTask.objects.create(name=name, **wanted)
    elif any(getattr(found, field) != value for field, value in wanted.items()):
        for field, value in wanted.items():
            setattr(found, field, value)
        # Counted from now, or a time that passed since the last run would be due at once.
        found.last_run_at = timezone.now()
        found.save()


def _delete(rows: Any) -> None:
    for row in rows:
        # One by one: that is what tells the scheduler.
        row.delete()


def _args(definition_id: int) -> str:
    return json.dumps([definition_id])
