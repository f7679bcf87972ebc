"""Requests through everything that is real: index, endpoint, DynamoDB, registry."""

import socket
import subprocess
import sys
import time

import pytest
from structlog.testing import capture_logs

from enrichment.models import EnrichmentSource, Signal
from indexes.schema import EndpointSpec
from surfaces import keys, publishing, snapshot, wiring
from surfaces.contracts import RecommendRequest
from surfaces.models import Reranker, RerankTerm, Surface
from surfaces.pipeline import recommend
from tests.surfaces.builders import ids, live_index, plan, source


@pytest.fixture
def sources(db, dynamodb_table):
    """Two tables: what a user likes and has seen, and what is trending in a region."""
    prefs = EnrichmentSource.objects.create(
        slug="prefs",
        timeout_ms=2000,
        key_template="USER#{user_id}",
        table=dynamodb_table(
            [{"pk": "USER#u1", "brands": {"Strada": 1}, "viewed": ["sku-9", "sku-10"]}]
        ),
    )
    trending = EnrichmentSource.objects.create(
        slug="trending",
        timeout_ms=2000,
        key_template="TRENDING#{region}",
        table=dynamodb_table([{"pk": "TRENDING#us", "items": {"sku-14": 3}}]),
    )
    Signal.objects.create(source=prefs, name="brands")
    Signal.objects.create(source=prefs, name="viewed")
    Signal.objects.create(source=trending, name="trending", attribute="items")
    return [prefs, trending]


@pytest.fixture
def published(surface, sources, add_filter, serving):
    """A surface with all there is, published and loaded."""
    reranker = Reranker.objects.create(slug="mix", name="Mix")
    for kind, signal, field, weight in (
        ("similarity", "", "", 1),
        ("field", "", "rating", 0.1),
        ("signal", "brands", "brand", 0.2),
        ("signal", "trending", "", 0.3),
    ):
        RerankTerm.objects.create(
            reranker=reranker, kind=kind, signal=signal, field=field, weight=weight
        )
    add_filter("in_stock", "true", position=1)
    add_filter("region", value_from="context", key="region", position=2)
    add_filter("price", value_from="caller", position=3)
    surface.reranker = reranker
    surface.sources.set(sources)
    surface.seed_signal = "viewed"
    surface.save()
    publishing.publish(surface)
    snapshot.push()
    serving.prepare = wiring.warm
    serving.refresh()
    return serving


@pytest.fixture
def ask(published, django_assert_num_queries):
    """Ask the published surface; a request that asks the database fails."""
    plan = published.plan("shelf")

    def ask(**request):
        with django_assert_num_queries(0):
            return recommend(plan, RecommendRequest(**request), wiring.stages(), request_id="r1")

    return ask


def test_a_query_with_everything_around_it(ask, built_index):
    response = ask(
        query="running shoes", user_id="u1", context={"region": "us"}, filters={"price": {"lte": 150}}, limit=5, explain=True
    )  # fmt: skip
    assert response.fallback is None
    assert response.degraded == []
    assert response.build == built_index.live.label
    assert {"sku-9", "sku-10"} < set(ids(response))
    assert all(item.fields["price"] <= 150 for item in response.items)
    for item in response.items:
        assert sum(item.explanation.parts.values()) == pytest.approx(item.score, abs=1e-6)
    by_id = {item.id: item.explanation.parts for item in response.items}
    assert by_id["sku-14"]["signal:trending"] == pytest.approx(0.9)
    assert response.debug.search.startswith("FT.SEARCH")
    assert response.debug.signals["brands"] == {"Strada": 1.0}


def test_likes_change_the_order(ask):
    plain = ids(ask(query="white sneakers and shoes", limit=10))
    liking = ids(ask(query="white sneakers and shoes", user_id="u1", limit=10))
    assert liking.index("sku-12") <= plain.index("sku-12")
    assert liking[0] == "sku-12"


def test_items_that_were_viewed_lead_to_others_like_them(ask):
    response = ask(user_id="u1", explain=True)
    assert response.debug.retrieval == "signal"
    assert not {"sku-9", "sku-10"} & set(ids(response))
    assert {"sku-12", "sku-14"} & set(ids(response)[:4])


def test_similar_items(ask):
    response = ask(item_ids=["sku-31"])
    assert "sku-31" not in ids(response)
    assert "sku-32" in ids(response)[:3]


