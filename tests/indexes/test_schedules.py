"""Schedules of indexes follow the index into the scheduler's table, and start what is due."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from django_celery_beat.models import PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import DatabaseScheduler

from indexes import builds, cutover, refresh, schedules, tasks
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh
from recplatform.celery import app
from tests.indexes.admin_pages import FEW, built, ready

Make = Callable[..., IndexDefinition]
REBUILD, REFRESH = "products: full rebuild", "products: refresh"


def planned() -> dict[str, tuple[str, list[int]]]:
    """What the scheduler's table says of indexes: the crontab and the arguments by name."""
    rows = PeriodicTask.objects.filter(task__startswith="indexes.tasks.re", crontab__isnull=False)
    return {
        row.name: (
            f"{row.crontab.minute} {row.crontab.hour} {row.crontab.day_of_month} "
            f"{row.crontab.month_of_year} {row.crontab.day_of_week}",
            json.loads(row.args),
        )
        for row in rows
    }


@pytest.fixture
def definition(new_definition: Make) -> IndexDefinition:
    return new_definition(FEW, rebuild_cron="0 3 * * *", refresh_cron="*/15 * * * mon-fri")


def test_the_table_follows_the_index(definition):
    assert planned() == {
        REBUILD: ("0 3 * * *", [definition.pk]),
        REFRESH: ("*/15 * * * mon-fri", [definition.pk]),
    }
    assert str(PeriodicTask.objects.get(name=REBUILD).crontab.timezone) == "UTC"
    definition.rebuild_cron, definition.refresh_cron = "", "0 * * * *"
    definition.save()
    assert planned() == {REFRESH: ("0 * * * *", [definition.pk])}
    definition.delete()
    assert planned() == {}


def test_other_indexes_are_left_alone(definition, new_definition):
    new_definition(FEW, slug="shoes", refresh_cron="5 * * * *")
    definition.delete()
    assert set(planned()) == {"shoes: refresh"}


def test_a_move_of_the_live_build_does_not_touch_it(definition, django_assert_num_queries):
    with django_assert_num_queries(1):
        definition.save(update_fields=["live_build"])


def test_saving_the_same_keeps_what_the_scheduler_noted(definition):
    last = timezone.now() - timedelta(hours=5)
    PeriodicTask.objects.update(last_run_at=last)
    changed = PeriodicTask.objects.get(name=REBUILD).date_changed
    definition.save()
    assert PeriodicTask.objects.get(name=REBUILD).date_changed == changed
    assert PeriodicTask.objects.get(name=REBUILD).last_run_at == last


def test_a_changed_schedule_is_not_due_for_times_that_have_passed(definition):
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(days=3))
    # An hour ago: since the last run, it has passed.
    definition.rebuild_cron = f"0 {(timezone.now() - timedelta(hours=1)).hour} * * *"
    definition.save()
    row = PeriodicTask.objects.get(name=REBUILD)
    assert row.last_run_at is not None
    assert not row.schedule.is_due(row.last_run_at).is_due


def test_what_was_changed_past_the_index_is_put_back(definition, new_definition):
    PeriodicTask.objects.filter(name=REBUILD).update(enabled=False, args="[12345]")
    PeriodicTask.objects.filter(name=REFRESH).delete()
    gone = new_definition(FEW, slug="shoes", refresh_cron="5 * * * *")
    gone.fields.all().delete()
    IndexDefinition.objects.filter(pk=gone.pk)._raw_delete("default")
    code = PeriodicTask.objects.create(
        name="of-the-code",
        task="indexes.tasks.keep_schedules",
        interval=None,
        crontab=PeriodicTask.objects.get(name=REBUILD).crontab,
    )
    tasks.keep_schedules()
    assert set(planned()) == {REBUILD, REFRESH}
    assert PeriodicTask.objects.get(name=REBUILD).enabled
    assert PeriodicTask.objects.filter(pk=code.pk).exists()


def test_a_schedule_that_was_written_past_the_form_does_nothing_and_says_so(definition):
    IndexDefinition.objects.update(rebuild_cron="0 99 * * *")
    schedules.sync_all()
    assert set(planned()) == {REFRESH}
    definition.refresh_from_db()
    assert 'The hour "99" cannot be read' in definition.schedule_notice


@pytest.mark.parametrize("field", ["rebuild_cron", "refresh_cron"])
def test_the_form_names_the_part_that_is_wrong(definition, field):
    setattr(definition, field, "0 25 * * *")
    with pytest.raises(ValidationError) as caught:
        definition.full_clean()
    assert set(caught.value.message_dict) == {field}
    assert 'The hour "25"' in caught.value.message_dict[field][0]


@pytest.fixture
def scheduler() -> Iterator[Callable[..., DatabaseScheduler]]:
    """A factory of the scheduler that beat runs; it keeps in ``sent`` what it would have sent."""
    made: list[DatabaseScheduler] = []

    class Scheduler(DatabaseScheduler):  # type: ignore[misc]  # it carries no types
        def apply_async(self, entry: Any, **_: Any) -> None:
            self.sent.append((entry.task, list(entry.args)))

    def make() -> DatabaseScheduler:
        made.append(Scheduler(app, lazy=True))
        made[-1].sent = []
        return made[-1]

    yield make
    for one in made:
        # Else it writes to the database when the process ends.
        one._finalize.cancel()


