"""EF_RUNTIME tuned on a build, and the recall it reaches."""

import numpy as np
import pytest

from indexes import search
from indexes.models import GateResult
from indexes.validation import exact, recall
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import embedder, rows

Outcome = GateResult.Outcome
TIMEOUT_S = 10.0


def scattered(text: str) -> np.ndarray:
    """A direction of the text's own, with no relation to any other's: hard for a graph."""
    seed = int.from_bytes(text.encode()) % 2**32
    return np.random.default_rng(seed).standard_normal(16)


@pytest.fixture
def hard(make_index):
    """An index of few links: EF_RUNTIME decides what is found."""
    items = np.random.default_rng(5).standard_normal((3000, 24)).astype(np.float32)
    live = make_index(
        {str(n): (vector, {}) for n, vector in enumerate(items)},
        fields=(),
        m=6,
        ef_construction=40,
    )
    queries = recall.made_queries(live, {str(n): items[n] for n in range(100)})
    return live, queries, exact.search(live, queries, k=10, seconds=60)


def test_the_smallest_value_that_reaches_the_target_is_found(hard):
    live, queries, truth = hard
    ef, curve = recall.tune(live, queries, truth, count=3000, target=0.9)
    assert ef is not None
    assert ef > 10
    assert curve[ef][0].mean() >= 0.9
    lower, _ = recall.at(live, queries, truth, int(ef / 1.2), count=3000)
    halves = lower[::2].mean(), lower[1::2].mean()
    assert min(halves) < 0.9
    higher, curve = recall.tune(live, queries, truth, count=3000, target=0.97)
    assert higher is not None
    assert higher > ef


def test_the_engine_is_searched_with_just_that_value(hard):
    live, queries, truth = hard
    narrow, _ = recall.at(live, queries, truth, 10, count=3000)
    wide, _ = recall.at(live, queries, truth, 1000, count=3000)
    assert narrow.mean() < 0.8
    assert wide.mean() > 0.97


@pytest.mark.parametrize("metric", ["COSINE", "L2", "IP"])
def test_queries_are_as_far_from_items_as_items_are_from_each_other(metric):
    items = np.random.default_rng(1).standard_normal((80, 24)).astype(np.float32)
    between = exact.distances(items, items, "L2" if metric == "L2" else "COSINE")
    np.fill_diagonal(between, np.inf)
    queries = recall.between_items(items, items[between.argmin(axis=1)], metric)
    np.testing.assert_array_equal(
        queries, recall.between_items(items, items[between.argmin(axis=1)], metric)
    )
    apart = exact.distances(queries, items, "L2" if metric == "L2" else "COSINE")
    usual = np.median(between.min(axis=1))
    assert np.median(apart.diagonal()) == pytest.approx(usual, rel=0.2)


def test_queries_over_crowded_items_lean_to_other_items_alone():
    middles = np.random.default_rng(2).standard_normal((40, 16)).astype(np.float32)
    items = np.concatenate([middles, middles])
    queries = recall.between_items(items, items[(np.arange(80) + 40) % 80], "COSINE")
    # Each has its double beside it; noise would take it nowhere near as far as leaning does.
    leaning = (queries - (1 - recall.TOWARDS) * items) / recall.TOWARDS
    apart = exact.distances(np.asarray(leaning, np.float32), items, "L2").min(axis=1)
    assert apart.max() < 1e-3


def test_the_value_is_kept_on_the_build_and_used_by_searches(index):
    definition = index(ef_runtime=333)
    build = built(definition)
    result = gate(build, "recall")
    assert result.outcome == Outcome.PASSED
    assert build.ef_runtime == result.detail["ef_runtime"]
    assert result.detail["ef_runtime"] < 333
    live = build.to_live()
    vector = np.ones(16, dtype=np.float32)
    found = search.knn(live, vector, k=5, fields=(), timeout_s=TIMEOUT_S)
    assert f"EF_RUNTIME {build.ef_runtime}" in found.command


def test_a_build_that_cannot_reach_the_target_is_held_back(index, words):
    words.respond = embedder(scattered)
    build = built(index(1500, m=2, ef_construction=1, recall_target=1.0))
    result = gate(build, "recall")
    assert (result.outcome, result.threshold, build.verdict) == (Outcome.FAILED, 1.0, "blocked")
    assert 0 < result.figure < 1
    assert "Raise M or EF_CONSTRUCTION" in result.message
    # What the definition says goes on to serve.
    assert build.ef_runtime is None


def test_an_exact_index_needs_no_tuning(index):
    build = built(index(algorithm="FLAT"))
    assert gate(build, "recall").outcome == Outcome.SKIPPED
    assert (build.ef_runtime, build.verdict) == (None, "passed")


def test_a_single_item_is_enough(index):
    build = built(index(rows(1)))
    assert (build.ef_runtime, build.verdict) == (10, "passed")
