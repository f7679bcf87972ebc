"""The Celery entry points, and that they are enqueued when the transaction commits."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from indexes import builds, tasks, valkey
from indexes.models import IndexBuild
from tests.fixtures_indexes import PRODUCTS

Status = IndexBuild.Status
FEW = PRODUCTS[:8]


def test_a_started_build_is_run_by_the_queue_after_the_commit(
    new_definition, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        started = builds.start(new_definition(FEW))
        started.refresh_from_db()
        assert started.status == Status.PENDING
    started.refresh_from_db()
    assert (started.status, started.written) == (Status.LIVE, len(FEW))


def test_a_start_that_is_rolled_back_enqueues_nothing(
    new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    with django_capture_on_commit_callbacks() as callbacks, transaction.atomic():
        builds.start(definition)
        transaction.set_rollback(True)
    assert callbacks == []


def test_a_turn_hands_over_to_the_next_message(new_definition, monkeypatch):
    started = builds.start(new_definition(FEW), enqueue=False)
    turns: list[int] = []
    run = builds.run

    def counted(build_id: int) -> float | None:
        turns.append(build_id)
        # The first turn ends before anything is done, as one does that has to wait.
        return 5 if len(turns) == 1 else run(build_id)

    monkeypatch.setattr(builds, "run", counted)
    tasks.run_build(started.pk)
    started.refresh_from_db()
    assert turns == [started.pk, started.pk]
    assert started.status == Status.LIVE


def test_an_abandoned_build_is_finished(new_definition, django_capture_on_commit_callbacks):
    started = builds.start(new_definition(FEW), enqueue=False)
    past = timezone.now() - timedelta(minutes=5)
    IndexBuild.objects.filter(pk=started.pk).update(lease_until=past, heartbeat_at=past)
    with django_capture_on_commit_callbacks(execute=True):
        assert tasks.resume_stalled_builds() == [started.label]
    started.refresh_from_db()
    assert started.status == Status.LIVE


def test_a_removal_that_was_cut_off_is_finished(new_definition, django_capture_on_commit_callbacks):
    started = builds.start(new_definition(FEW), enqueue=False)
    valkey.create_index(started.index_name, started.key_prefix, started.to_spec())
    past = timezone.now() - timedelta(minutes=5)
    IndexBuild.objects.filter(pk=started.pk).update(status=Status.FAILED, heartbeat_at=past)
    with django_capture_on_commit_callbacks(execute=True):
        tasks.resume_stalled_builds()
    started.refresh_from_db()
    assert started.removed_at is not None
    assert valkey.drop_index(started.index_name) is False