def test_browsing_for_a_stranger(ask):
    response = ask(user_id="stranger", explain=True)
    assert response.debug.retrieval == "browse"
    assert response.fallback is None
    assert "sku-59" in ids(response)


def test_an_outage_of_valkey_gives_the_default_list(ask, outage):
    outage.begin()
    response = ask(query="shoes", context={"region": "uk"})
    assert response.fallback.reason == "search:unavailable"
    assert response.items
    outage.end()
    assert ask(query="shoes").fallback is None


def test_a_missing_table_is_degraded(published, ask, sources):
    EnrichmentSource.objects.filter(slug="prefs").update(table="no-such-table")
    surface = Surface.objects.get()
    publishing.publish(surface)
    snapshot.push()
    published.refresh()
    plan = published.plan("shelf")
    response = recommend(
        plan, RecommendRequest(query="shoes", user_id="u1"), wiring.stages(), request_id="r"
    )
    assert [(d.stage, d.reason) for d in response.degraded] == [("enrichment:prefs", "rejected")]
    assert response.items


def test_an_endpoint_that_does_not_exist_gives_the_default_list(surface, serving, definition):
    build = definition.live_build
    build.spec["endpoint"]["endpoint_name"] = "no-such-endpoint"
    build.fingerprint = build.to_spec().fingerprint
    build.save()
    publishing.publish(Surface.objects.get())
    snapshot.push()
    serving.refresh()
    with capture_logs():
        response = recommend(
            serving.plan("shelf"), RecommendRequest(query="x"), wiring.stages(), request_id="r"
        )
    assert response.fallback is not None
    assert response.fallback.reason == "embed:rejected"
    assert response.items


def within_a_second(condition):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 1
        time.sleep(0.01)


@pytest.mark.django_db(transaction=True)
def test_a_publish_is_served_within_a_second(surface, serving):
    publishing.publish(surface)
    serving.start()
    assert serving.plan("shelf").revision == 1
    surface.limit = 3
    surface.save()
    publishing.publish(surface)
    within_a_second(lambda: serving.plan("shelf").revision == 2)
    assert serving.plan("shelf").document.limit == 3


@pytest.mark.django_db(transaction=True)
def test_a_key_works_within_a_second_and_no_longer_once_revoked(surface, serving):
    publishing.publish(surface)
    serving.start()
    key, plaintext = keys.issue("shop")
    within_a_second(lambda: serving.scope(keys.digest(plaintext)) is not None)
    keys.revoke(key)
    within_a_second(lambda: serving.scope(keys.digest(plaintext)) is None)
    assert serving.plan("shelf") is not None


def test_warming_makes_the_first_call_and_survives_its_failure(endpoint_spec):
    gone = endpoint_spec.model_copy(update={"endpoint_name": "no-such-endpoint"})
    with capture_logs() as logs:
        wiring.warm([plan(index=live_index(endpoint=endpoint_spec))], timeout_s=30)
        assert logs == []
        wiring.warm([plan(index=live_index(endpoint=gone), sources=(source(),))], timeout_s=30)
        wiring.warm([plan(index=live_index(endpoint=gone))], timeout_s=30)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("endpoint not checked", "rejected")
    ]


def test_endpoints_that_hang_are_warmed_side_by_side_and_hold_nothing_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        hanging.settimeout(10)
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", address)
        # Clients are kept by region: these get theirs from this test.
        plans = [
            plan(
                deadline_ms=20_000,
                index=live_index(
                    endpoint=EndpointSpec(
                        slug=slug,
                        endpoint_name=slug,
                        region="hanging-1",
                        dimension=3,
                        timeout_ms=20_000,
                    )
                ),
            )
            for slug in ("one", "two")
        ]
        started = time.monotonic()
        wiring.warm(plans, timeout_s=0.1)
        assert time.monotonic() - started < 5
        # One after the other, the second would call in twenty seconds.
        for _ in plans:
            connection, _ = hanging.accept()
            connection.close()
        # What they log on their way out must not show up in another test.
        wiring.warm(plans, timeout_s=30)


def test_threads_belong_to_the_process():
    assert wiring.stages() is wiring.stages()


@pytest.mark.unit
def test_the_hot_path_does_not_load_the_orm():
    code = (
        "import sys, surfaces.wiring, surfaces.pipeline, surfaces.registry;"
        "print([m for m in sys.modules if m.startswith('django.db')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
