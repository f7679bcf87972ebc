"""A refresh beside the items API: whatever is newest is what stays, and what was deleted stays away."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.utils import timezone

from indexes import builds, item_calls
from indexes.models import IndexDefinition, ItemChange
from tests.indexes.containers import Answer, Call
from tests.indexes.item_calls import (
    Model,
    build_live,
    counted,
    held,
    row,
    vector_held,
    vector_of,
)
from tests.indexes.refresh.sources import counters, ids, refreshed, run

Define = Callable[..., IndexDefinition]


def rows(count: int) -> list[dict[str, Any]]:
    return [row(number) for number in range(1, count + 1)]


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)


def ahead(seconds: float) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


@pytest.fixture
def live(define: Define, model: Model) -> IndexDefinition:
    definition = define(rows(10))
    build_live(definition)
    model.forget()
    definition.refresh_from_db()
    return definition


@pytest.fixture
def versioned(define: Define, model: Model) -> IndexDefinition:
    """An index whose rows have version 5."""
    content = [row(number, version=5) for number in range(1, 11)]
    definition = define(content, version_field="version")
    build_live(definition)
    model.forget()
    definition.refresh_from_db()
    return definition


def price(definition: IndexDefinition, item_id: str) -> str | None:
    assert definition.live_build is not None
    return held(definition.live_build, item_id, "price")[0]


def test_what_came_after_the_source_was_written_stays(live):
    item_calls.put("products", [row(1, price=100), row(77)])
    item_calls.delete("products", ["i2"])
    content = [row(number, price=50) for number in range(1, 11)]
    done = refreshed(live, content, at=ago(60))
    assert counters(done) == {"written": 8, "kept": 2}
    assert price(live, "i1") == "100"
    assert price(live, "i3") == "50"
    assert ids(live) == {"i1", "i77", *(f"i{number}" for number in range(3, 11))}
    assert counted(live.live_build) == (10, 10)


def test_what_came_before_the_source_was_written_goes(live):
    item_calls.put("products", [row(1, price=100), row(77)])
    item_calls.delete("products", ["i2"])
    done = refreshed(live, rows(10), at=ahead(1))
    assert counters(done) == {"unchanged": 8, "written": 2, "embedded": 1, "removed": 1}
    assert (price(live, "i1"), price(live, "i2")) == ("1", "2")
    assert ids(live) == {f"i{number}" for number in range(1, 11)}
    # No later build needs what the source has overtaken.
    settled = ItemChange.objects.exclude(settled_at=None).values_list("item_id", flat=True)
    assert {"i1", "i2"} <= set(settled)


def test_a_full_build_of_the_same_source_ends_alike(live):
    item_calls.put("products", [row(1, price=100), row(77), {"id": "i4", "price": 44}])
    item_calls.delete("products", ["i2"])
    content = [row(number, brand="Newer") for number in range(1, 10)]
    refreshed(live, content, at=ago(60))
    first = live.live_build

    def all_of(build: Any) -> dict[str, list[str | None]]:
        return {
            item_id: held(build, item_id, "title", "brand", "price", "rp_content")[:3]
            for item_id in ids(live)
        }

    refreshed_items = all_of(first)
    second = builds.start(live)
    builds.run_to_end(second.pk)
    live.refresh_from_db()
    assert live.live_build == second
    assert all_of(second) == refreshed_items
    assert refreshed_items["i4"] == ["Thing 4", "Newer", "44"]


def test_a_part_that_came_after_the_source_is_laid_over_its_row(live, model):
    item_calls.put("products", [{"id": "i1", "price": 100}])
    content = rows(10)
    content[0] |= {"title": "Newer title", "price": 7}
    done = refreshed(live, content, at=ago(60))
    assert counters(done) == {"unchanged": 9, "written": 1, "embedded": 1}
    assert held(live.live_build, "i1", "title", "price") == ["Newer title", "100"]
    # It is known now what the item holds.
    content[9]["price"] = 11
    assert counters(refreshed(live, content, at=ago(50))) == {"unchanged": 9, "written": 1}
    assert model.texts == ["Newer title"]


def test_a_part_that_came_before_the_source_gives_way(live):
    item_calls.put("products", [{"id": "i1", "price": 100}])
    assert counters(refreshed(live, rows(10), at=ahead(1))) == {"unchanged": 9, "written": 1}
    assert price(live, "i1") == "1"


@pytest.mark.parametrize(("sent", "stays"), [(4, "60"), (5, "60"), (6, "100")])
def test_versions_count_where_both_have_one(versioned, sent, stays):
    # The first is refused by the API itself.
    item_calls.put("products", [row(1, price=100, version=sent)])
    content = [row(number, price=60, version=5) for number in range(1, 11)]
    # The time decides where they are equal.
    refreshed(versioned, content, at=ahead(1))
    assert price(versioned, "i1") == stays


def test_a_row_that_is_older_than_the_item_is_left_alone(versioned, model):
    content = [row(number, price=60, version=4 + number % 2) for number in range(1, 11)]
    done = refreshed(versioned, content)
    assert counters(done) == {"written": 5, "kept": 5}
    assert price(versioned, "i2") == "2"
    assert price(versioned, "i3") == "60"


def test_a_higher_version_of_the_same_is_noted(versioned, model):
    content = [row(number, version=9) for number in range(1, 11)]
    assert counters(refreshed(versioned, content)) == {"written": 10}
    assert model.texts == []
    outcome = item_calls.put("products", [row(1, price=100, version=7)])
    assert [refusal.code for refusal in outcome.refused] == ["older_version"]


@pytest.mark.django_db(transaction=True)
def test_an_item_that_the_api_deletes_while_its_text_is_embedded_stays_away(live, container):
    content = [*rows(10), row(11)]
    content[0]["title"] = "Newer"
    respond = container.respond

    def deleting(call: Call) -> Answer:
        container.respond = respond
        item_calls.delete("products", ["i1"])
        connection.close()
        answered: Answer = respond(call)
        return answered

    container.respond = deleting
    done = refreshed(live, content, at=ago(60))
    assert counters(done) == {"unchanged": 9, "written": 1, "embedded": 1, "kept": 1}
    assert "i1" not in ids(live)
    assert counted(live.live_build) == (10, 10)


@pytest.mark.django_db(transaction=True)
def test_an_older_change_that_comes_while_its_text_is_embedded_is_written_over(
    live, model, container
):
    content = [row(number, price=50) for number in range(1, 11)]
    respond = container.respond

    def changing(call: Call) -> Answer:
        container.respond = respond
        # The text of i2 becomes another one after it was seen to be that of the source.
        item_calls.put("products", [row(2, title="Other")])
        connection.close()
        answered: Answer = respond(call)
        return answered

    container.respond = changing
    content[0]["title"] = "Newer"
    done = refreshed(live, content, at=ahead(60))
    assert counters(done) == {"written": 10, "embedded": 2}
    assert held(live.live_build, "i2", "title", "price") == ["Thing 2", "50"]
    expected = vector_of("Thing 2")
    assert np.allclose(vector_held(live.live_build, "i2"), expected, atol=1e-6)


@pytest.mark.django_db(transaction=True)
def test_calls_and_refreshes_at_once_end_with_the_newest(versioned):
    """Each side writes its number as price and version: the highest of both is what stays."""
    errors: list[BaseException] = []
    rounds = 12

    def calling() -> None:
        try:
            for number in range(10, 10 + 3 * rounds):
                item_calls.put(
                    "products",
                    [row(n, title=f"T{number}", price=number, version=number) for n in (1, 2, 3)],
                )
        except BaseException as error:  # noqa: BLE001  (shown in the main thread)
            errors.append(error)
        finally:
            connection.close()

    caller = threading.Thread(target=calling)
    caller.start()
    try:
        for number in range(11, 11 + 3 * rounds, 3):
            content = [
                row(n, title=f"T{number}", price=number, version=number) for n in range(1, 11)
            ]
            refreshed(versioned, content)
    finally:
        caller.join(120)
    assert errors == []
    last_sent, last_read = 9 + 3 * rounds, 11 + 3 * (rounds - 1)
    expected = str(max(last_sent, last_read))
    for item_id in ("i1", "i2", "i3"):
        assert held(versioned.live_build, item_id, "price", "title") == [expected, f"T{expected}"]
    assert price(versioned, "i4") == str(last_read)
    assert counted(versioned.live_build) == (10, 10)


def test_an_item_that_the_api_put_does_not_count_as_missing(live):
    item_calls.put("products", [row(number) for number in range(20, 30)])
    assert counters(refreshed(live, rows(9), at=ago(60))) == {"unchanged": 9, "removed": 1}
    assert len(ids(live)) == 19
    assert run(live).notice
