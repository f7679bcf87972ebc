from dataclasses import replace

import pytest

from indexes.filters import AnyOf, Range
from surfaces.document import PublishedSurface, RerankSpec
from surfaces.plan import compile_plan
from surfaces.rerank.none import Retrieved
from tests.surfaces.builders import (
    bound,
    by_field,
    by_signal,
    document,
    field,
    index_spec,
    linear,
    live_index,
    opened,
    plan,
    similar,
    source,
    static,
)

pytestmark = pytest.mark.unit


def test_fixed_clauses_are_parsed_ahead():
    made = plan(filters=(static("brand", "acme", "zen"), static("price", "30", operator="at_most")))
    assert made.static == (AnyOf("brand", ("acme", "zen")), Range("price", lte=30))


def test_clauses_of_the_request_wait_for_it():
    made = plan(filters=(bound("region", "region"), opened("price")))
    assert made.static == ()
    assert [(item.field.name, item.key) for item in made.context] == [("region", "region")]
    assert list(made.caller) == ["price"]


def test_fields_of_the_reranker_are_fetched_but_not_answered():
    made = plan(
        fields=("title",), reranker=linear(similar(), by_field("rating"), by_field("price"))
    )
    assert made.fields == ("title",)
    assert made.fetched == ("title", "rating", "price")


def test_default_items_hold_what_is_filtered_by():
    made = plan(fields=("title",), filters=(bound("region", "region"), opened("title")))
    assert made.held == ("title", "region")


def test_no_fields_named_means_all_returned_ones():
    hidden = replace_field("brand", returned=False)
    made = plan(fields=(), index=live_index(fields=hidden))
    assert made.fields == ("title", "category", "price", "rating", "in_stock", "region", "image")


def replace_field(name, **changes):
    return tuple(
        one.model_copy(update=changes) if one.name == name else one for one in index_spec().fields
    )


def test_part_of_the_deadline_is_kept_for_the_answer():
    assert plan(deadline_ms=100).budget_s == pytest.approx(0.095)
    assert plan(deadline_ms=1000).budget_s == pytest.approx(0.995)
    assert plan(deadline_ms=10).budget_s == pytest.approx(0.0095)


def test_a_source_gets_no_more_time_than_the_request():
    made = plan(sources=(source(timeout_ms=500),), deadline_ms=80)
    assert made.sources[0].spec.timeout_ms == 80
    assert made.sources[0].keys == ("user_id",)
    assert made.sources[0].stage == "enrichment:prefs"


@pytest.mark.parametrize(
    ("metric", "normalize", "expected"),
    [("COSINE", False, True), ("IP", True, True), ("IP", False, False), ("L2", False, False)],
)
def test_vectors_are_made_unit_where_length_means_nothing(metric, normalize, expected):
    endpoint = index_spec().endpoint.model_copy(update={"normalize": normalize})
    assert plan(index=live_index(metric=metric, endpoint=endpoint)).normalize is expected


def test_without_an_index_any_document_compiles_to_its_default_list():
    published = PublishedSurface(
        revision=3,
        document=document(filters=(static("nosuch", "x"),), reranker=RerankSpec(kind="nosuch")),
    )
    made = compile_plan(published, None, unavailable="does_not_compile")
    assert made.index is None
    assert made.unavailable == "does_not_compile"
    assert made.build is None
    assert isinstance(made.reranker, Retrieved)


def test_a_plan_names_its_build():
    assert plan().build == "products-v1"
    assert replace(plan(), index=None).build is None


def test_a_document_survives_its_trip_through_json():
    given = document(
        filters=(static("brand", "acme"), bound("region", "region")),
        sources=(source("a", "s"),),
        reranker=linear(similar(), by_signal("s", field="brand")),
    )
    assert type(given).model_validate_json(given.model_dump_json()) == given


def test_caller_filter_knows_its_field():
    assert plan(filters=(opened("price"),)).caller["price"].field == field("price")
