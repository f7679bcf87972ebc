"""The life of a build, on the real engine and the real endpoint."""

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import RestrictedError
from django.utils import timezone

from indexes import builds, cutover, limits, passages, removal, sagemaker, valkey
from indexes.commands import EngineFacts
from indexes.errors import BuildError, SearchIndexMissing, SearchRejected
from indexes.fleet.server import Memory, ServerFacts
from indexes.lease import Lease
from indexes.limits import Fleet
from indexes.models import IndexBuild, IndexDefinition
from indexes.signals import live_build_changed
from tests.fixtures_indexes import PRODUCTS

Status = IndexBuild.Status
FEW = PRODUCTS[:8]


def build(definition: IndexDefinition) -> IndexBuild:
    """Run a whole build of the definition here."""
    started = builds.start(definition, enqueue=False)
    builds.run_to_end(started.pk)
    started.refresh_from_db()
    return started


def keys_under(prefix: str) -> list[bytes]:
    return list(valkey.writer().scan_iter(match=f"{prefix}*", count=1000))


def live_build(definition: IndexDefinition) -> IndexBuild | None:
    definition.refresh_from_db()
    return definition.live_build


@pytest.fixture
def moves() -> Iterator[list[tuple[str, bool]]]:
    """Every move of a live pointer: the label it shows then, and whether a transaction is open."""
    seen: list[tuple[str, bool]] = []

    def receive(sender: type[IndexDefinition], definition: IndexDefinition, **_: object) -> None:
        stored = IndexDefinition.objects.select_related("live_build").get(pk=definition.pk)
        assert stored.live_build is not None
        seen.append((stored.live_build.label, connection.in_atomic_block))

    live_build_changed.connect(receive)
    yield seen
    live_build_changed.disconnect(receive)


def test_a_definition_points_at_the_built_index(definition, built_index):
    assert definition.live_build.to_live() == built_index.live
    assert valkey.index_info(built_index.live.index_name).num_docs == len(PRODUCTS)


def test_a_build_goes_live(new_definition, namespace, moves):
    definition = new_definition()
    done = build(definition)
    assert (done.status, done.error) == (Status.LIVE, "")
    assert live_build(definition) == done
    assert (done.label, done.index_name, done.key_prefix) == (
        "products-v1",
        f"{namespace}_products_v1",
        f"{namespace}:products:v1:",
    )
    assert done.cursor == done.total_rows == done.written == done.indexed == len(PRODUCTS)
    assert None not in (done.started_at, done.loading_at, done.finished_at)
    assert done.lease_until is None
    assert moves == [("products-v1", True)]


def test_a_build_keeps_the_spec_it_started_with(new_definition):
    definition = new_definition(FEW)
    started = builds.start(definition, enqueue=False)
    definition.fields.filter(name="brand").delete()
    builds.run_to_end(started.pk)
    live = live_build(definition)
    assert live is not None
    assert live.to_spec().field("brand") is not None


def test_a_message_that_comes_twice_finds_nothing_to_do(new_definition):
    done = build(new_definition(FEW))
    assert builds.run(done.pk) is None
    assert IndexBuild.objects.get(pk=done.pk).heartbeat_at == done.heartbeat_at


def test_a_build_that_another_worker_has_is_left_alone(new_definition):
    started = builds.start(new_definition(FEW), enqueue=False)
    lease = Lease.claim(started.pk)
    assert builds.run(started.pk) is None
    started.refresh_from_db()
    assert lease is not None
    assert (started.status, started.lease_until) == (Status.PENDING, lease.until)


@pytest.mark.django_db(transaction=True)
def test_two_workers_on_one_build_make_it_once(new_definition):
    started = builds.start(new_definition(), enqueue=False)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                if builds.run(started.pk, seconds=0) is None:
                    threading.Event().wait(0.05)
        except BaseException as error:  # noqa: BLE001  (shown in the main thread)
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert errors == []
    started.refresh_from_db()
    assert (started.status, started.error) == (Status.LIVE, "")
    assert (started.written, started.rejected) == (len(PRODUCTS), 0)


def test_leftovers_of_the_same_name_are_cleared_first(new_definition):
    started = builds.start(new_definition(FEW), enqueue=False)
    valkey.create_index(started.index_name, started.key_prefix, started.to_spec())
    valkey.write_hashes([(f"{started.key_prefix}old", {"title": "old"})])
    builds.run_to_end(started.pk)
    started.refresh_from_db()
    assert (started.status, started.indexed) == (Status.LIVE, len(FEW))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fields": []}, "has no fields"),
        ({"text_template": "the same for all"}, "names no field"),
    ],
)
def test_a_definition_that_cannot_be_built_says_why(new_definition, changes, said):
    with pytest.raises(BuildError, match=said):
        builds.start(new_definition(FEW, **changes))


