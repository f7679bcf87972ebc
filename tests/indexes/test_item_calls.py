"""Items put and deleted one by one, over a live index on the real engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from indexes import builds, changes, item_calls, item_vectors
from indexes.errors import SearchUnavailable, UnknownIndex
from indexes.models import IndexBuild, IndexDefinition, ItemChange
from tests.indexes.item_calls import (
    Model,
    build_live,
    codes,
    counted,
    held,
    row,
    vector_held,
    vector_of,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is down is not waited for."""
    monkeypatch.setattr(item_vectors, "CALL_S", 0.5)


@pytest.fixture
def live(define: Callable[..., IndexDefinition], model: Model) -> IndexBuild:
    """A live build of four items; what its build asked of the model is forgotten."""
    build = build_live(define())
    model.forget()
    return build


def put(*rows: Any) -> item_calls.Outcome:
    return item_calls.put("products", rows)


def delete(*entries: Any) -> item_calls.Outcome:
    return item_calls.delete("products", entries)


def test_a_new_item_is_in_the_index(live: IndexBuild):
    outcome = put(row(9, title="A new thing"))

    assert (outcome.accepted, outcome.refused, outcome.builds) == (1, [], [live.label])
    assert held(live, "i9", "title", "brand", "price") == ["A new thing", "Acme", "9"]
    assert vector_held(live, "i9") == pytest.approx(vector_of("A new thing"), abs=1e-6)
    assert counted(live) == (5, 5)


def test_a_row_replaces_the_whole_item(live: IndexBuild):
    put({"id": "i1", "title": "Thing 1", "price": 3})

    assert held(live, "i1", "title", "brand", "price") == ["Thing 1", None, "3"]
    assert counted(live) == (4, 4)


def test_a_price_changes_without_a_call_of_the_model(live: IndexBuild, model: Model):
    assert put(row(1, price=7), {"id": "i2", "price": 8}).accepted == 2

    assert model.texts == []
    assert held(live, "i1", "price") == ["7"]
    assert held(live, "i2", "title", "brand", "price") == ["Thing 2", "Acme", "8"]
    assert vector_held(live, "i2") == pytest.approx(vector_of("Thing 2"), abs=1e-6)


def test_a_new_text_is_embedded_once(live: IndexBuild, model: Model):
    put(row(1, title="Same"), row(2, title="Same"), row(3))

    assert model.texts == ["Same"]
    assert vector_held(live, "i1") == pytest.approx(vector_of("Same"), abs=1e-6)
    assert vector_held(live, "i2") == pytest.approx(vector_of("Same"), abs=1e-6)


def test_null_removes_a_field_of_a_partial_row(live: IndexBuild):
    assert put({"id": "i1", "brand": None}).accepted == 1

    assert held(live, "i1", "title", "brand", "price") == ["Thing 1", None, "1"]


def test_a_partial_row_needs_an_item(live: IndexBuild):
    outcome = put({"id": "nobody", "price": 3})

    assert codes(outcome.refused) == {0: "unknown_item"}
    assert held(live, "nobody", "price") == [None]
    assert not ItemChange.objects.exists()


def test_a_partial_row_cannot_bring_a_deleted_item_back(live: IndexBuild):
    delete("i1")

    assert codes(put({"id": "i1", "price": 3}).refused) == {0: "unknown_item"}
    assert held(live, "i1", "price") == [None]


