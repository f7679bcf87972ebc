"""The API over the real engine, model and table: nothing between the socket and the stores is replaced."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from enrichment.spec import SignalSpec, SourceSpec
from surfaces.buckets import bucket
from surfaces.contracts import RecommendResponse
from surfaces.document import Canary, RerankSpec, TermKind, TermSpec
from tests.surfaces.api.conftest import Api, Publish, assert_problem, open_to_callers, surface

FIELDS = ("title", "brand", "price")


@pytest.fixture
def shop(publish: Publish, built_index: Any, dynamodb_table: Any) -> str:
    """A search surface with a reranker that follows the brands a user likes."""
    table = dynamodb_table([{"pk": "USER#u1", "brands": {"Volt": Decimal("0.9")}}])
    publish(
        surface(
            "search",
            index="products",
            fields=FIELDS,
            limit=5,
            max_limit=20,
            deadline_ms=3000,
            filters=open_to_callers("brand", "category", "price"),
            sources=(
                SourceSpec(
                    slug="tastes",
                    table=table,
                    key_template="USER#{user_id}",
                    timeout_ms=2000,
                    signals=(SignalSpec(name="brands", attribute="brands"),),
                ),
                SourceSpec(
                    slug="gone",
                    table=f"{table}-gone",
                    key_template="REGION#{region}",
                    timeout_ms=2000,
                    signals=(SignalSpec(name="trends", attribute="trends"),),
                ),
            ),
            reranker=RerankSpec(
                kind="linear",
                terms=(
                    TermSpec(kind=TermKind.SIMILARITY, weight=1.0),
                    TermSpec(kind=TermKind.SIGNAL, weight=2.0, name="brands", field="brand"),
                ),
            ),
        ),
        indexes={"products": built_index.live},
    )
    return "search"


def answer(response: Any) -> RecommendResponse:
    assert response.status_code == 200, response.content
    return RecommendResponse.model_validate(orjson.loads(response.content))


@pytest.mark.django_db
def test_a_request_makes_no_sql_query(api: Api, shop: str, django_assert_num_queries: Any):
    body = {"query": "wireless headphones", "user_id": "u1", "filters": {"price": {"lte": 500}}}

    with django_assert_num_queries(0):
        found = answer(api.post(shop, body))
        api.get(shop, "query=shoes")
        api.page({"requests": [{"surface": shop, "query": "tent"}]})
        api.post(shop, {"limit": "wrong"})
        api.post("nope", {})

    assert found.items
    assert found.fallback is None
    assert found.build is not None


def test_a_query_finds_filters_and_explains(api: Api, shop: str):
    found = answer(
        api.post(
            shop,
            {
                "query": "running shoes",
                "filters": {"category": ["shoes"], "price": {"lte": 125}},
                "explain": True,
            },
        )
    )

    assert found.items[0].fields["title"] == "Trail running shoes with grippy sole"
    assert all(item.fields["price"] <= 125 for item in found.items)
    assert [item.rank for item in found.items] == list(range(1, len(found.items) + 1))
    first = found.items[0]
    assert first.explanation is not None
    assert sum(first.explanation.parts.values()) == pytest.approx(first.score, abs=1e-6)
    assert found.debug is not None
    assert "KNN" in (found.debug.search or "")
    assert found.timings_ms["total"] >= found.timings_ms["search"] > 0


def test_get_filters_as_post_does(api: Api, shop: str):
    by_post = answer(
        api.post(shop, {"query": "laptop", "filters": {"brand": ["Volt"], "price": {"gte": 100}}})
    )
    by_get = answer(api.get(shop, "query=laptop&filters[brand]=Volt&filters[price][gte]=100"))

    assert by_post.items
    assert by_get.items == by_post.items


def test_what_a_user_likes_moves_items_up(api: Api, shop: str):
    anonymous = answer(api.post(shop, {"query": "wireless mouse", "limit": 20}))
    known = answer(api.post(shop, {"query": "wireless mouse", "limit": 20, "user_id": "u1"}))

    def best(found: RecommendResponse) -> int:
        return next(item.rank for item in found.items if item.fields["brand"] == "Volt")

    assert best(known) == 1 < best(anonymous)
    assert known.degraded == []


def test_a_missing_table_degrades_the_answer_and_is_named(api: Api, shop: str):
    found = answer(api.post(shop, {"query": "sofa", "context": {"region": "us"}}))

    assert found.items[0].fields["title"] == "Three seat fabric sofa"
    assert [(entry.stage, entry.reason) for entry in found.degraded] == [
        ("enrichment:gone", "rejected")
    ]


def test_an_awkward_brand_is_found_by_its_exact_name_or_refused_by_name(
    api: Api, shop: str, built_index: Any
):
    brands = {product["brand"] for product in built_index.products}
    awkward = [brand for brand in brands if not brand.isalpha()]
    assert len(awkward) > 3
    for brand in awkward:
        response = api.post(shop, {"query": "anything", "filters": {"brand": brand}})
        if brand.endswith("*"):
            assert_problem(response, 400, "bad_request", "filters.brand")
        else:
            assert {item.fields["brand"] for item in answer(response).items} == {brand}


def test_items_similar_to_an_item_do_not_hold_it(api: Api, shop: str, built_index: Any):
    product = next(p for p in built_index.products if p["title"].startswith("Trail running"))

    found = answer(api.get(shop, f"item_ids={product['id']}"))

    assert found.items[0].fields["title"] == "Road running shoes, cushioned"
    assert product["id"] not in [item.id for item in found.items]


@pytest.fixture
def tried(publish: Publish, built_index: Any) -> str:
    """A surface with a canary of half the traffic; the same physical index under another label."""
    other = built_index.live.model_copy(update={"label": "products-v2"})
    publish(
        surface("tried", index="products", fields=FIELDS, deadline_ms=3000),
        surface("beside", index="products", fields=FIELDS, deadline_ms=3000),
        indexes={"products": built_index.live},
        canaries={"products": Canary(percent=50, index=other)},
    )
    return "tried"


@pytest.mark.django_db
def test_a_canary_answers_its_sessions_and_says_so(
    api: Api, tried: str, django_assert_num_queries: Any
):
    asked = {f"session-{n}": {"query": "sofa", "session_id": f"session-{n}"} for n in range(20)}
    with django_assert_num_queries(0):
        found = {session: answer(api.post(tried, body)) for session, body in asked.items()}
    expected = {s for s in asked if bucket("canary:products-v2", s) < 0.5}
    assert 0 < len(expected) < len(asked)
    assert {s for s, one in found.items() if one.variant == "canary"} == expected
    for one in found.values():
        assert one.build == ("products-v2" if one.variant else "products-v1")
        assert (one.items[0].fields["title"], one.fallback) == ("Three seat fabric sofa", None)


def test_surfaces_of_a_page_are_on_one_side(api: Api, tried: str):
    for number in range(10):
        entries = [{"surface": slug, "query": "sofa"} for slug in (tried, "beside") * 2]
        response = api.page({"requests": entries}, X_Request_Id=f"page-{number}")
        builds = {entry["build"] for entry in orjson.loads(response.content)["responses"]}
        assert len(builds) == 1


def test_a_canary_is_told_apart_in_the_log(api: Api, tried: str):
    with capture_logs() as logs:
        for number in range(10):
            api.post(tried, {"query": "sofa", "session_id": f"session-{number}"})
    lines = [line for line in logs if line["event"] == "recommend"]
    told = {(line["build"], line.get("variant")) for line in lines}
    assert told == {("products-v1", None), ("products-v2", "canary")}


def test_an_unknown_item_is_answered_and_told(api: Api, shop: str):
    found = answer(api.post(shop, {"item_ids": ["no-such-item"]}))

    assert ("seed", "unknown_items") in [(entry.stage, entry.reason) for entry in found.degraded]
    assert found.items
