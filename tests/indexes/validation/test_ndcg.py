"""Ranking against judgments."""

import math

import numpy as np
import pytest

from indexes.models import EmbeddingEndpoint, GateResult, JudgedQuery, Judgment
from indexes.validation.ndcg import ndcg
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import embedder, meaning, rows, texts_of

Outcome = GateResult.Outcome


@pytest.mark.parametrize(
    ("ranking", "grades", "figure"),
    [
        ("ab", {"a": 3, "b": 2}, 1.0),
        ("ba", {"a": 3, "b": 2}, (2 + 3 / math.log2(3)) / (3 + 2 / math.log2(3))),
        # Nobody has judged x: it takes a place.
        ("xa", {"a": 1}, 1 / math.log2(3)),
        ("xy", {"a": 1}, 0.0),
        ("a", {"a": 0}, 0.0),
        ("", {"a": 1}, 0.0),
        # Found at the eleventh place.
        ("0123456789a", {"a": 1}, 0.0),
    ],
)
def test_ndcg(ranking, grades, figure):
    assert ndcg(ranking, grades) == pytest.approx(figure)


def judge(definition) -> None:
    """Grades of the items of each kind for the word itself."""
    Judgment.objects.bulk_create(
        Judgment(definition=definition, query=kind, product_id=row["id"], grade=3)
        for kind in ("boots", "tent", "lamp")
        for row in rows(60)
        if row["kind"] == kind
    )
    Judgment.objects.create(definition=definition, query="none", product_id="p1", grade=0)


def test_a_build_that_ranks_worse_is_held_back(index, words):
    definition = index()
    judge(definition)
    first = gate(built(definition), "ndcg")
    assert (first.outcome, first.detail["queries"]) == (Outcome.REPORTED, 3)
    assert first.figure > 0.6
    second = EmbeddingEndpoint.objects.create(
        slug="two", endpoint_name="two", dimension=16, model="two"
    )
    definition.endpoint = second
    definition.save()
    # Tells nothing about the kind of a thing.
    blind = [word for row in rows(60) for word in [row["kind"]]]
    words.respond = embedder(
        lambda text: meaning(" ".join(w for w in text.split() if w not in blind) or "nothing")
    )
    build = built(definition)
    result = gate(build, "ndcg")
    assert (result.outcome, build.verdict) == (Outcome.FAILED, "blocked")
    assert result.threshold == pytest.approx(first.figure - 0.02)
    assert result.figure < result.threshold
    assert result.detail["live_ndcg"] == pytest.approx(first.figure, abs=1e-3)
    assert {one["query"] for one in result.detail["lost_most"]} <= {"boots", "tent", "lamp"}

    definition.max_ndcg_drop = 1.0
    definition.save()
    assert gate(built(definition), "ndcg").outcome == Outcome.PASSED


def test_each_model_is_asked_for_a_query_once(index, words):
    definition = index()
    judge(definition)
    built(definition)
    asked = [text for text in texts_of(words.calls) if " " not in text]
    assert sorted(asked) == ["boots", "lamp", "tent"]
    assert JudgedQuery.objects.filter(definition=definition).count() == 3
    words.calls.clear()
    result = gate(built(definition), "ndcg")
    assert result.outcome == Outcome.PASSED
    assert not {"boots", "lamp", "tent"} & set(texts_of(words.calls))


def test_judged_products_without_others_between_make_the_condensed_figure(index):
    definition = index()
    # One item of the many that are alike: the others stand before it without a judgment.
    Judgment.objects.create(definition=definition, query="boots", product_id="p54", grade=2)
    detail = gate(built(definition), "ndcg").detail
    assert detail["condensed"] == 1
    assert detail["ndcg"] <= detail["condensed"]


def test_without_judgments_it_does_not_apply(index):
    definition = index()
    assert gate(built(definition), "ndcg").outcome == Outcome.SKIPPED
    Judgment.objects.create(definition=definition, query="none", product_id="p1", grade=0)
    assert gate(built(definition), "ndcg").outcome == Outcome.SKIPPED


def test_vectors_of_queries_survive_the_database(index):
    definition = index()
    judge(definition)
    built(definition)
    kept = JudgedQuery.objects.get(definition=definition, query="tent")
    expected = meaning("tent")
    found = np.frombuffer(bytes(kept.vector), dtype="<f4")
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
