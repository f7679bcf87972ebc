"""Moves between states: compare-and-set, each with its line in the timeline."""

import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection

from indexes.models import BuildTransition, IndexBuild
from indexes.transitions import MAX_WHY, move, note

Status = IndexBuild.Status


@pytest.fixture
def build(definition) -> IndexBuild:
    """A build that is ready, beside the live one."""
    return IndexBuild.objects.create(
        definition=definition,
        number=2,
        status=Status.READY,
        spec=definition.live_build.spec,
        index_name="x_v2",
        key_prefix="x:v2:",
    )


def lines(build: IndexBuild) -> list[tuple[str, str, str | None, str]]:
    return [
        (line.from_status, line.to_status, line.by.username if line.by else None, line.why)
        for line in build.transitions.all()
    ]


def test_a_move_writes_its_changes_and_its_line(build):
    ada = User.objects.create_user("ada")
    assert move(build, Status.RETIRED, only_from=[Status.READY], by=ada, why="Old.", notice="gone")
    # Read again from the database.
    assert (build.status, build.notice) == (Status.RETIRED, "gone")
    assert lines(build) == [("ready", "retired", "ada", "Old.")]


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.READY}))
def test_a_move_from_another_state_changes_nothing(build, status):
    IndexBuild.objects.update(status=status)
    assert not move(build, Status.RETIRED, only_from=[Status.READY], notice="gone")
    stored = IndexBuild.objects.get(pk=build.pk)
    assert (stored.status, stored.notice) == (status, "")
    assert lines(build) == []


def test_a_deleted_build_does_not_move(build):
    IndexBuild.objects.filter(pk=build.pk).delete()
    assert not move(build, Status.RETIRED, only_from=[Status.READY])


def test_a_note_is_a_line_without_a_move(build):
    note(build, why="Answers 5 % of the traffic.")
    assert lines(build) == [("ready", "ready", None, "Answers 5 % of the traffic.")]


def test_a_long_reason_is_cut(build):
    note(build, why="x" * 2 * MAX_WHY)
    assert lines(build) == [("ready", "ready", None, "x" * MAX_WHY)]


@pytest.mark.django_db(transaction=True)
def test_of_many_who_move_at_once_one_does(build):
    moved: list[bool] = []
    start = threading.Barrier(4)

    def go() -> None:
        try:
            own = IndexBuild.objects.get(pk=build.pk)
            start.wait(10)
            moved.append(move(own, Status.RETIRED, only_from=[Status.READY]))
        finally:
            connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(moved) == [False, False, False, True]
    assert BuildTransition.objects.count() == 1
