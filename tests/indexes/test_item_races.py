"""Whatever order calls come in, and however many at once: the highest version is what stays."""

import itertools
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import builds, changes, index_lock, item_calls
from indexes.models import IndexBuild, IndexDefinition, ItemChange
from tests.indexes.item_calls import Model, build_live, counted, held, row

Entry = tuple[str, int, int, bool]

_examples = itertools.count()
_entries = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.integers(0, 6),
            st.integers(0, 99),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=8,
)


@pytest.fixture
def live(define: Callable[..., IndexDefinition], model: Model) -> IndexBuild:
    return build_live(define([row(1), row(2)]))


def send(entries: Sequence[Any]) -> list[bool]:
    """Send one call and return which entries were accepted; a call either puts or deletes."""
    deleted = entries[0][3]
    if deleted:
        given = [{"id": item_id, "version": version} for item_id, version, _, _ in entries]
        outcome = item_calls.delete("products", given)
    else:
        rows = [
            {"id": item_id, "title": "Thing", "price": price, "version": version}
            for item_id, version, price, _ in entries
        ]
        outcome = item_calls.put("products", rows)
    refused = {refusal.position for refusal in outcome.refused}
    assert {refusal.code for refusal in outcome.refused} <= {"older_version"}
    assert outcome.accepted == len(entries) - len(refused)
    return [position not in refused for position in range(len(entries))]


@pytest.mark.django_db
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=_entries)
def test_the_highest_version_stays(live: IndexBuild, calls: list[list[Entry]]):
    # Items of its own for each example.
    example = next(_examples)
    expected: dict[str, tuple[int, str | None]] = {}
    for entries in calls:
        own: list[Entry] = [(f"{example}-{entry[0]}", *entry[1:]) for entry in entries]
        for (item_id, version, price, _), taken in zip(own, send(own), strict=True):
            newest, _ = expected.get(item_id, (-1, None))
            assert taken == (version >= newest)
            if taken:
                expected[item_id] = version, None if own[0][3] else str(price)
    for item_id, (_, left) in expected.items():
        assert held(live, item_id, "price") == [left]


def in_threads(work: Callable[[int], Any], threads: int = 4) -> list[Any]:
    """Run in threads that begin together, each with a database connection of its own."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.mark.django_db(transaction=True)
def test_calls_at_once_for_the_same_items(live: IndexBuild):
    ids = [f"n{number}" for number in range(12)]

    def work(number: int) -> None:
        chance = random.Random(number)
        for _ in range(10):
            chosen = chance.sample(ids, 8)
            version = chance.randrange(1000)
            send([(item_id, version, version, chance.random() < 0.3) for item_id in chosen])

    in_threads(work)

    for change in ItemChange.objects.all():
        expected = None if change.deleted else f"{change.newest:g}"
        assert held(live, change.item_id, "price") == [expected]
        assert change.version == change.newest
    written, found = counted(live)
    assert written == found == 2 + ItemChange.objects.filter(deleted=False).count()


@pytest.mark.django_db(transaction=True)
def test_partial_rows_at_once_lose_no_field(live: IndexBuild):
    names = ["price", "brand"]

    def work(number: int) -> None:
        for step in range(10):
            name = names[number]
            assert item_calls.put("products", [{"id": "i1", name: step}]).refused == []

    in_threads(work, threads=2)

    assert held(live, "i1", "price", "brand") == ["9", "9"]
    assert ItemChange.objects.get().row.count("9") == 2


@pytest.mark.django_db(transaction=True)
def test_calls_go_on_while_a_build_runs(live: IndexBuild, define: Any):
    """Nothing slips between the replay and the first change that the build gets at once."""
    build = builds.start(live.definition)
    ended = threading.Event()
    latest: dict[str, int] = {}

    def work(number: int) -> None:
        if number == 0:
            try:
                builds.run_to_end(build.pk)
            finally:
                ended.set()
            return
        step = 0
        while not ended.is_set():
            step += 1
            item_id = f"t{number}-{step % 7}"
            if item_calls.put("products", [row(0, id=item_id, price=step)]).accepted:
                latest[item_id] = step

    in_threads(work, threads=3)

    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, (build.status, build.error)
    assert latest
    for item_id, step in latest.items():
        assert held(build, item_id, "price") == [str(step)]
    assert counted(build) == (2 + len(latest), 2 + len(latest))


@pytest.mark.django_db(transaction=True)
def test_a_call_waits_for_a_build_that_catches_up_no_longer_than_it_may(
    live: IndexBuild, monkeypatch: pytest.MonkeyPatch
):
    from django.db import OperationalError

    monkeypatch.setattr(index_lock, "PATIENCE_MS", 100)

    def work(number: int) -> None:
        with pytest.raises(OperationalError):
            item_calls.put("products", [row(1)])

    with transaction.atomic():
        index_lock.hold(live.definition_id)
        in_threads(work, threads=1)

    assert item_calls.put("products", [row(1)]).accepted == 1


@pytest.mark.django_db(transaction=True)
def test_no_change_is_pruned_from_under_a_call(live: IndexBuild):
    item_calls.put("products", [row(1)])
    ItemChange.objects.update(settled_at=timezone.now())

    def prune() -> int:
        try:
            return changes.prune()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            index_lock.share(live.definition_id)
            pruned = pool.submit(prune)
            with pytest.raises(TimeoutError):
                pruned.result(timeout=0.5)
        assert pruned.result(timeout=10) == 1