def test_deleting(live: IndexBuild):
    outcome = delete("i1", {"id": "i2"}, "unknown", 7)

    assert (outcome.accepted, outcome.refused) == (4, [])
    assert held(live, "i1", "title") == held(live, "i2", "title") == [None]
    assert counted(live) == (2, 2)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("text", "not_an_object"),
        (None, "not_an_object"),
        ([], "not_an_object"),
        ({"title": "no id"}, "missing_id"),
        ({"id": True, "title": "x"}, "bad_id"),
        ({"id": "x" * 257, "title": "x"}, "bad_id"),
        ({"id": "a", "title": ""}, "empty_text"),
        ({"id": "a", "title": None}, "empty_text"),
        ({"id": "a", "title": "x", "price": "cheap"}, "bad_numeric"),
        ({"id": "i1", "price": "cheap"}, "bad_numeric"),
        ({"id": "a", "title": "x", "brand": ["a", "b"]}, "bad_tag"),
        ({"id": "a", "title": "x", "brand": "b" * 4001}, "long_tag"),
        ({"id": "a", "title": "x", "version": "new"}, "bad_version"),
        ({"id": "a", "title": "x", "updated_at": {}}, "bad_version"),
        ({"id": "a", "title": "x", "attributes": {"a": [[[[]]]] * 2}}, None),
    ],
)
def test_a_wrong_entry_is_refused_alone(live: IndexBuild, entry: Any, code: str | None):
    outcome = put(row(1, price=50), entry, row(2, price=60))

    expected = {} if code is None else {1: code}
    assert codes(outcome.refused) == expected
    assert outcome.accepted == 3 - len(expected)
    assert held(live, "i1", "price") + held(live, "i2", "price") == ["50", "60"]
    if code is not None:
        [refusal] = outcome.refused
        assert refusal.message.endswith(".")


def test_a_row_nested_without_end_is_refused(live: IndexBuild):
    deep: Any = 1
    for _ in range(500):
        deep = [deep]

    assert codes(put(row(1, deep=deep)).refused) == {0: "too_deep"}


def test_the_reasons_are_those_of_rejected_rows(define: Any, model: Model):
    wrong = [row(1, price="cheap"), {"title": "x"}, row(2, brand=["a"]), row(3, title=" ")]
    build = build_live(define([row(4), *wrong], max_rejected_percent=90))

    outcome = put(*wrong)

    rejected = build.rejected_rows.order_by("row").values_list("reason", "message")
    assert [(refusal.code, refusal.message) for refusal in outcome.refused] == list(rejected)


def test_an_older_version_is_refused_and_both_are_named(live: IndexBuild):
    put(row(1, version=5, price=50))

    outcome = put(row(1, version=4, price=40), row(2, version=4, price=42))

    assert codes(outcome.refused) == {0: "older_version"}
    assert "4" in outcome.refused[0].message
    assert "5" in outcome.refused[0].message
    assert held(live, "i1", "price") + held(live, "i2", "price") == ["50", "42"]


def test_the_same_version_again_is_accepted(live: IndexBuild):
    for _ in range(2):
        assert put(row(1, version=5, price=50)).accepted == 1
    assert delete({"id": "i1", "version": 5}).accepted == 1
    assert delete({"id": "i1", "version": 5}).accepted == 1


def test_versions_may_be_dates(live: IndexBuild):
    put(row(1, updated_at="2026-03-01T12:00:00Z", price=50))

    refused = put(row(1, updated_at="2026-03-01T12:59:59+01:00", price=40)).refused
    assert codes(refused) == {0: "older_version"}
    assert put(row(1, updated_at="2026-03-01T12:00:01Z", price=60)).accepted == 1
    assert held(live, "i1", "price") == ["60"]


def test_a_late_older_row_does_not_bring_a_deleted_item_back(live: IndexBuild):
    delete({"id": "i1", "version": 8})

    assert codes(put(row(1, version=7)).refused) == {0: "older_version"}
    assert held(live, "i1", "title") == [None]
    assert put(row(1, version=9)).accepted == 1
    assert held(live, "i1", "title") == ["Thing 1"]


def test_an_older_deletion_is_refused(live: IndexBuild):
    put(row(1, version=8))

    assert codes(delete({"id": "i1", "version": 7}).refused) == {0: "older_version"}
    assert held(live, "i1", "title") == ["Thing 1"]


def test_what_came_without_a_version_lowers_none(live: IndexBuild):
    put(row(1, version=8))
    put({"id": "i1", "price": 3})
    delete("i1")

    assert codes(put(row(1, version=7)).refused) == {0: "older_version"}


def test_the_version_of_the_source_counts(define: Any, model: Model):
    build = build_live(define([row(1, rev=5)], version_field="rev"))

    outcome = put(row(1, rev=4), {"id": "i1", "rev": 6, "price": 60}, row(1, rev=5, price=50))

    assert codes(outcome.refused) == {0: "older_version", 2: "older_version"}
    assert held(build, "i1", "price", "rp_version") == ["60", "6.0"]


