"""Changes that come while a build loads end in the finished build, and nothing older wins over them."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from indexes import builds, changes, item_calls, loading, shards
from indexes.models import IndexBuild, IndexDefinition, ItemChange
from tests.indexes.item_calls import Model, build_live, counted, held, row

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of a build loads one shard of twenty rows."""
    monkeypatch.setattr(loading, "WORK_PER_SKIP", 0)
    monkeypatch.setattr(shards, "FIRST_ROWS", 20)


@pytest.fixture
def live(define: Callable[..., IndexDefinition], model: Model) -> IndexBuild:
    return build_live(define([row(number) for number in range(1, 62)]))


def begin(definition: IndexDefinition) -> IndexBuild:
    """Start a build and load its first shard."""
    build = builds.start(definition)
    builds.run(build.pk, seconds=0)
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LOADING
    assert 0 < build.cursor < 61
    return build


def finish(build: IndexBuild) -> IndexBuild:
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, (build.status, build.error, build.notice)
    return build


def put(*rows: Any) -> None:
    assert item_calls.put("products", rows).refused == []


def delete(*entries: Any) -> None:
    assert item_calls.delete("products", entries).refused == []


def test_changes_during_a_load_end_in_the_finished_build(live: IndexBuild, model: Model):
    build = begin(live.definition)
    # Of rows that are loaded already, and of rows that are still to come.
    put(row(1, title="New first"), row(54, title="New last", price=0), row(9001))
    put({"id": "i2", "price": 222}, {"id": "i53", "price": 333, "brand": None})
    delete("i3", "i57", "i58")
    put(row(58, price=7))
    model.forget()

    finish(build)

    assert held(build, "i1", "title") + held(build, "i54", "title") == ["New first", "New last"]
    assert held(build, "i54", "price") + held(build, "i9001", "title") == ["0", "Thing 9001"]
    assert held(build, "i2", "title", "price", "brand") == ["Thing 2", "222", "Acme"]
    assert held(build, "i53", "price", "brand") == ["333", None]
    assert held(build, "i3", "title") + held(build, "i57", "title") == [None, None]
    assert held(build, "i58", "price") == ["7"]
    assert counted(build) == (60, 60)
    # The live build had the vectors of the new texts.
    assert not {"New first", "New last", "Thing 9001"} & set(model.texts)


def test_a_text_that_is_refused_then_is_told(
    live: IndexBuild, model: Model, caplog: pytest.LogCaptureFixture
):
    build = begin(live.definition)
    put(row(1, price=11), row(9001))
    # The model has become stricter since the call.
    ItemChange.objects.filter(item_id="i1").update(
        row=json.dumps(row(1, title="Bad", price=11)), partial=False
    )
    model.refused = {"Bad"}

    finish(build)

    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    told = [line for line in lines if line["event"] == "item without vector"]
    assert [(line["item"], line["reason"]) for line in told] == [("i1", "text_refused")]
    assert held(build, "i9001", "title") == ["Thing 9001"]


def test_every_turn_of_a_build_may_be_followed_by_changes(live: IndexBuild):
    """Whatever state it is in: nothing is lost, and its count stays right."""
    build = builds.start(live.definition)
    number = 0
    while builds.run(build.pk, seconds=0) is not None:
        number += 1
        put(row(number, price=-number), row(5000 + number))
        delete(f"i{30 + number}")

    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, build.error
    assert number >= 3
    for step in range(1, number + 1):
        assert held(build, f"i{step}", "price") == [str(-step)]
        assert held(build, f"i{5000 + step}", "title") == [f"Thing {5000 + step}"]
        assert held(build, f"i{30 + step}", "title") == [None]
    assert counted(build) == (61, 61)


def test_changes_while_the_gates_run_are_written_at_once(live: IndexBuild):
    build = begin(live.definition)
    IndexBuild.objects.filter(pk=build.pk).update(
        status=IndexBuild.Status.VALIDATING, caught_up_at=timezone.now()
    )

    outcome = item_calls.put("products", [row(1, price=5)])

    assert outcome.builds == [live.label, build.label]
    assert held(build, "i1", "price") == ["5"]


def test_a_repeated_catch_up_changes_nothing(live: IndexBuild):
    build = begin(live.definition)
    put(row(1, price=11), row(9001))
    delete("i2")
    # What a worker that was killed before it could save leaves behind.
    while build.status != IndexBuild.Status.VALIDATING:
        builds.run(build.pk, seconds=0)
        build.refresh_from_db()
        if build.status == IndexBuild.Status.LIVE:
            break
    IndexBuild.objects.filter(pk=build.pk).update(
        status=IndexBuild.Status.VALIDATING, caught_up_at=None, written=61, lease_until=None
    )
    IndexDefinition.objects.update(live_build=live)
    IndexBuild.objects.filter(pk=live.pk).update(status=IndexBuild.Status.LIVE)

    finish(build)

    assert held(build, "i1", "price") + held(build, "i9001", "title") == ["11", "Thing 9001"]
    assert counted(build) == (61, 61)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