@pytest.mark.django_db(transaction=True)
def test_the_scheduler_sees_a_change_and_sends_what_is_due(definition, scheduler):
    beat = scheduler()
    assert beat.schedule[REFRESH].schedule.minute == {0, 15, 30, 45}
    # It looks each few seconds; the first look only notes the time.
    assert beat.schedule_changed() is False
    definition.refresh_cron = "* * * * *"
    definition.save()
    assert len(beat.schedule[REFRESH].schedule.minute) == 60
    PeriodicTask.objects.filter(name=REFRESH).update(
        last_run_at=timezone.now() - timedelta(minutes=10)
    )
    PeriodicTasks.update_changed()
    for _ in range(3):
        beat.tick()
    assert beat.sent == [("indexes.tasks.refresh_index", [definition.pk])]
    definition.delete()
    assert REFRESH not in beat.schedule


@pytest.mark.django_db(transaction=True)
def test_entries_of_the_code_stay_beside_them(definition, scheduler):
    scheduler().setup_schedule()
    names = set(PeriodicTask.objects.values_list("name", flat=True))
    assert {REBUILD, REFRESH, "keep-schedules", "resume-stalled-refreshes"} <= names
    schedules.sync_all()
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == names


# --- what a due schedule starts -------------------------------------------


def test_a_due_rebuild_makes_a_build_that_says_why(definition, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        tasks.rebuild_index(definition.pk)
    build = definition.builds.get()
    assert build.status == IndexBuild.Status.LIVE
    assert build.transitions.first().why == "By its schedule."


def test_a_due_rebuild_is_left_out_while_a_build_runs(definition):
    builds.start(definition, enqueue=False)
    tasks.rebuild_index(definition.pk)
    assert definition.builds.count() == 1
    definition.refresh_from_db()
    assert definition.schedule_notice == ""


def test_a_due_rebuild_that_cannot_start_is_seen(definition):
    definition.source.text_template = "the same for all"
    definition.source.save()
    tasks.rebuild_index(definition.pk)
    definition.refresh_from_db()
    assert definition.schedule_notice.startswith("The full rebuild of ")
    assert "names no field" in definition.schedule_notice
    definition.source.text_template = "{title}"
    definition.source.save()
    tasks.rebuild_index(definition.pk)
    definition.refresh_from_db()
    assert definition.schedule_notice == ""


def test_builds_that_wait_for_a_person_do_not_pile_up(definition):
    definition.promotion = IndexDefinition.Promotion.MANUAL
    definition.save()
    cutover.promote(built(definition))
    someone = ready(definition, requested_by=None)
    canary = ready(definition)
    cutover.start_canary(canary, 10)
    tasks.rebuild_index(definition.pk)
    statuses = {build.number: build.status for build in definition.builds.all()}
    assert statuses == {1: "live", 2: "retired", 3: "ready", 4: "pending"}
    assert someone.number == 2


def test_a_waiting_build_that_is_moved_first_is_no_reason_for_a_notice(definition, monkeypatch):
    built(definition)
    waiting = ready(definition)
    retire = cutover.retire

    def too_late(build: IndexBuild, **why: Any) -> None:
        cutover.promote(IndexBuild.objects.get(pk=build.pk))
        retire(build, **why)

    monkeypatch.setattr(cutover, "retire", too_late)
    tasks.rebuild_index(definition.pk)
    definition.refresh_from_db()
    assert definition.live_build == waiting
    assert definition.builds.filter(status=IndexBuild.Status.PENDING).count() == 1
    assert definition.schedule_notice == ""


def test_a_build_that_a_person_started_waits_on(definition, admin_user):
    built(definition)
    asked = ready(definition, requested_by=admin_user)
    tasks.rebuild_index(definition.pk)
    asked.refresh_from_db()
    assert asked.status == IndexBuild.Status.READY


def test_a_due_refresh_refreshes(definition, django_capture_on_commit_callbacks):
    built(definition)
    with django_capture_on_commit_callbacks(execute=True):
        tasks.refresh_index(definition.pk)
    assert IndexRefresh.objects.get().status == IndexRefresh.Status.DONE


def test_a_due_refresh_is_left_out_while_one_runs(definition):
    built(definition)
    definition.refresh_from_db()
    refresh.start(definition, enqueue=False)
    tasks.refresh_index(definition.pk)
    assert IndexRefresh.objects.count() == 1
    definition.refresh_from_db()
    assert definition.schedule_notice == ""


def test_a_due_refresh_that_cannot_start_is_seen(definition):
    tasks.refresh_index(definition.pk)
    definition.refresh_from_db()
    assert "Nothing is live that could be refreshed" in definition.schedule_notice


def test_a_message_for_an_index_that_is_gone_does_nothing(db):
    tasks.rebuild_index(999_999)
    tasks.refresh_index(999_999)
    assert IndexBuild.objects.count() == IndexRefresh.objects.count() == 0


def test_the_next_run_is_told_where_there_is_one():
    now = timezone.now()
    due = schedules.next_run("0 3 * * *", now)
    assert due is not None
    assert (due.hour, due.minute) == (3, 0)
    assert schedules.next_run("", now) is None
    assert schedules.next_run("nonsense", now) is None