def test_an_item_that_comes_twice_is_as_in_two_calls(live: IndexBuild):
    outcome = put(
        row(1, price=10),
        row(1, price=11),
        {"id": "i1", "brand": "Beta"},
        row(2, version=2, price=22),
        row(2, version=1, price=21),
        {"id": "i9", "price": 1},
        row(9, price=2),
        {"id": "i9", "price": 3},
    )

    assert codes(outcome.refused) == {4: "older_version", 5: "unknown_item"}
    assert outcome.accepted == 6
    assert held(live, "i1", "price", "brand") == ["11", "Beta"]
    assert held(live, "i2", "price") + held(live, "i9", "price") == ["22", "3"]


def test_an_item_that_comes_twice_after_its_change_was_settled(live: IndexBuild):
    put(row(1, price=10), row(2, price=20))
    ItemChange.objects.update(settled_at=timezone.now())

    put(
        row(1, title="Another thing", price=11),
        {"id": "i1", "brand": "Beta"},
        {"id": "i2", "price": 21},
        {"id": "i2", "brand": "Beta"},
    )

    assert held(live, "i1", "title", "price", "brand") == ["Another thing", "11", "Beta"]
    assert vector_held(live, "i1") == pytest.approx(vector_of("Another thing"), abs=1e-6)
    assert held(live, "i2", "price", "brand") == ["21", "Beta"]
    whole, partial = ItemChange.objects.order_by("item_id")
    assert (whole.partial, changes.row_of(whole)["title"]) == (False, "Another thing")
    assert (partial.partial, changes.row_of(partial)) == (
        True,
        {"id": "i2", "price": 21, "brand": "Beta"},
    )


def test_without_the_model_only_new_texts_are_refused(
    live: IndexBuild, model: Model, impatient: None
):
    model.down = True

    outcome = put(row(1, price=10), row(2, title="New"), {"id": "i3", "price": 30}, row(9))

    assert codes(outcome.refused) == {1: "embedding_unavailable", 3: "embedding_unavailable"}
    assert all(refusal.retryable for refusal in outcome.refused)
    assert held(live, "i1", "price") + held(live, "i3", "price") == ["10", "30"]
    assert held(live, "i2", "title") == ["Thing 2"]
    model.down = False
    assert put(row(2, title="New"), row(9)).refused == []


def test_a_row_without_a_vector_does_not_take_others_of_its_item_along(
    live: IndexBuild, model: Model, impatient: None
):
    model.down = True

    outcome = put({"id": "i1", "price": 10}, row(1, title="New"), {"id": "i1", "brand": "Beta"})

    assert codes(outcome.refused) == {1: "embedding_unavailable"}
    assert held(live, "i1", "title", "price", "brand") == ["Thing 1", "10", "Beta"]


def test_many_rows_of_one_item_without_a_vector(live: IndexBuild, model: Model, impatient: None):
    model.down = True

    rows = [row(1, title=f"New {number}") for number in range(100)]
    outcome = put({"id": "i1", "price": 10}, *rows, {"id": "i1", "brand": "Beta"})

    assert outcome.accepted == 2
    assert set(codes(outcome.refused).values()) == {"embedding_unavailable"}
    assert held(live, "i1", "title", "price", "brand") == ["Thing 1", "10", "Beta"]


def test_many_texts_of_one_item_that_the_model_refuses(live: IndexBuild, model: Model):
    model.refused = {f"Bad {number}" for number in range(20)}

    bad = [row(1, title=title) for title in sorted(model.refused)]
    assert put(row(1, title="Good"), bad[0]).accepted == 1
    assert held(live, "i1", "title") == ["Good"]

    assert codes(put(*bad, {"id": "i1", "price": 3}).refused) == dict.fromkeys(
        range(20), "text_refused"
    )
    assert held(live, "i1", "title", "price") == ["Good", "3"]


def test_a_text_that_the_model_refuses_is_refused_alone(live: IndexBuild, model: Model):
    model.refused = {"Bad"}

    outcome = put(row(5), row(6, title="Bad"), row(7), row(8))

    assert codes(outcome.refused) == {1: "text_refused"}
    assert not outcome.refused[0].retryable
    assert counted(live) == (7, 7)


