"""A refresh writes what differs and nothing else, on the real engine."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import catalog, index_lock, refresh, valkey
from indexes.errors import BuildError
from indexes.lease import LeaseLost, RefreshLease
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh, RefreshShard
from indexes.refresh import reading, removing
from tests.indexes.admin_pages import ready
from tests.indexes.item_calls import Model, build_live, counted, held, row, vector_held
from tests.indexes.refresh.sources import (
    counters,
    ids,
    refreshed,
    rewrite,
    run,
)

Status = IndexRefresh.Status
Define = Callable[..., IndexDefinition]
MANY = 300


class Killed(BaseException):
    """The worker process ends at this line."""


def rows(count: int) -> list[dict[str, Any]]:
    return [row(number) for number in range(1, count + 1)]


@pytest.fixture
def live(define: Define, model: Model) -> IndexDefinition:
    """An index of ten items; the texts they were made from are not counted."""
    definition = define(rows(10))
    build_live(definition)
    model.forget()
    definition.refresh_from_db()
    return definition


def live_build(definition: IndexDefinition) -> IndexBuild:
    assert definition.live_build is not None
    return definition.live_build


def after_expiry(started: IndexRefresh) -> None:
    past = timezone.now() - timedelta(seconds=1)
    IndexRefresh.objects.filter(pk=started.pk).update(lease_until=past)


def test_one_percent_of_changed_texts_embeds_and_writes_one_percent(define, model):
    content = rows(MANY)
    definition = define(content)
    build_live(definition)
    model.forget()
    definition.refresh_from_db()
    build = live_build(definition)
    valkey.write_hashes((build.key_prefix + item["id"], {"brand": "untouched"}) for item in content)
    changed = [content[number] for number in (5, 100, 299)]
    for item in changed:
        item["title"] = f"New {item['title']}"
    done = refreshed(definition, content)
    assert sorted(model.texts) == sorted(item["title"] for item in changed)
    assert counters(done) == {"unchanged": MANY - 3, "written": 3, "embedded": 3}
    build = live_build(definition)
    brands = {item["id"]: held(build, item["id"], "brand") for item in content}
    written = {item["id"] for item in changed}
    assert {key for key, brand in brands.items() if brand == ["Acme"]} == written
    assert {
        key for key, brand in brands.items() if brand == ["untouched"]
    } == brands.keys() - written


def test_price_and_order_change_without_a_vector(live, model):
    content = [row(number, price=number * 10) for number in range(10, 0, -1)]
    before = vector_held(live_build(live), "i4")
    done = refreshed(live, content)
    assert model.texts == []
    assert counters(done) == {"written": 10}
    assert held(live_build(live), "i4", "price") == ["40"]
    assert (vector_held(live_build(live), "i4") == before).all()


def test_the_order_of_rows_alone_writes_nothing(live, model):
    assert counters(refreshed(live, reversed(rows(10)))) == {"unchanged": 10}


def test_new_rows_become_items_and_missing_ones_go(live, model):
    content = [item for item in rows(12) if item["id"] not in ("i3", "i8")]
    done = refreshed(live, content)
    assert counters(done) == {"unchanged": 8, "written": 2, "embedded": 2, "removed": 2}
    assert ids(live) == {item["id"] for item in content}
    assert counted(live_build(live)) == (10, 10)
    assert live_build(live).indexed == 10
    assert RefreshShard.objects.count() == 0


def test_a_field_that_a_row_has_no_more_leaves_its_item(live, model):
    content = rows(10)
    del content[2]["brand"]
    assert counters(refreshed(live, content)) == {"unchanged": 9, "written": 1}
    build = live_build(live)
    assert held(build, "i3", "brand", "title") == [None, "Thing 3"]
    found = valkey.writer().execute_command(
        "FT.SEARCH", build.index_name, "@brand:{Acme}", "LIMIT", 0, 0, "DIALECT", 2
    )
    assert found[0] == 9
    # It is what the row says now.
    assert counters(refreshed(live, [*content[1:], content[0]])) == {"unchanged": 10}


def test_an_unchanged_source_is_not_read(live, model):
    done = run(live)
    assert (done.status, done.cursor, counters(done)) == (Status.DONE, 0, {})
    assert "has not changed" in done.notice
    refreshed(live, rows(11))
    assert "has not changed" in run(live).notice


def test_a_source_that_failed_half_way_is_read_again(live, model, monkeypatch):
    rewrite(live, rows(12))
    monkeypatch.setattr(removing, "MOST_PERCENT", -1)
    assert run(live).status == Status.FAILED
    monkeypatch.undo()
    assert counters(run(live)) == {"unchanged": 12}


def test_given_vectors_are_taken_as_they_are(define, model):
    def content(*first: float) -> list[dict[str, Any]]:
        vectors = [[1.0, 0, 0, 0, 0, 0, 0, number] for number in range(4)]
        vectors[0] = [*first, 0, 0, 0, 0, 0, 0]
        return [row(n, embedding=vector) for n, vector in enumerate(vectors, 1)]

    definition = define(content(1, 0), vector_field="embedding")
    build_live(definition)
    model.forget()
    done = refreshed(definition, content(0, 1))
    assert counters(done) == {"unchanged": 3, "written": 1}
    assert list(vector_held(live_build(definition), "i1")[:2]) == [0, 1]
    # Without its own, the text is embedded, though the text is the same.
    bare = content(0, 1)
    del bare[0]["embedding"]
    assert counters(refreshed(definition, bare)) == {"unchanged": 3, "written": 1, "embedded": 1}
    assert model.texts == ["Thing 1"]


def test_rows_that_are_no_items_are_counted_by_reason(live, model):
    content = rows(10)
    content[4]["price"] = "cheap"
    content[7] = row(2, price=99)
    done = refreshed(live, [*content, row(8)])
    assert counters(done) == {"unchanged": 9, "rejected": 2, "removed": 1}
    assert done.rejected_reasons == {"bad_numeric": 1, "duplicate_id": 1}
    assert ids(live) == {f"i{number}" for number in range(1, 11)} - {"i5"}
    assert held(live_build(live), "i2", "price") == ["2"]


def test_duplicates_are_found_across_shards(live, model):
    rewrite(live, [*rows(10), row(3, price=99), row(11)])
    lease = begun(live)
    assert reading.read_slice(lease, seconds=60, shard_rows=4)
    assert lease.refresh.rejected_reasons == {"duplicate_id": 1}
    assert held(live_build(live), "i3", "price") == ["3"]


def test_a_text_that_is_refused_leaves_its_item_as_it_is(live, model):
    content = rows(10)
    content[0]["title"] = "poison"
    model.refused = {"poison"}
    done = refreshed(live, content)
    assert counters(done) == {"unchanged": 9, "rejected": 1}
    assert done.rejected_reasons == {"text_refused": 1}
    assert held(live_build(live), "i1", "title") == ["Thing 1"]


def test_an_endpoint_that_refuses_every_text_ends_it(live, model):
    content = [row(number, title=f"poison {number}") for number in range(1, 11)]
    model.refused = {item["title"] for item in content}
    rewrite(live, content)
    failed = run(live)
    assert failed.status == Status.FAILED
    assert "refuses every text" in failed.error
    assert len(ids(live)) == 10


def test_an_endpoint_that_is_down_is_waited_for(live, model, monkeypatch):
    monkeypatch.setattr("indexes.passages.ATTEMPTS", 1)
    rewrite(live, [*rows(10), row(11)])
    model.down = True
    started = refresh.start(live, enqueue=False)
    assert [refresh.run(started.pk) for _ in range(3)] == [0.5, 1.0, 2.0]
    started.refresh_from_db()
    assert (started.status, started.lease_until) == (Status.READING, None)
    assert started.notice.endswith("Trying again.")
    model.down = False
    refresh.run_to_end(started.pk)
    started.refresh_from_db()
    assert counters(started) == {"unchanged": 10, "written": 1, "embedded": 1}


# --- what it must not do -------------------------------------------------


def test_too_many_missing_items_end_it_before_the_first_is_removed(live, model):
    rewrite(live, [row(number, price=5) for number in range(1, 7)])
    failed = run(live)
    assert (failed.status, failed.removed) == (Status.FAILED, 0)
    assert "no longer has 4 of the 10 items (40 %)" in failed.error
    assert "run a full build" in failed.error
    assert len(ids(live)) == 10
    # Three of ten are the most.
    assert counters(refreshed(live, rows(7))) == {"unchanged": 2, "written": 5, "removed": 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "The source has no rows"),
        (
            [*rows(4), *[{"title": "no id"}] * 6],
            r"6 of 10 rows were rejected \(60 %\).*missing id \(6 rows\).*Nothing was removed",
        ),
    ],
)
def test_a_source_that_is_broken_removes_nothing(live, model, content, said):
    rewrite(live, content)
    failed = run(live)
    assert failed.status == Status.FAILED
    with pytest.raises(BuildError, match=said):
        raise BuildError(failed.error)
    assert len(ids(live)) == 10


def test_a_source_that_changes_on_the_way_ends_it(live, model):
    rewrite(live, rows(9))
    lease = begun(live)
    rewrite(live, rows(8))
    with pytest.raises(BuildError, match="changed while it was read"):
        reading.read_slice(lease, seconds=60)
    # After its last row, too.
    rewrite(live, rows(9))
    lease.release(catalog_version=catalog.version(live_build(live).to_spec().catalog))
    monitored = IndexRefresh.objects.get(pk=lease.refresh.pk)

    def changed(*args: Any, **options: Any) -> bool:
        done = reading.read_slice(*args, **options)
        rewrite(live, rows(7))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexes.refresh.turns.read_slice", changed)
        refresh.run_to_end(monitored.pk)
    monitored.refresh_from_db()
    assert monitored.status == Status.FAILED
    assert "changed while it was read" in monitored.error
    assert len(ids(live)) == 10


def test_a_build_that_is_not_live_any_more_is_left_alone(live, model):
    rewrite(live, rows(12))
    started = refresh.start(live, enqueue=False)
    IndexBuild.objects.filter(pk=live_build(live).pk).update(status=IndexBuild.Status.READY)
    refresh.run_to_end(started.pk)
    started.refresh_from_db()
    assert started.status == Status.FAILED
    assert "products-v1 is not live any more" in started.error
    assert len(ids(live)) == 10


def test_an_index_that_the_engine_lost_ends_it(live, model):
    rewrite(live, rows(12))
    valkey.drop_index(live_build(live).index_name)
    assert "The search engine has lost" in run(live).error


def test_start_says_every_reason_against_it(define, model):
    definition = define()
    with pytest.raises(BuildError, match="Nothing is live"):
        refresh.start(definition)
    build_live(definition)
    definition.refresh_from_db()
    refresh.start(definition, enqueue=False)
    definition.fields.filter(name="brand").delete()
    definition.source.uri = "/elsewhere.jsonl"
    definition.source.save()
    definition.endpoint.model = "another"
    definition.endpoint.save()
    assert refresh.problems(definition) == [
        "products-v1 is being refreshed already.",
        "The fields changed since products-v1 was built: that takes a full build.",
        "The catalog source changed since products-v1 was built: that takes a full build.",
        "The embedding endpoint changed since products-v1 was built: that takes a full build.",
    ]


def test_what_a_refresh_does_not_depend_on_may_have_changed(live, model):
    live.ef_runtime, live.endpoint.timeout_ms = 17, 99
    live.save()
    live.endpoint.save()
    assert refresh.problems(live) == []


# --- killed workers, messages that come twice ----------------------------


def begun(definition: IndexDefinition) -> RefreshLease:
    """Start a refresh up to its first row, and return the lease of its worker."""
    started = refresh.start(definition, enqueue=False)
    spec = live_build(definition).to_spec().catalog
    IndexRefresh.objects.filter(pk=started.pk).update(
        status=Status.READING,
        catalog_version=catalog.version(spec),
        catalog_time=catalog.modified_at(spec),
    )
    lease = RefreshLease.claim(started.pk)
    assert lease is not None
    return lease


def test_a_message_that_comes_twice_finds_nothing_to_do(live, model):
    rewrite(live, rows(11))
    lease = begun(live)
    assert refresh.run(lease.refresh.pk) is None
    lease.release()
    refresh.run_to_end(lease.refresh.pk)
    ended = IndexRefresh.objects.get(pk=lease.refresh.pk)
    assert refresh.run(ended.pk) is None
    assert IndexRefresh.objects.get(pk=ended.pk).heartbeat_at == ended.heartbeat_at


@pytest.mark.parametrize("at", ["confirm_writes", "add_items"])
def test_a_worker_killed_after_it_wrote_a_shard_costs_and_counts_nothing(
    live, model, monkeypatch, at
):
    content = [row(number, title=f"New {number}") for number in range(1, 13)]
    content[1]["title"] = "Thing 2"
    rewrite(live, content)
    started = refresh.start(live, enqueue=False)

    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    monkeypatch.setattr(reading, at, killed)
    with pytest.raises(Killed):
        refresh.run(started.pk)
    monkeypatch.undo()
    started.refresh_from_db()
    assert (started.cursor, counters(started)) == (0, {})
    assert held(live_build(live), "i12", "title") == ["New 12"]
    after_expiry(started)
    refresh.run_to_end(started.pk)
    started.refresh_from_db()
    assert counters(started) == {"unchanged": 1, "written": 11, "embedded": 11}
    # What was embedded by the one that was killed is not embedded again.
    assert len(model.texts) == 11
    assert counted(live_build(live)) == (12, 12)


def test_a_worker_killed_while_it_removes_is_taken_over(live, model, monkeypatch):
    monkeypatch.setattr(removing, "AT_ONCE", 1)
    rewrite(live, rows(7))
    started = refresh.start(live, enqueue=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        refresh.run(started.pk)
    monkeypatch.undo()
    started.refresh_from_db()
    assert (started.status, started.removed) == (Status.REMOVING, 1)
    after_expiry(started)
    refresh.run_to_end(started.pk)
    started.refresh_from_db()
    assert (started.status, started.removed) == (Status.DONE, 3)
    assert ids(live) == {f"i{number}" for number in range(1, 8)}
    assert counted(live_build(live)) == (7, 7)


def test_a_worker_that_was_replaced_writes_nothing_any_more(live, model, monkeypatch):
    content = rows(11)
    rewrite(live, content)
    slow = begun(live)
    hold = index_lock.hold

    def paused(definition_id: int) -> Any:
        monkeypatch.undo()
        after_expiry(slow.refresh)
        refresh.run_to_end(slow.refresh.pk)
        refreshed(live, [*content[:10], row(11, price=77)])
        return hold(definition_id)

    monkeypatch.setattr(index_lock, "hold", paused)
    with pytest.raises(LeaseLost):
        reading.read_slice(slow, seconds=60)
    assert held(live_build(live), "i11", "price") == ["77"]


def test_an_abandoned_refresh_is_taken_up(live, model, django_capture_on_commit_callbacks):
    rewrite(live, rows(11))
    started = refresh.start(live, enqueue=False)
    past = timezone.now() - timedelta(minutes=5)
    IndexRefresh.objects.filter(pk=started.pk).update(heartbeat_at=past)
    with django_capture_on_commit_callbacks(execute=True):
        assert refresh.resume_stalled() == ["products-v1"]
    started.refresh_from_db()
    assert started.status == Status.DONE
    assert refresh.resume_stalled() == []


@pytest.mark.django_db(transaction=True)
def test_two_workers_on_one_refresh_do_it_once(live, model):
    rewrite(live, [row(number, title=f"New {number}") for number in range(1, 41)])
    started = refresh.start(live, enqueue=False)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                if refresh.run(started.pk, seconds=0) is None:
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
    assert counters(started) == {"written": 40, "embedded": 40}
    assert counted(live_build(live)) == (40, 40)


def test_old_refreshes_are_forgotten(live, model, monkeypatch):
    monkeypatch.setattr("indexes.refresh.turns.KEPT", 2)
    for _ in range(4):
        run(live)
    assert IndexRefresh.objects.count() == 3


def test_other_builds_keep_what_they_have(live, model):
    beside = ready(live)
    refreshed(live, rows(11))
    assert valkey.index_info(beside.index_name).num_docs == 0


_items = st.dictionaries(
    st.sampled_from([f"i{number}" for number in range(1, 16)]),
    st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.booleans()),
    min_size=1,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.lists(_items, min_size=1, max_size=3))
def test_any_source_ends_as_a_full_build_of_it_would(live, model, monkeypatch, contents):
    monkeypatch.setattr(removing, "MOST_PERCENT", 100)
    monkeypatch.setattr("indexes.shards.FIRST_ROWS", 4)
    live.source.refresh_from_db()
    for content in contents:
        wanted = {
            item_id: {"id": item_id, "title": title, "price": price}
            | ({"brand": "B"} if brand else {})
            for item_id, (title, price, brand) in content.items()
        }
        rewrite(live, wanted.values(), at=timezone.now() + timedelta(seconds=len(contents)))
        run(live)
        assert ids(live) == wanted.keys()
        for item_id, item in wanted.items():
            found = held(live_build(live), item_id, "title", "price", "brand")
            assert found == [item["title"], str(item["price"]), item.get("brand")]
        assert counted(live_build(live)) == (len(wanted), len(wanted))