def test_two_builds_of_an_index_run_side_by_side_and_no_third(new_definition):
    definition = new_definition(FEW)
    first, second = (builds.start(definition, enqueue=False) for _ in range(2))
    with pytest.raises(BuildError, match="products-v1 and products-v2 are still being built"):
        builds.start(definition)
    builds.run_to_end(second.pk)
    builds.run_to_end(first.pk)
    first.refresh_from_db()
    second.refresh_from_db()
    # The one that was started first does not take the place of the newer one.
    assert (first.status, second.status) == (Status.READY, Status.LIVE)
    assert valkey.index_info(first.index_name).num_docs == len(FEW)
    assert valkey.index_info(second.index_name).num_docs == len(FEW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": "/nowhere/c.jsonl"}, r'There is no file /nowhere/c.jsonl.*"path or s3:// URI"'),
        ({"rows": "s3://no-such-bucket-x/c.jsonl"}, r'does not exist.*"path or s3:// URI"'),
        ({"rows": "s3://bucket.jsonl"}, "write s3://bucket/key"),
        ({"rows": []}, r'has no rows.*"path or s3:// URI"'),
        ({"rows": FEW, "id_field": "sku"}, r'"sku" is missing.*row 1.*Correct "id field"'),
        ({"rows": FEW, "text_template": "{name}"}, 'Correct "text template"'),
        (
            {"rows": FEW, "fields": [{"name": "title", "type": "numeric"}]},
            r'title: "Hydrating face cream.*the field\'s type',
        ),
    ],
)
def test_a_source_that_cannot_work_fails_at_once(new_definition, changes, said):
    definition = new_definition(changes.pop("rows"), **changes)
    failed = build(definition)
    assert failed.status == Status.FAILED
    assert live_build(definition) is None
    assert failed.finished_at is not None
    with pytest.raises(BuildError, match=said):
        raise BuildError(failed.error)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dimension": 768}, "384 numbers, not 768. Set the dimension"),
        ({"endpoint_name": "no-such-endpoint"}, "Check its name and region"),
        ({"request_key": "wrong"}, 'Send {"inputs"'),
        ({"response_key": "vectors"}, 'has no "vectors"'),
    ],
)
def test_an_endpoint_that_cannot_work_fails_at_once(new_definition, endpoint_spec, changes, said):
    failed = build(new_definition(FEW, endpoint=endpoint_spec.model_copy(update=changes)))
    assert failed.status == Status.FAILED
    assert said in failed.error
    assert failed.setbacks == 1


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (0, ['has no TEXT fields: make "title" a tag or stored']),
        (10, ["has no TEXT fields", "holds 10 indexes and takes no more: retire a build"]),
    ],
)
def test_what_the_server_cannot_take_is_said_before_anything_is_made(
    new_definition, monkeypatch, held, said
):
    memory = Memory(used=0, limit=0, system=0, policy="", evicted=0)
    facts = ServerFacts(EngineFacts("valkey-search", ""), (8, 2, 0), "ElastiCache", 1, memory)
    monkeypatch.setattr(limits, "look", lambda: Fleet(facts, held))
    failed = build(new_definition(FEW))
    assert failed.status == Status.FAILED
    assert all(words in failed.error for words in said), failed.error
    assert (failed.setbacks, failed.probe) == (1, None)
    assert valkey.drop_index(failed.index_name) is False


def test_a_server_that_does_not_tell_what_it_is_is_built_on(new_definition, monkeypatch):
    def look() -> Fleet:
        raise SearchRejected("NOPERM this user has no permissions to run the 'info' command")

    monkeypatch.setattr(limits, "look", look)
    assert build(new_definition(FEW)).status == Status.LIVE


