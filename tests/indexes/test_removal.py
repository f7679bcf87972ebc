"""Taking builds out of the engine in steps: what a turn leaves, and who goes on with it."""

import itertools
from collections.abc import Callable

import pytest
from django.utils import timezone

from indexes import builds, removal, valkey, valkey_client
from indexes.models import IndexBuild, IndexDefinition
from tests.fixtures_indexes import PRODUCTS

Status = IndexBuild.Status
ITEMS = 250


@pytest.fixture
def over(new_definition):
    """A build that was cancelled while it had items in the engine."""
    build = builds.start(new_definition(PRODUCTS[:1]), enqueue=False)
    valkey.create_index(build.index_name, build.key_prefix, build.to_spec())
    valkey.write_hashes((f"{build.key_prefix}{n}", {"title": "x"}) for n in range(ITEMS))
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.CANCELLED)
    build.refresh_from_db()
    return build


def left(build: IndexBuild) -> int:
    keys = [f"{build.key_prefix}{n}" for n in range(ITEMS)]
    return sum(held == [b"x"] for held in valkey.hash_fields(keys, ["title"], fresh=True))


def test_a_removal_drops_the_index_first_and_goes_on_in_further_messages(
    over, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks() as messages:
        assert removal.remove(over.pk, seconds=0) is False
    assert valkey.drop_index(over.index_name) is False
    # A node of a cluster may hold less than a step takes.
    assert ITEMS - valkey.REMOVE_KEYS <= left(over) < ITEMS
    over.refresh_from_db()
    assert over.removed_at is None
    assert (timezone.now() - over.heartbeat_at).total_seconds() < 60
    [message] = messages
    message()
    over.refresh_from_db()
    assert left(over) == 0
    assert over.removed_at is not None


def test_nothing_of_a_build_that_runs_is_removed(new_definition):
    build = builds.start(new_definition(PRODUCTS[:1]), enqueue=False)
    valkey.write_hashes([(f"{build.key_prefix}1", {"title": "x"})])
    assert removal.remove(build.pk) is False
    assert valkey.hash_fields([f"{build.key_prefix}1"], ["title"], fresh=True) == [[b"x"]]


def test_a_build_whose_row_is_deleted_is_nothing_to_do(over):
    pk = over.pk
    IndexBuild.objects.filter(pk=pk).update(removed_at=timezone.now())
    over.delete()
    assert removal.remove(pk) is True


@pytest.mark.parametrize(
    ("role", "wait"),
    [
        ({"live_build": True}, removal.GRACE.total_seconds()),
        ({"canary_build": True, "canary_percent": 10}, removal.GRACE.total_seconds()),
        ({}, 0),
    ],
)
def test_what_serves_stays_a_while_when_it_is_deleted_with_its_index(over, role, wait, monkeypatch):
    definition = over.definition
    status = Status.LIVE if "live_build" in role else Status.READY
    IndexBuild.objects.filter(pk=over.pk).update(status=status)
    pointers = {name: over if value is True else value for name, value in role.items()}
    IndexDefinition.objects.filter(pk=definition.pk).update(**pointers)
    sent: list[tuple[str, str, float]] = []

    def enqueue(task: str, name: str, *_: object, delay_s: float) -> None:
        sent.append((task, name, delay_s))

    monkeypatch.setattr(removal, "enqueue", enqueue)
    IndexDefinition.objects.get(pk=definition.pk).delete()
    assert sent == [("remove_orphan", over.index_name, wait)]


def test_the_items_of_a_deleted_build_go_in_turns_too(over, django_capture_on_commit_callbacks):
    IndexBuild.objects.filter(pk=over.pk).update(removed_at=timezone.now())
    over.definition.delete()
    with django_capture_on_commit_callbacks() as messages:
        assert removal.remove_orphan(over.index_name, over.key_prefix, seconds=0) is False
    # A node of a cluster may hold less than a step takes.
    assert ITEMS - valkey.REMOVE_KEYS <= left(over) < ITEMS
    [message] = messages
    message()
    assert left(over) == 0


def test_a_new_build_of_the_same_name_keeps_what_it_writes_meanwhile(
    over, monkeypatch, new_definition, django_capture_on_commit_callbacks
):
    """A definition of the same slug is made and built while the old keys are removed."""
    IndexBuild.objects.filter(pk=over.pk).update(removed_at=timezone.now())
    over.definition.delete()
    delete_prefix = valkey.delete_prefix
    asked = itertools.count(1)

    def delete_meanwhile(prefix: str, *, seconds: float, still: Callable[[], bool]) -> bool:
        def built_by_the_second_step() -> bool:
            if next(asked) == 2:
                IndexBuild.objects.create(
                    definition=new_definition(PRODUCTS[:1], slug="other"),
                    number=1,
                    spec=over.spec,
                    index_name=over.index_name,
                    key_prefix=over.key_prefix,
                )
            return still()

        return delete_prefix(prefix, seconds=seconds, still=built_by_the_second_step)

    monkeypatch.setattr(valkey, "delete_prefix", delete_meanwhile)
    with django_capture_on_commit_callbacks() as messages:
        assert removal.remove_orphan(over.index_name, over.key_prefix) is True
    assert messages == []
    # One step was made; a node of a cluster may hold fewer keys than fill it.
    assert ITEMS - valkey.REMOVE_KEYS <= left(over) < ITEMS


def test_each_step_is_followed_by_a_rest(namespace):
    valkey.write_hashes((f"{namespace}:{n}", {"a": "b"}) for n in range(1050))
    rests: list[float] = []

    def rest(took: float) -> bool:
        rests.append(took)
        return True

    assert valkey_client.write(lambda servers: servers.remove(f"{namespace}:*", 100, rest)) is True
    # A cluster has one short step for each of its nodes.
    assert 11 <= len(rests) <= 20
    assert min(rests) > 0
