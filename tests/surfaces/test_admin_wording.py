"""Configurations in words: nothing that publishing changes may stay unsaid."""

import pytest

from enrichment.spec import SignalSpec, SourceSpec
from surfaces.admin.wording import describe, differences
from surfaces.document import (
    FallbackMode,
    FilterSpec,
    Operator,
    RerankSpec,
    SurfaceDocument,
    TermKind,
    TermSpec,
    ValueFrom,
    WhenMissing,
)

pytestmark = pytest.mark.unit

SOURCE = SourceSpec(
    slug="prefs", table="prefs", key_template="USER#{user_id}", signals=(SignalSpec(name="likes", attribute="l"),)
)  # fmt: skip
DOCUMENT = SurfaceDocument(
    slug="shelf",
    name="Shelf",
    index="products",
    candidates=100,
    limit=12,
    max_limit=48,
    deadline_ms=100,
    fields=("title", "price"),
    filters=(FilterSpec(field="region", value_from=ValueFrom.CONTEXT, key="region"),),
    sources=(SOURCE,),
    reranker=RerankSpec(kind="linear", terms=(TermSpec(kind=TermKind.SIMILARITY, weight=1),)),
    seed_signal="likes",
    default_query="gifts",
    browse_field="rating",
    fallback_item_ids=("sku-1",),
)


def with_filter(**changes):
    return {"filters": (DOCUMENT.filters[0].model_copy(update=changes),)}


def with_source(**changes):
    return {"sources": (SOURCE.model_copy(update=changes),)}


def with_term(**term):
    return {"reranker": RerankSpec(kind="linear", terms=(TermSpec(**term),))}


CHANGES = {
    "slug": {"slug": "other"},
    "name": {"name": "Other"},
    "index": {"index": "other"},
    "candidates": {"candidates": 50},
    "limit": {"limit": 6},
    "max_limit": {"max_limit": 24},
    "deadline_ms": {"deadline_ms": 50},
    "fields": {"fields": ("title",)},
    "filters": {"filters": ()},
    "sources": {"sources": ()},
    "reranker": {"reranker": RerankSpec()},
    "seed_signal": {"seed_signal": ""},
    "default_query": {"default_query": "deals"},
    "browse_field": {"browse_field": "price"},
    "browse_descending": {"browse_descending": False},
    "fallback": {"fallback": FallbackMode.FAIL},
    "fallback_item_ids": {"fallback_item_ids": ("sku-2",)},
}
PARTS_OF_PARTS = {
    "filter field": with_filter(field="brand"),
    "filter operator": with_filter(operator=Operator.NONE_OF),
    "filter origin": with_filter(value_from=ValueFrom.CALLER),
    "filter values": with_filter(value_from=ValueFrom.STATIC, values=("us",)),
    "filter key": with_filter(key="country"),
    "filter without value": with_filter(when_missing=WhenMissing.REFUSE),
    "source table": with_source(table="other"),
    "source region": with_source(region="eu-west-1"),
    "source key": with_source(key_template="U#{user_id}"),
    "source sort key": with_source(sort_key="sk", sort_key_template="PREFS"),
    "source timeout": with_source(timeout_ms=10),
    "source need": with_source(required=True),
    "source signals": with_source(signals=(SignalSpec(name="likes", attribute="m"),)),
    "term weight": with_term(kind=TermKind.SIMILARITY, weight=2),
    "term kind": with_term(kind=TermKind.FIELD, weight=1, field="rating"),
    "term signal": with_term(kind=TermKind.SIGNAL, weight=1, name="likes", field="brand"),
}


def test_each_field_of_the_document_has_a_change_below():
    assert CHANGES.keys() == SurfaceDocument.model_fields.keys()


@pytest.mark.parametrize("change", [*CHANGES.values(), *PARTS_OF_PARTS.values()])
def test_every_change_is_said(change):
    draft = DOCUMENT.model_copy(update=change)
    found = differences(DOCUMENT, draft)
    assert len(found) == 1
    assert found[0].removed or found[0].added


def test_no_change_says_nothing():
    assert differences(DOCUMENT, DOCUMENT.model_copy()) == []


def test_only_the_lines_that_differ_are_shown():
    more = (*DOCUMENT.filters, FilterSpec(field="price", value_from=ValueFrom.CALLER))
    (change,) = differences(DOCUMENT, DOCUMENT.model_copy(update={"filters": more}))
    assert change == ("Filters", (), ("price: open to callers",))


def test_another_order_is_a_change():
    (change,) = differences(DOCUMENT, DOCUMENT.model_copy(update={"fields": ("price", "title")}))
    assert change.added == ("The same in another order: price, title",)


def test_against_nothing_everything_is_added():
    found = differences(None, DOCUMENT)
    assert [change.label for change in found] == list(describe(DOCUMENT))
    assert not any(change.removed for change in found)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (FilterSpec(field="in_stock", values=("true",)), "in_stock is any of true"),
        (
            FilterSpec(field="price", operator=Operator.AT_MOST, values=("30",)),
            "price is at most 30",
        ),
        (
            FilterSpec(
                field="region",
                value_from=ValueFrom.CONTEXT,
                key="region",
                when_missing=WhenMissing.NOTHING,
            ),
            "region is any of the request's “region” (matches nothing when missing)",
        ),
        (
            FilterSpec(field="brand", value_from=ValueFrom.CALLER, when_missing=WhenMissing.REFUSE),
            "brand: open to callers (request refused when missing)",
        ),
    ],
)
def test_filters_read_as_sentences(item, words):
    assert describe(DOCUMENT.model_copy(update={"filters": (item,)}))["Filters"] == (words,)