def test_a_failed_build_leaves_the_live_one_and_nothing_else(
    new_definition, catalog_file, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    first = build(definition)
    bad = [{**row, "id": None} for row in FEW[:4]]
    definition.source.uri = str(catalog_file([FEW[0], *bad, FEW[1]]))
    definition.source.save()
    with django_capture_on_commit_callbacks(execute=True):
        failed = build(definition)
    assert failed.status == Status.FAILED
    assert "4 of 6 rows were rejected (67 %); at most 50 % may be" in failed.error
    assert '"id" is missing' in failed.error
    assert live_build(definition) == first
    assert valkey.index_info(first.index_name).num_docs == len(FEW)
    failed.refresh_from_db()
    assert failed.removed_at is not None
    assert keys_under(failed.key_prefix) == []
    with pytest.raises(SearchIndexMissing):
        valkey.index_info(failed.index_name)


def test_half_of_the_rows_may_be_bad(new_definition):
    bad = [{**row, "price": "cheap"} for row in FEW]
    done = build(new_definition([*FEW, *bad]))
    assert (done.status, done.written, done.rejected) == (Status.LIVE, 8, 8)


def loaded(definition: IndexDefinition) -> IndexBuild:
    """Return a build whose items are written and not yet checked."""
    done = build(definition)
    definition.live_build = None
    definition.save()
    IndexBuild.objects.filter(pk=done.pk).update(status=Status.INDEXING, finished_at=None)
    return IndexBuild.objects.get(pk=done.pk)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            lambda client, prefix: client.delete(f"{prefix}sku-3"),
            "holds 7 items of 8 written. Items were lost",
        ),
        (
            lambda client, prefix: client.hset(f"{prefix}other", "title", "x"),
            "holds 9 items of 8 written. Others write keys",
        ),
        (
            # Written anew: valkey-search counts no failure for a value that was good before.
            lambda client, prefix: (
                client.delete(f"{prefix}sku-3"),
                client.hset(f"{prefix}sku-3", "price", "cheap"),
            ),
            r"could not index \d values \(hash_indexing_failures",
        ),
    ],
)
def test_the_engine_must_hold_what_was_written(new_definition, tamper, said):
    definition = new_definition(FEW)
    counted = loaded(definition)
    tamper(valkey.writer(), counted.key_prefix)
    builds.run(counted.pk, seconds=0.5)
    counted.refresh_from_db()
    assert counted.status == Status.FAILED
    assert live_build(definition) is None
    with pytest.raises(BuildError, match=said):
        raise BuildError(counted.error)


@pytest.fixture
def endpoint_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The endpoint's address answers no one, until the patch is undone."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with monkeypatch.context() as patch:
            address = f"http://127.0.0.1:{unused.getsockname()[1]}"
            patch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", address)
            patch.setattr(passages, "FIRST_PAUSE_S", 0)
            sagemaker.forget_clients()
            yield patch
        sagemaker.forget_clients()


def test_an_endpoint_that_is_down_for_a_while_delays_a_build(new_definition, endpoint_down):
    started = builds.start(new_definition(FEW), enqueue=False)
    waits = [builds.run(started.pk) for _ in range(4)]
    assert waits == [1, 2, 4, 8]
    started.refresh_from_db()
    assert started.status == Status.CREATING
    assert "cannot be reached" in started.notice
    assert started.lease_until is None

    endpoint_down.undo()
    sagemaker.forget_clients()
    builds.run_to_end(started.pk)
    started.refresh_from_db()
    assert (started.status, started.notice, started.setbacks) == (Status.LIVE, "", 0)


def test_an_endpoint_that_stays_down_fails_the_build(new_definition, endpoint_down):
    started = builds.start(new_definition(FEW), enqueue=False)
    IndexBuild.objects.filter(pk=started.pk).update(setbacks=builds.MAX_SETBACKS - 1)
    assert builds.run(started.pk) == builds.LONGEST_WAIT
    assert builds.run(started.pk) is None
    started.refresh_from_db()
    assert started.status == Status.FAILED
    assert "No progress in 12 turns in a row after row 0." in started.error
    assert "cannot be reached" in started.error


def test_a_worker_that_dies_each_time_fails_the_build(new_definition):
    started = builds.start(new_definition(FEW), enqueue=False)
    for _ in range(builds.MAX_SETBACKS):
        assert Lease.claim(started.pk) is not None
        past = timezone.now() - timedelta(seconds=1)
        IndexBuild.objects.filter(pk=started.pk).update(lease_until=past)
    assert builds.run(started.pk) is None
    started.refresh_from_db()
    assert started.status == Status.FAILED
    assert "The log of the worker says why." in started.error


def test_promoting_an_older_build_rolls_back(new_definition, moves):
    definition = new_definition(FEW)
    first, second = build(definition), build(definition)
    first.refresh_from_db()
    assert (first.status, second.status) == (Status.READY, Status.LIVE)
    cutover.promote(first)
    second.refresh_from_db()
    assert (first.status, second.status) == (Status.LIVE, Status.READY)
    assert live_build(definition) == first
    assert [label for label, _ in moves] == ["products-v1", "products-v2", "products-v1"]