def test_nothing_is_committed_without_valkey(live: IndexBuild, settings: Any):
    url = settings.VALKEY_URL
    settings.VALKEY_URL = "valkey://127.0.0.1:1/0"
    with pytest.raises(SearchUnavailable):
        put(row(1, price=10, version=3))
    settings.VALKEY_URL = url

    assert not ItemChange.objects.exists()
    assert put(row(1, price=9, version=2)).accepted == 1


def test_an_index_that_is_none(db: None):
    with pytest.raises(UnknownIndex):
        item_calls.put("nowhere", [row(1)])


def test_before_the_first_build_changes_wait_for_it(define: Any, model: Model):
    definition = define([row(1), row(2)])

    outcome = put(row(1, price=10), row(3), {"id": "i2", "price": 20})

    assert (codes(outcome.refused), outcome.builds) == ({2: "unknown_item"}, [])
    build = build_live(definition)
    assert held(build, "i1", "price") == ["10"]
    assert held(build, "i3", "title") == ["Thing 3"]
    assert counted(build) == (3, 3)


def test_a_given_vector_is_taken(define: Any, model: Model):
    rows = [row(1, vector=vector_of("a").tolist())]
    build = build_live(define(rows, vector_field="vector"))
    model.forget()

    outcome = put(
        row(1, vector=vector_of("b").tolist()),
        row(2, vector=vector_of("c").tolist()),
        row(3, vector=[1, 2]),
        {"id": "i2", "vector": vector_of("d").tolist()},
    )

    assert (codes(outcome.refused), model.texts) == ({2: "bad_vector"}, [])
    assert vector_held(build, "i1") == pytest.approx(vector_of("b"), abs=1e-6)
    assert vector_held(build, "i2") == pytest.approx(vector_of("d"), abs=1e-6)


def test_each_build_gets_its_own_item_of_a_row(define: Any, model: Model):
    definition = define()
    first = build_live(definition)
    definition.endpoint.endpoint_name, definition.endpoint.dimension = "other", 16
    definition.endpoint.save()
    definition.fields.create(name="colour", type="tag", position=9)
    second = builds.start(definition)
    builds.run_to_end(second.pk)
    second.refresh_from_db()
    assert second.status == IndexBuild.Status.READY
    model.forget()

    outcome = put(
        row(1, title="New", colour="red"), row(2, colour="red"), {"id": "i3", "colour": "b"}
    )

    assert outcome.builds == [first.label, second.label]
    assert model.texts == ["New", "New"]
    assert held(first, "i1", "title", "colour") == ["New", None]
    assert held(second, "i1", "title", "colour") == ["New", "red"]
    assert vector_held(second, "i1") == pytest.approx(vector_of("New", 16), abs=1e-6)
    assert held(second, "i2", "colour") + held(second, "i3", "colour") == ["red", "b"]


def test_the_way_back_does_not_hold_changes_up(define: Any, model: Model):
    definition = define()
    first = build_live(definition)
    definition.text_template = "{title} {brand}"
    definition.source.text_template = "{title} {brand}"
    definition.source.save()
    second = build_live(definition)
    model.refused = {"New"}

    assert put(row(1, title="New", price=3)).accepted == 1

    assert held(second, "i1", "title", "price") == ["New", "3"]
    # Its vector and its text's digest stay, so that they still belong together.
    assert held(first, "i1", "price") == ["3"]
    assert np.allclose(vector_held(first, "i1"), vector_of("Thing 1"), atol=1e-6)
    model.refused = set()
    put(row(1, title="New", price=4))
    assert np.allclose(vector_held(first, "i1"), vector_of("New"), atol=1e-6)


def test_a_thousand_items(live: IndexBuild, model: Model):
    outcome = put(*(row(number, title=f"Thing {number % 10}") for number in range(1000)))

    assert (outcome.accepted, outcome.refused) == (1000, [])
    assert len(model.texts) == 10
    assert counted(live) == (1000, 1000)


def test_texts_may_hold_what_the_database_would_not(live: IndexBuild):
    assert put(row(1, attributes={"extra": "a\0b"})).accepted == 1
    assert put({"id": "i1", "price": 2}).accepted == 1
    assert held(live, "i1", "extra") == ["a\0b"]
