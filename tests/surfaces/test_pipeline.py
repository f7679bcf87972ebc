import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from enrichment.errors import (
    EnrichmentRejected,
    EnrichmentThrottled,
    EnrichmentTimeout,
    EnrichmentUnavailable,
)
from indexes.errors import (
    EmbeddingContract,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingTimeout,
    EmbeddingUnavailable,
    SearchIndexMissing,
    SearchRejected,
    SearchTimeout,
    SearchUnavailable,
)
from surfaces.document import FallbackMode, PublishedSurface
from surfaces.errors import BadRequest, ServiceUnavailable
from surfaces.plan import compile_plan
from surfaces.trace import STAGES
from tests.fakes.embedder import vector_of
from tests.surfaces.builders import (
    DIMENSION,
    PRODUCTS,
    Fakes,
    bound,
    by_field,
    by_signal,
    document,
    ids,
    linear,
    live_index,
    opened,
    plan,
    similar,
    source,
    static,
)

pytestmark = pytest.mark.unit

# Less than the fakes' gates wait: whoever is back by then did not wait for them.
PATIENCE_S = 4.0
FAILING_FAST: Any = {"fallback": FallbackMode.FAIL}


class Gate(threading.Event):
    """A gate that tells when somebody stands before it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)


@pytest.fixture
def fakes():
    return Fakes()


# --- Where a search starts from ---------------------------------------------------------------


def test_a_query_finds_what_is_near_it(fakes):
    response = fakes.ask(plan(), query=" running shoes ")
    assert set(ids(response)[:2]) == {"s1", "s2"}
    assert fakes.embedder.texts == ["running shoes"]
    assert response.fallback is None
    assert response.degraded == []
    assert (response.surface, response.revision, response.build) == ("shelf", 7, "products-v1")
    assert response.request_id == "r1"


def test_answers_hold_the_surfaces_fields_ranked_from_one(fakes):
    made = plan(reranker=linear(similar(), by_field("rating", 0.1)))
    response = fakes.ask(made, query="red running shoes")
    assert [item.rank for item in response.items] == [1, 2, 3]
    assert response.items[0].fields == {"title": "red running shoes", "price": 50}
    assert response.items[0].explanation is None
    assert response.debug is None


def test_items_find_what_is_like_them_and_are_not_returned(fakes):
    response = fakes.ask(plan(), item_ids=["s1"], explain=True)
    assert ids(response)[0] == "s2"
    assert "s1" not in ids(response)
    assert response.debug.retrieval == "items"
    assert fakes.embedder.texts == []


def test_query_and_items_meet_in_the_middle(fakes):
    response = fakes.ask(plan(), query="cream", item_ids=["s1"], explain=True)
    assert response.debug.retrieval == "query+items"
    asked = fakes.index.asked[-1]["vector"]
    toward_text = float(asked @ vector_of("cream", DIMENSION))
    toward_item = float(asked @ fakes.index.items_by_id["s1"][0])
    assert toward_text == pytest.approx(toward_item, abs=1e-5)
    assert toward_text > 0.5
    assert "s1" not in ids(response)


def test_known_items_are_used_and_unknown_ones_passed_over(fakes):
    response = fakes.ask(plan(), item_ids=["nosuch", "s1"])
    assert ids(response)[0] == "s2"
    assert response.degraded == []


def test_unknown_items_beside_a_query_leave_the_query(fakes):
    response = fakes.ask(plan(), query="running shoes", item_ids=["nosuch"], explain=True)
    assert set(ids(response)[:2]) == {"s1", "s2"}
    assert response.debug.retrieval == "query"
    assert [(d.stage, d.reason) for d in response.degraded] == [("seed", "unknown_items")]
    assert response.fallback is None


def test_opposite_items_do_not_cancel_out(fakes):
    vector, fields = fakes.index.items_by_id["s1"]
    fakes.index.items_by_id["mirror"] = (-vector, fields)
    response = fakes.ask(plan(), item_ids=["s1", "mirror"])
    assert ids(response)[0] == "s2"


def test_without_a_query_the_liked_items_lead(fakes):
    made = plan(sources=(source(),), seed_signal="liked")
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": {"c1": 2.0, "gone": 9.0, "s1": -1.0}}}
    response = fakes.ask(made, user_id="u1", explain=True)
    assert ids(response)[0] == "c2"
    assert "c1" not in ids(response)
    assert response.debug.retrieval == "signal"
    assert response.degraded == []


def test_liked_items_count_by_their_weight(fakes):
    made = plan(sources=(source(),), seed_signal="liked")
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": {"c1": 9.0, "s1": 1.0}}}
    fakes.ask(made, user_id="u1")
    asked = fakes.index.asked[-1]["vector"]
    vectors = {i: fakes.index.items_by_id[i][0] for i in ("c1", "s1")}
    expected = 9 * vectors["c1"] + vectors["s1"]
    assert asked == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_only_the_most_liked_items_lead(fakes):
    made = plan(sources=(source(),), seed_signal="liked")
    liked = {f"x{n}": float(n) for n in range(1, 80)}
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": liked}}
    fakes.ask(made, user_id="u1")
    [asked] = [a["ids"] for a in fakes.index.asked if "ids" in a]
    assert asked == [f"x{n}" for n in range(79, 29, -1)]


def test_seed_vectors_survive_the_largest_weights(fakes):
    made = plan(sources=(source(),), seed_signal="liked")
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": {"c1": 1.7e308, "c2": 1.7e308}}}
    response = fakes.ask(made, user_id="u1")
    assert response.fallback is None
    assert all(math.isfinite(item.score) for item in response.items)


def test_the_starts_follow_each_other(fakes):
    starts: Any = {"sources": (source(),), "seed_signal": "liked", "default_query": "cream"}
    fakes.sources.tables["prefs"] = {}
    response = fakes.ask(plan(**starts, browse_field="price"), user_id="u1", explain=True)
    assert response.debug.retrieval == "default_query"
    assert set(ids(response)[:2]) == {"c1", "c2"}
    response = fakes.ask(plan(default_query="cream", browse_field="price"), explain=True)
    assert response.debug.retrieval == "default_query"
    response = fakes.ask(plan(sources=(source(),), seed_signal="liked", browse_field="price"), explain=True)  # fmt: skip
    assert response.debug.retrieval == "browse"


@pytest.mark.parametrize(("highest", "first"), [(True, "s3"), (False, "c1")])
def test_browsing_lists_by_a_number(fakes, highest, first):
    response = fakes.ask(plan(browse_field="price", browse_descending=highest))
    assert ids(response)[0] == first
    assert [item.score for item in response.items] == [0.0, 0.0, 0.0]
    assert response.timings_ms["embed"] == 0.0


def test_browsing_is_reranked_too(fakes):
    made = plan(
        browse_field="price", candidates=6, max_limit=6, reranker=linear(by_field("rating"))
    )
    assert ids(fakes.ask(made))[0] == "c1"


def test_no_liked_items_and_no_other_start_give_the_default_list(fakes):
    made = plan(sources=(source(),), seed_signal="liked")
    fakes.sources.tables["prefs"] = {}
    for request in ({"user_id": "u1"}, {}):
        response = fakes.ask(made, **request)
        assert response.fallback.reason == "seed:no_signal"
        assert ids(response) == ["c1", "s1"]
        assert response.degraded == []


def test_liked_items_that_are_gone_give_the_next_start(fakes):
    made = plan(sources=(source(),), seed_signal="liked", browse_field="price")
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": {"gone": 1.0}}}
    assert fakes.ask(made, user_id="u1", explain=True).debug.retrieval == "browse"


def test_unknown_items_alone_go_on_as_if_none_were_given(fakes):
    response = fakes.ask(plan(browse_field="price"), item_ids=["nosuch"], explain=True)
    assert response.debug.retrieval == "browse"
    assert [(d.stage, d.reason) for d in response.degraded] == [("seed", "unknown_items")]
    assert response.fallback is None


def test_unknown_items_alone_end_in_the_default_list(fakes):
    response = fakes.ask(plan(), item_ids=["nosuch"])
    assert response.fallback.reason == "seed:unknown_items"
    assert [(d.stage, d.reason) for d in response.degraded] == [("seed", "unknown_items")]
    assert ids(response) == ["c1", "s1"]


def test_nothing_to_start_from_is_a_bad_request(fakes):
    with pytest.raises(BadRequest) as caught:
        fakes.ask(plan())
    assert [error.field for error in caught.value.errors] == ["query"]
    assert fakes.index.calls == []


# --- Filters, exclusions and limits -----------------------------------------------------------


def test_filters_hold_for_every_start(fakes):
    filters = (static("in_stock", "true"), bound("region", "region"), opened("price"))
    fakes.sources.tables["prefs"] = {"USER#u1": {"liked": {"s3": 1.0}}}
    starts: dict[str, Any] = {
        "query": ({"query": "shoes"}, {}),
        "items": ({"item_ids": ["s3"]}, {}),
        "browse": ({}, {"browse_field": "price"}),
        "signal": ({"user_id": "u1"}, {"seed_signal": "liked", "sources": (source(),)}),
    }
    for start, (request, changes) in starts.items():
        response = fakes.ask(
            plan(filters=filters, **changes),
            **request,
            context={"region": "eu"},
            filters={"price": {"lte": 50}},
            explain=True,
        )
        assert response.debug.retrieval == start
        assert set(ids(response)) == {"s1", "c1"}


def test_excluded_items_are_left_out_and_made_up_for(fakes):
    everything = fakes.ask(plan(limit=5), query="shoes")
    excluded = ids(everything)[:2]
    response = fakes.ask(plan(limit=4, candidates=4), query="shoes", exclude_ids=excluded)
    assert not set(ids(response)) & set(excluded)
    assert len(response.items) == 4
    assert fakes.index.asked[-1]["k"] == 6


def test_only_the_candidates_are_reranked(fakes):
    made = plan(candidates=2, limit=2, max_limit=2, reranker=linear(by_field("price", -1)))
    response = fakes.ask(made, query="running shoes", exclude_ids=["c1", "c2", "p1"])
    assert ids(response) == ["s1", "s2"]


def test_fewer_items_than_asked_for(fakes):
    response = fakes.ask(plan(filters=(static("category", "skin"),)), query="cream", limit=5)
    assert len(response.items) == 2
    assert response.fallback is None


def test_a_limit_above_the_surfaces_is_refused(fakes):
    with pytest.raises(BadRequest):
        fakes.ask(plan(max_limit=5), query="x", limit=6)


def test_a_filter_that_matches_nothing_asks_no_stage(fakes):
    made = plan(filters=(bound("region", "region", missing="nothing"),), sources=(source(),))
    response = fakes.ask(made, query="shoes", user_id="u1")
    assert (response.items, response.fallback, response.degraded) == ([], None, [])
    assert (fakes.embedder.texts, fakes.index.calls, fakes.sources.fetched) == ([], [], [])


# --- Signals and scores -----------------------------------------------------------------------


def test_signals_rerank(fakes):
    made = plan(
        sources=(source("prefs", "brands"), source("hot", "hot", key_template="HOT")),
        reranker=linear(similar(), by_signal("brands", 0.5, "brand"), by_signal("hot", 2.0)),
    )
    fakes.sources.tables = {
        "prefs": {"USER#u1": {"brands": {"zen": 1.0}}},
        "hot": {"HOT": {"hot": {"s3": 1.0}}},
    }
    response = fakes.ask(made, query="running shoes", user_id="u1")
    assert ids(response) == ["s3", "s2", "s1"]


def test_explained_parts_add_up_to_the_score(fakes):
    made = plan(
        sources=(source("prefs", "brands", "age_n"),),
        reranker=linear(
            similar(0.7), by_field("rating", 0.2), by_signal("brands", 0.3, "brand"), by_signal("age_n", 0.01)
        ),
    )  # fmt: skip
    fakes.sources.tables["prefs"] = {"USER#u1": {"brands": {"zen": 0.4}, "age_n": 33}}
    response = fakes.ask(made, query="running shoes", user_id="u1", explain=True)
    for item in response.items:
        parts = item.explanation.parts
        assert set(parts) == {
            "similarity",
            "field:rating",
            "signal:brands:brand",
            "signal:age_n",
        }
        assert sum(parts.values()) == pytest.approx(item.score, abs=1e-6)
        assert item.explanation.similarity == pytest.approx(1 - item.explanation.distance)
    assert sorted(i.explanation.retrieved_rank for i in response.items)[0] == 1
    assert response.debug.signals == {"brands": {"zen": 0.4}, "age_n": 33.0}
    assert response.debug.search
    assert response.debug.candidates >= len(response.items)


def test_missing_signals_count_nothing(fakes):
    made = plan(sources=(source("prefs", "brands"),), reranker=linear(similar(), by_signal("brands", 1, "brand")))  # fmt: skip
    fakes.sources.tables["prefs"] = {}
    response = fakes.ask(made, query="running shoes", user_id="u1", explain=True)
    assert response.degraded == []
    assert all(i.explanation.parts["signal:brands:brand"] == 0.0 for i in response.items)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_reach_no_answer(fakes, bad):
    class Broken:
        def fetch(self, source, values):
            return {"brands": {"acme": bad, "zen": bad}, "age_n": bad}

    fakes.sources = Broken()
    made = plan(
        sources=(source("prefs", "brands", "age_n"),),
        seed_signal="brands",
        reranker=linear(similar(), by_signal("brands", 1, "brand"), by_signal("age_n")),
        browse_field="price",
    )
    for request in ({"query": "shoes", "user_id": "u1"}, {"user_id": "u1"}):
        response = fakes.ask(made, **request, explain=True)
        numbers = [n for i in response.items for n in (i.score, *i.explanation.parts.values())]
        assert all(map(math.isfinite, numbers))
        assert response.items


@pytest.mark.parametrize("distance", [float("nan"), float("inf")])
def test_a_distance_that_is_no_number_counts_as_none(fakes, distance):
    search = fakes.index.knn

    def knn(index, vector, **asked):
        found = search(index, vector, **asked)
        found.hits[0] = type(found.hits[0])(found.hits[0].id, distance, found.hits[0].fields)
        return found

    fakes.index.knn = knn
    response = fakes.ask(plan(reranker=linear(similar())), query="shoes", limit=5, explain=True)
    odd = [item for item in response.items if item.explanation.similarity is None]
    assert [(item.score, item.explanation.distance) for item in odd] == [(0.0, None)]


# --- What fails -------------------------------------------------------------------------------


EMBEDDING_FAILURES = [
    (EmbeddingTimeout(), "timeout"),
    (EmbeddingThrottled(), "throttled"),
    (EmbeddingUnavailable(), "unavailable"),
    (EmbeddingRejected(), "rejected"),
    (EmbeddingContract(), "bad_response"),
    (ZeroDivisionError(), "error"),
]
SEARCH_FAILURES = [
    (SearchTimeout(), "timeout"),
    (SearchUnavailable(), "unavailable"),
    (SearchIndexMissing(), "index_missing"),
    (SearchRejected(), "rejected"),
]
ENRICHMENT_FAILURES = [
    (EnrichmentTimeout(), "timeout"),
    (EnrichmentThrottled(), "throttled"),
    (EnrichmentUnavailable(), "unavailable"),
    (EnrichmentRejected(), "rejected"),
    (KeyError("a fault"), "error"),
]


@pytest.mark.parametrize(("error", "word"), EMBEDDING_FAILURES)
def test_a_failed_embedding_gives_the_fallback(fakes, error, word):
    fakes.embedder.error = error
    response = fakes.ask(plan(), query="shoes")
    assert response.fallback.level == "default_list"
    assert response.fallback.reason == f"embed:{word}"
    assert ids(response) == ["c1", "s1"]
    assert [item.rank for item in response.items] == [1, 2]
    assert fakes.index.calls == []


@pytest.mark.parametrize(("error", "word"), EMBEDDING_FAILURES)
def test_known_items_answer_for_a_failed_embedding(fakes, error, word):
    fakes.embedder.error = error
    response = fakes.ask(plan(), query="cream", item_ids=["s1"], explain=True)
    assert response.fallback is None
    assert ids(response)[0] == "s2"
    assert response.debug.retrieval == "items"
    assert [(d.stage, d.reason) for d in response.degraded] == [("embed", word)]


def test_unknown_items_do_not_answer_for_a_failed_embedding(fakes):
    fakes.embedder.error = EmbeddingUnavailable()
    response = fakes.ask(plan(), query="cream", item_ids=["nosuch"])
    assert response.fallback.reason == "embed:unavailable"
    assert [(d.stage, d.reason) for d in response.degraded] == [("seed", "unknown_items")]


def test_an_embedding_that_took_all_the_time_leaves_none_for_the_items(fakes):
    gate = fakes.embedder.gate = threading.Event()
    response = fakes.ask(plan(deadline_ms=500), query="cream", item_ids=["s1"])
    gate.set()
    assert response.fallback.reason == "embed:timeout"
    assert response.degraded == []
    assert "knn" not in fakes.index.calls


@pytest.mark.parametrize(("error", "word"), SEARCH_FAILURES)
@pytest.mark.parametrize(
    ("request_", "changes", "stage"),
    [
        ({"query": "shoes"}, {}, "search"),
        ({"item_ids": ["s1"]}, {}, "seed"),
        ({"query": "shoes", "item_ids": ["s1"]}, {}, "seed"),
        ({}, {"browse_field": "price"}, "search"),
    ],
)
def test_a_failed_search_gives_the_fallback(fakes, error, word, request_, changes, stage):
    fakes.index.error = error
    response = fakes.ask(plan(**changes), **request_)
    assert response.fallback.reason == f"{stage}:{word}"
    assert "c1" in ids(response)


@pytest.mark.parametrize(("error", "word"), ENRICHMENT_FAILURES)
def test_a_failed_best_effort_source_degrades(fakes, error, word):
    fakes.sources.errors["prefs"] = error
    response = fakes.ask(plan(sources=(source(),)), query="running shoes", user_id="u1")
    assert [(d.stage, d.reason) for d in response.degraded] == [("enrichment:prefs", word)]
    assert response.degraded[0].spent_ms >= 0
    assert response.fallback is None
    assert set(ids(response)[:2]) == {"s1", "s2"}


@pytest.mark.parametrize(("error", "word"), ENRICHMENT_FAILURES)
def test_a_failed_required_source_gives_the_fallback(fakes, error, word):
    fakes.sources.errors["prefs"] = error
    response = fakes.ask(plan(sources=(source(required=True),)), query="shoes", user_id="u1")
    assert response.fallback.reason == f"enrichment:prefs:{word}"
    assert ids(response) == ["c1", "s1"]


def test_one_failed_source_does_not_cost_the_others(fakes):
    fakes.sources.errors["bad"] = EnrichmentUnavailable()
    fakes.sources.tables["good"] = {"USER#u1": {"hot": {"s3": 1.0}}}
    made = plan(
        sources=(source("bad", "liked"), source("good", "hot")), reranker=linear(by_signal("hot"))
    )
    response = fakes.ask(made, query="running shoes", user_id="u1")
    assert ids(response)[0] == "s3"
    assert [d.stage for d in response.degraded] == ["enrichment:bad"]


def test_a_failed_seed_source_goes_on_to_the_next_start(fakes):
    fakes.sources.errors["prefs"] = EnrichmentTimeout()
    made = plan(sources=(source(),), seed_signal="liked", browse_field="price")
    response = fakes.ask(made, user_id="u1", explain=True)
    assert response.debug.retrieval == "browse"
    assert [(d.stage, d.reason) for d in response.degraded] == [("enrichment:prefs", "timeout")]


def test_a_source_without_its_values_is_passed_over_in_silence(fakes):
    response = fakes.ask(plan(sources=(source(),)), query="shoes")
    assert response.degraded == []
    assert fakes.sources.fetched == []


def test_a_required_source_without_its_values_is_a_bad_request(fakes):
    with pytest.raises(BadRequest) as caught:
        fakes.ask(plan(sources=(source(required=True),)), query="shoes")
    assert [error.field for error in caught.value.errors] == ["user_id"]


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (lambda f: setattr(f.embedder, "error", EmbeddingTimeout()), "embed:timeout"),
        (lambda f: setattr(f.index, "error", SearchUnavailable()), "search:unavailable"),
        (
            lambda f: f.sources.errors.update(prefs=EnrichmentThrottled()),
            "enrichment:prefs:throttled",
        ),
    ],
)
def test_a_surface_set_to_fail_fast_says_why(fakes, arrange, reason):
    arrange(fakes)
    with pytest.raises(ServiceUnavailable) as caught:
        fakes.ask(plan(**FAILING_FAST, sources=(source(required=True),)), query="x", user_id="u1")
    assert caught.value.reason == reason
    assert caught.value.slug == "shelf"


def test_a_bad_request_is_told_before_any_failure(fakes):
    fakes.embedder.error = EmbeddingTimeout()
    with pytest.raises(BadRequest):
        fakes.ask(plan(**FAILING_FAST), query="x", filters={"brand": "x"})


@pytest.mark.parametrize("unavailable", ["no_live_build", "does_not_compile"])
def test_nothing_to_search_gives_the_default_list(fakes, unavailable):
    published = PublishedSurface(
        revision=2,
        document=document(filters=(opened("price"),)),
        default_items=plan().published.default_items,
    )
    made = compile_plan(published, None, unavailable=unavailable)
    response = fakes.ask(made, query="shoes", filters={"price": {"lte": 10}}, exclude_ids=["s1"])
    assert response.fallback.reason == f"index:{unavailable}"
    assert ids(response) == ["c1"]
    assert response.items[0].fields == {"title": PRODUCTS["c1"]["title"], "price": 20}
    assert response.build is None
    assert (fakes.embedder.texts, fakes.index.calls) == ([], [])


# --- The default list -------------------------------------------------------------------------


def test_the_default_list_keeps_to_the_request(fakes):
    fakes.embedder.error = EmbeddingTimeout()
    fakes.index.error = SearchUnavailable()
    made = plan(
        filters=(static("in_stock", "true"), bound("region", "region"), opened("price")),
        defaults=("c1", "s3", "s1", "c2", "s2"),
    )
    assert ids(fakes.ask(made, query="x", limit=5)) == ["c1", "s1", "c2", "s2"]
    assert ids(fakes.ask(made, query="x", exclude_ids=["c1"], item_ids=["s1"])) == ["c2", "s2"]
    assert ids(fakes.ask(made, query="x", limit=1)) == ["c1"]
    assert ids(fakes.ask(made, query="x", context={"region": "eu"})) == ["c1", "s1"]
    assert ids(fakes.ask(made, query="x", filters={"price": {"gt": 35}})) == ["s1", "s2"]


def test_default_items_show_the_answers_fields_only(fakes):
    fakes.embedder.error = EmbeddingTimeout()
    [item] = fakes.ask(plan(filters=(opened("brand"),), defaults=["c1"]), query="x").items
    assert item.fields == {"title": PRODUCTS["c1"]["title"], "price": 20}
    assert item.score == 0.0


def test_the_default_list_tells_its_age(fakes):
    fakes.embedder.error = EmbeddingTimeout()
    made_at = datetime.now(UTC) - timedelta(seconds=90)
    base = plan().published.model_copy(update={"default_items_at": made_at})
    response = fakes.ask(compile_plan(base, live_index()), query="x")
    assert 90 <= response.fallback.age_s < 120
    unknown = base.model_copy(update={"default_items_at": None})
    assert fakes.ask(compile_plan(unknown, live_index()), query="x").fallback.age_s is None


# --- Time -------------------------------------------------------------------------------------


def test_a_slow_embedding_is_abandoned_at_the_deadline(fakes):
    fakes.embedder.gate = threading.Event()
    started = time.perf_counter()
    response = fakes.ask(plan(deadline_ms=60), query="shoes")
    spent = time.perf_counter() - started
    fakes.embedder.gate.set()
    assert response.fallback.reason == "embed:timeout"
    assert ids(response) == ["c1", "s1"]
    assert 0.05 < spent < PATIENCE_S
    assert response.timings_ms["embed"] > 0


def test_a_slow_source_is_given_up_within_the_deadline(fakes):
    gate = fakes.sources.gates["prefs"] = threading.Event()
    started = time.perf_counter()
    response = fakes.ask(
        plan(deadline_ms=500, sources=(source(),)), query="running shoes", user_id="u1"
    )
    spent = time.perf_counter() - started
    gate.set()
    assert [(d.stage, d.reason) for d in response.degraded] == [("enrichment:prefs", "timeout")]
    assert response.degraded[0].spent_ms > 50
    assert response.fallback is None
    assert set(ids(response)[:2]) == {"s1", "s2"}
    assert spent < PATIENCE_S


def test_a_source_is_given_up_after_its_own_time(fakes):
    gate = fakes.sources.gates["prefs"] = threading.Event()
    made = plan(deadline_ms=10_000, sources=(source(timeout_ms=20),))
    response = fakes.ask(made, query="running shoes", user_id="u1")
    gate.set()
    assert response.degraded[0].reason == "timeout"
    assert response.timings_ms["total"] < PATIENCE_S * 1000


def test_stages_get_what_is_left_of_the_deadline(fakes):
    fakes.ask(plan(deadline_ms=10_000), item_ids=["s1"])
    seed_s, search_s = (asked["timeout_s"] for asked in fakes.index.asked)
    assert 0 < search_s < seed_s < 10


@pytest.mark.parametrize(
    ("own_ms", "deadline_ms", "expected"), [(900, 5000, 900), (5000, 800, 800)]
)
def test_an_embedding_gets_its_endpoints_time_within_the_deadline(
    fakes, own_ms, deadline_ms, expected
):
    endpoint = live_index().spec.endpoint.model_copy(update={"timeout_ms": own_ms})
    fakes.ask(plan(index=live_index(endpoint=endpoint), deadline_ms=deadline_ms), query="shoes")
    assert fakes.embedder.timeouts_ms == [expected]


def test_no_search_starts_after_the_deadline(fakes):
    slow = fakes.index.vectors

    def vectors(index, item_ids, *, timeout_s):
        time.sleep(timeout_s)
        return slow(index, item_ids, timeout_s=1)

    fakes.index.vectors = vectors
    response = fakes.ask(plan(deadline_ms=200), item_ids=["s1"])
    assert response.fallback.reason == "search:timeout"
    assert "knn" not in fakes.index.calls


def test_enrichment_runs_beside_the_embedding(fakes):
    # Each waits for the other: one after the other, neither would get through.
    meeting = threading.Barrier(3, timeout=5)
    fakes.embedder.gate = meeting
    fakes.sources.gates = {"one": meeting, "two": meeting}
    fakes.sources.tables = {"one": {}, "two": {}}
    made = plan(sources=(source("one", "a"), source("two", "b")), deadline_ms=10000)
    response = fakes.ask(made, query="running shoes", user_id="u1")
    assert response.fallback is None
    assert response.degraded == []


def test_without_a_free_thread_the_excess_gets_the_fallback_at_once():
    fakes = Fakes(threads=1)
    gate = fakes.embedder.gate = Gate()
    made = plan(deadline_ms=10_000)
    slow = threading.Thread(target=fakes.ask, args=(made,), kwargs={"query": "x"})
    slow.start()
    assert gate.reached.wait(PATIENCE_S)
    response = fakes.ask(made, query="shoes")
    assert response.fallback
    assert response.fallback.reason == "embed:overloaded"
    assert response.timings_ms["total"] < PATIENCE_S * 1000
    gate.set()
    slow.join(PATIENCE_S)
    assert not slow.is_alive()
    fakes.embedder.gate = None
    assert fakes.ask(plan(), query="shoes").fallback is None


def test_without_a_free_thread_a_source_is_degraded():
    fakes = Fakes(threads=1)
    gate = fakes.sources.gates["one"] = threading.Event()
    fakes.sources.tables = {"one": {}, "two": {}}
    threading.Timer(0.1, gate.set).start()
    made = plan(sources=(source("one", "a"), source("two", "b")), browse_field="price")
    response = fakes.ask(made, user_id="u1")
    assert [(d.stage, d.reason) for d in response.degraded] == [("enrichment:two", "overloaded")]


def test_timings_always_have_every_stage(fakes):
    fakes.sources.tables["prefs"] = {}
    full = fakes.ask(plan(sources=(source(),)), query="shoes", user_id="u1").timings_ms
    assert list(full) == ["total", *STAGES]
    assert all(full[stage] > 0 for stage in full)
    assert full["total"] >= full["search"] + full["rerank"]
    assert list(fakes.ask(plan(browse_field="price")).timings_ms) == ["total", *STAGES]


def test_spans_tell_the_course_of_a_run(fakes):
    fakes.sources.tables["prefs"] = {}
    fakes.sources.errors["prefs"] = EnrichmentThrottled()
    made = plan(sources=(source(),))
    response = fakes.ask(made, query="shoes", item_ids=["s1"], user_id="u1", explain=True)
    spans = {span.stage: span for span in response.debug.spans}
    assert set(spans) == {"embed", "enrichment:prefs", "seed", "search", "rerank"}
    assert spans["enrichment:prefs"].reason == "throttled"
    assert 0 <= spans["seed"].start_ms <= spans["search"].start_ms <= spans["rerank"].start_ms