def test_the_build_before_the_last_leaves_the_engine(
    new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    first, second = build(definition), build(definition)
    with django_capture_on_commit_callbacks(execute=True):
        third = build(definition)
    first.refresh_from_db()
    second.refresh_from_db()
    assert [b.status for b in (first, second, third)] == [Status.RETIRED, Status.READY, Status.LIVE]
    # It was live a moment ago: requests may still be on it.
    assert first.removed_at is None
    long_ago = timezone.now() - removal.GRACE
    IndexBuild.objects.filter(pk=first.pk).update(served_until=long_ago)
    removal.remove(first.pk)
    first.refresh_from_db()
    assert first.removed_at is not None
    assert keys_under(first.key_prefix) == []
    assert valkey.drop_index(first.index_name) is False
    for kept in (second, third):
        assert valkey.index_info(kept.index_name).num_docs == len(FEW)
    with pytest.raises(BuildError, match="no longer has"):
        cutover.promote(first)


@pytest.mark.parametrize("status", [Status.LOADING, Status.FAILED, Status.RETIRED])
def test_only_a_ready_build_can_be_promoted(new_definition, status):
    definition = new_definition(FEW)
    first, second = build(definition), build(definition)
    IndexBuild.objects.filter(pk=first.pk).update(status=status)
    with pytest.raises(BuildError, match="only a build that is ready"):
        cutover.promote(first)
    assert live_build(definition) == second


def test_a_build_that_the_engine_lost_cannot_be_promoted(new_definition):
    definition = new_definition(FEW)
    first, second = build(definition), build(definition)
    valkey.drop_index(first.index_name)
    with pytest.raises(BuildError, match=r"no longer has .* Start a new build"):
        cutover.promote(first)
    assert live_build(definition) == second


def test_a_receiver_that_fails_keeps_the_old_pointer(new_definition):
    definition = new_definition(FEW)
    first, second = build(definition), build(definition)

    def refuse(**_: object) -> None:
        raise RuntimeError("no")

    live_build_changed.connect(refuse)
    try:
        with pytest.raises(RuntimeError):
            cutover.promote(first)
    finally:
        live_build_changed.disconnect(refuse)
    assert live_build(definition) == second
    assert IndexBuild.objects.get(pk=second.pk).status == Status.LIVE


def test_what_is_live_cannot_be_removed_or_stopped(new_definition):
    definition = new_definition(FEW)
    live = build(definition)
    removal.remove(live.pk)
    assert valkey.index_info(live.index_name).num_docs == len(FEW)
    with pytest.raises(BuildError, match="not running"):
        builds.cancel(live, why="Stopped.")
    with pytest.raises(BuildError, match="not ready"):
        cutover.retire(live)
    with pytest.raises(RestrictedError):
        live.delete()


def test_a_stopped_build_leaves_nothing_behind(new_definition, django_capture_on_commit_callbacks):
    started = builds.start(new_definition(FEW), enqueue=False)
    lease = Lease.claim(started.pk)
    assert lease is not None
    with django_capture_on_commit_callbacks(execute=True):
        builds.cancel(started, why="Stopped by ada.")
    started.refresh_from_db()
    assert (started.status, started.error) == (Status.CANCELLED, "")
    assert started.removed_at is not None
    assert builds.run(started.pk) is None


def test_a_worker_whose_build_is_stopped_clears_what_it_wrote_since(new_definition, monkeypatch):
    started = builds.start(new_definition(FEW), enqueue=False)
    create_index = valkey.create_index

    def stopped_meanwhile(*args: object) -> bool:
        builds.cancel(started, why="Stopped by ada.")
        removal.remove(started.pk)
        return create_index(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(valkey, "create_index", stopped_meanwhile)
    assert builds.run(started.pk) is None
    assert valkey.drop_index(started.index_name) is False
    assert keys_under(started.key_prefix) == []


def test_a_worker_whose_build_is_deleted_clears_what_it_wrote_since(new_definition, monkeypatch):
    definition = new_definition(FEW)
    started = builds.start(definition, enqueue=False)
    create_index = valkey.create_index

    def deleted_meanwhile(*args: object) -> bool:
        definition.delete()
        return create_index(*args)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(valkey, "create_index", deleted_meanwhile)
    assert builds.run(started.pk) is None
    assert valkey.drop_index(started.index_name) is False


def test_deleting_a_definition_clears_the_engine(
    new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    live = build(definition)
    with django_capture_on_commit_callbacks(execute=True):
        definition.delete()
    assert valkey.drop_index(live.index_name) is False
    assert keys_under(live.key_prefix) == []


def test_a_late_removal_spares_a_new_build_of_the_same_name(new_definition):
    live = build(new_definition(FEW))
    removal.remove_orphan(live.index_name, live.key_prefix)
    assert valkey.index_info(live.index_name).num_docs == len(FEW)


@pytest.mark.parametrize(
    ("lease", "silence", "resumed"),
    [
        (timedelta(seconds=-1), timedelta(seconds=1), True),
        (timedelta(seconds=30), timedelta(seconds=30), False),
        (None, timedelta(seconds=100), True),
        (None, timedelta(seconds=10), False),
    ],
)
def test_builds_that_nobody_works_on_are_resumed(new_definition, lease, silence, resumed):
    started = builds.start(new_definition(FEW), enqueue=False)
    now = timezone.now()
    IndexBuild.objects.filter(pk=started.pk).update(
        status=Status.LOADING,
        lease_until=None if lease is None else now + lease,
        heartbeat_at=now - silence,
    )
    assert builds.resume_stalled() == ([started.label] if resumed else [])
    if lease is None:
        assert builds.resume_stalled() == []