@pytest.fixture
def written(catalog: Path, define: Callable[..., IndexDefinition]) -> Callable[..., None]:
    """Writes the catalog anew, as if so many seconds from now."""

    def write(*rows: Any, seconds: float = 0) -> None:
        catalog.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
        moment = datetime.now(UTC).timestamp() + seconds
        os.utime(catalog, (moment, moment))

    return write


def test_a_source_that_was_written_later_wins(
    written: Any, catalog: Path, define: Any, model: Model
):
    written(row(1), row(2), row(3), seconds=-60)
    definition = define(catalog)
    build_live(definition)
    put({"id": "i1", "price": 100}, row(2, price=200), row(4))
    delete("i3")
    written(row(1), row(2), row(3), seconds=60)

    build = build_live(definition)

    assert [held(build, f"i{number}", "price") for number in (1, 2, 3, 4)] == [
        ["1"],
        ["2"],
        ["3"],
        [None],
    ]
    assert changes.prune() == 4


def test_a_higher_version_wins_whenever_it_came(
    written: Any, catalog: Path, define: Any, model: Model
):
    rows = [row(number, rev=5) for number in (1, 2, 3, 4)]
    written(*rows, seconds=-60)
    definition = define(catalog, version_field="rev")
    build_live(definition)
    put(row(1, rev=7, price=70), {"id": "i2", "rev": 7, "price": 71})
    delete({"id": "i3", "version": 7})
    put({"id": "i4", "rev": 6, "price": 60})
    # It was written later, and still has versions that are older.
    written(*rows[:3], row(4, rev=8), seconds=60)

    build = build_live(definition)

    assert [held(build, f"i{number}", "price") for number in (1, 2, 3, 4)] == [
        ["70"],
        ["71"],
        [None],
        ["4"],
    ]
    refused = item_calls.put("products", [row(1, rev=6), row(3, rev=6), row(4, rev=7)]).refused
    assert [refusal.code for refusal in refused] == ["older_version"] * 3
    assert changes.prune() == 1
    assert sorted(ItemChange.objects.values_list("item_id", flat=True)) == ["i1", "i2", "i3"]


def test_a_settled_partial_change_does_not_come_back_with_the_next(
    written: Any, catalog: Path, define: Any, model: Model
):
    written(row(1), row(2), seconds=-60)
    definition = define(catalog)
    build_live(definition)
    put({"id": "i1", "price": 100}, row(2, price=200))
    written(row(1, price=3), row(2, price=4), seconds=60)
    build_live(definition)
    put({"id": "i1", "brand": "Beta"}, {"id": "i2", "brand": "Beta"})
    written(row(1, price=5), row(2, price=6), seconds=-30)

    build = build_live(definition)

    assert held(build, "i1", "price", "brand") == ["5", "Beta"]
    assert held(build, "i2", "price", "brand") == ["6", "Beta"]


def test_changes_are_kept_for_builds_that_still_need_them(live: IndexBuild):
    put(row(1, price=3))
    ItemChange.objects.update(settled_at=timezone.now())
    build = begin(live.definition)
    assert changes.prune() == 0
    builds.cancel(build)

    assert changes.prune() == 1


def test_deletions_are_remembered_for_a_while(define: Any, model: Model):
    build_live(define())
    delete({"id": "i1", "version": 3}, "i2")
    ItemChange.objects.update(settled_at=timezone.now())

    assert changes.prune() == 1
    assert ItemChange.objects.get().item_id == "i1"
    ItemChange.objects.update(changed_at=timezone.now() - changes.KEEP_DELETIONS - timedelta(1))
    assert changes.prune() == 1


@pytest.mark.parametrize(
    ("version", "source_version", "minutes", "wins"),
    [
        (2, 1, -5, True),
        (1, 2, 5, False),
        (1, 1, 5, True),
        (1, 1, -5, False),
        (None, 1, 5, True),
        (None, 1, -5, False),
        (1, None, 5, True),
        (1, None, -5, False),
        (None, None, 5, True),
        (None, None, -5, False),
    ],
)
def test_which_of_a_change_and_a_source_is_newer(
    version: float | None, source_version: float | None, minutes: float, wins: bool
):
    now = timezone.now()
    change = ItemChange(version=version, changed_at=now + timedelta(minutes=minutes))

    assert changes.wins(change, source_version=source_version, source_time=now) is wins
    assert changes.wins(change, source_version=None, source_time=None)
