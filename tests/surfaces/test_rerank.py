import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.document import RerankSpec
from surfaces.rerank.linear import MAX_SIGNAL, Linear, label, scaled
from surfaces.rerank.none import Retrieved
from surfaces.rerank.registry import RERANKERS, make_reranker
from tests.surfaces.builders import (
    by_field,
    by_signal,
    candidate,
    index_spec,
    linear,
    similar,
)

pytestmark = pytest.mark.unit

NAN, INF = float("nan"), float("inf")


def order(ranked):
    return [entry.candidate.hit.id for entry in ranked]


def scores(ranked):
    return {entry.candidate.hit.id: entry.score for entry in ranked}


def test_none_keeps_the_order_of_retrieval():
    ranked = Retrieved().rank([candidate("b", 1, 0.2), candidate("a", 2, 0.9)], {}, limit=5)
    assert order(ranked) == ["b", "a"]
    assert ranked[0].score == 0.2
    assert ranked[0].parts == {"similarity": 0.2}


def test_none_without_a_vector_scores_nothing():
    [ranked] = Retrieved().rank([candidate("b", 1)], {}, limit=5)
    assert (ranked.score, dict(ranked.parts)) == (0.0, {})


def test_similarity_is_cut_to_its_range():
    given = [candidate("a", 1, 1.0000001), candidate("b", 2, 0.5), candidate("c", 3, -0.3)]
    assert scores(Linear([similar(2)]).rank(given, {}, limit=3)) == {"a": 2.0, "b": 1.0, "c": 0.0}


def test_unbounded_similarities_are_scaled_over_the_candidates():
    given = [candidate("a", 1, 40.0), candidate("b", 2, 30.0), candidate("c", 3, 20.0)]
    ranked = Linear([similar()], unbounded=True).rank(given, {}, limit=3)
    assert scores(ranked) == {"a": 1.0, "b": 0.5, "c": 0.0}


def test_a_field_is_scaled_from_lowest_to_highest_and_a_missing_one_is_lowest():
    given = [candidate("a", 1, price=10), candidate("b", 2, price=30), candidate("c", 3)]
    ranked = Linear([by_field("price")]).rank(given, {}, limit=3)
    assert scores(ranked) == {"b": 1.0, "a": 0.0, "c": 0.0}


def test_a_negative_weight_buries():
    given = [candidate("a", 1, price=30), candidate("b", 2, price=10)]
    assert order(Linear([by_field("price", -1)]).rank(given, {}, limit=2)) == ["b", "a"]


@pytest.mark.parametrize(
    ("field", "signal", "expected"),
    [
        ("brand", {"acme": 0.5}, {"a": 0.5, "b": 0.0}),
        ("category", {"skin": 0.2, "sport": 0.6}, {"a": 0.6, "b": 0.2}),
        ("category", {"skin": 0.2, "sport": -0.6, "shoes": 0.1}, {"b": 0.2, "a": -0.6}),
        ("", {"b": 3.0}, {"b": 3.0, "a": 0.0}),
        ("size", {"42": 1.0}, {"a": 1.0, "b": 0.0}),
        ("price", 2.0, {"b": 2.0, "a": 0.0}),
        ("", 0.25, {"a": 0.25, "b": 0.25}),
        ("brand", None, {"a": 0.0, "b": 0.0}),
    ],
    ids=["tag", "strongest", "strongest-negative", "item-id", "number-value", "times", "constant", "missing"],
)  # fmt: skip
def test_what_a_signal_counts(field, signal, expected):
    given = [
        candidate("a", 1, brand="acme", category=["shoes", "sport"], size=42, price=1),
        candidate("b", 2, brand="zen", category=["skin"], price=9),
    ]
    signals = {} if signal is None else {"s": signal}
    ranked = Linear([by_signal("s", field=field)]).rank(given, signals, limit=2)
    assert scores(ranked) == expected


@pytest.mark.parametrize("bad", [NAN, INF, -INF, True, "7", None, 10**400])
def test_what_is_no_finite_number_counts_nothing(bad):
    given = [candidate("a", 1, bad if isinstance(bad, float) else None, price=bad, brand="x")]
    terms = [similar(), by_field("price"), by_signal("n"), by_signal("w", field="brand")]
    [ranked] = Linear(terms).rank(given, {"n": bad, "w": {"x": bad}}, limit=1)
    assert ranked.score == 0.0


def test_equal_scores_keep_the_order_of_retrieval():
    given = [candidate("z", 1, 0.5), candidate("a", 2, 0.5), candidate("m", 3, 0.9)]
    assert order(Linear([similar()]).rank(given, {}, limit=3)) == ["m", "z", "a"]


def test_returns_no_more_than_the_limit_and_ranks_all_for_it():
    given = [candidate(str(n), n, n / 10) for n in range(1, 9)]
    assert order(Linear([similar()]).rank(given, {}, limit=2)) == ["8", "7"]


def test_terms_of_one_name_are_one_part():
    [ranked] = Linear([similar(1), similar(2)]).rank([candidate("a", 1, 0.5)], {}, limit=1)
    assert dict(ranked.parts) == {"similarity": 1.5}


def test_labels_tell_terms_apart():
    assert label(similar()) == "similarity"
    assert label(by_field("price")) == "field:price"
    assert label(by_signal("trending")) == "signal:trending"
    assert label(by_signal("affinity", field="brand")) == "signal:affinity:brand"


def test_reads_the_fields_of_its_terms():
    reranker = Linear([similar(), by_field("price"), by_signal("s", field="brand")])
    assert reranker.fields == ("price", "brand")


def test_no_candidates():
    for kind in RERANKERS:
        spec = linear(similar()) if kind == "linear" else RerankSpec(kind=kind)
        assert make_reranker(spec, index_spec()).rank([], {}, limit=5) == []


def test_inner_products_of_any_length_are_scaled():
    endpoint = index_spec().endpoint.model_copy(update={"normalize": False})
    given = [candidate("a", 1, 40.0), candidate("b", 2, 30.0)]
    spec = index_spec(metric="IP", endpoint=endpoint)
    ranked = make_reranker(linear(similar()), spec).rank(given, {}, limit=2)
    assert scores(ranked) == {"a": 1.0, "b": 0.0}


@given(st.lists(st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3)), max_size=30))
def test_scaling_never_leaves_its_range(values):
    assert all(0.0 <= value <= 1.0 for value in scaled(values))


numbers = st.one_of(st.none(), st.floats(), st.integers(), st.sampled_from([0, 0.5, 1, 1e308]))
signals = st.one_of(
    st.floats(), st.dictionaries(st.sampled_from(["a", "b", "c", "0", "1"]), st.floats())
)


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 12))
    return [
        candidate(
            str(n),
            n + 1,
            draw(numbers) if n % 2 else draw(st.floats(-1, 1)),
            price=draw(numbers),
            brand=draw(st.sampled_from(["a", "b", None])),
            tags=draw(st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)),
        )
        for n in range(count)
    ]


terms = st.lists(
    st.builds(
        lambda make, weight: make(weight),
        st.sampled_from(
            [
                similar,
                lambda w: by_field("price", w),
                lambda w: by_signal("s", w),
                lambda w: by_signal("s", w, "brand"),
                lambda w: by_signal("s", w, "tags"),
                lambda w: by_signal("s", w, "price"),
            ]
        ),
        st.floats(-1e6, 1e6),
    ),
    min_size=1,
    max_size=6,
)


@given(candidates(), terms, signals, st.booleans(), st.randoms(use_true_random=False))
def test_ranking_does_not_depend_on_the_order_given(given, chosen, signal, unbounded, rng):
    reranker = Linear(chosen, unbounded=unbounded)
    shuffled = random.Random(rng.random()).sample(given, len(given))
    one = reranker.rank(given, {"s": signal}, limit=10)
    other = reranker.rank(shuffled, {"s": signal}, limit=10)
    assert [(e.candidate.hit.id, e.score) for e in one] == [
        (e.candidate.hit.id, e.score) for e in other
    ]


@given(candidates(), terms, signals, st.booleans())
def test_scores_are_bounded_and_the_sum_of_their_parts(given, chosen, signal, unbounded):
    ranked = Linear(chosen, unbounded=unbounded).rank(given, {"s": signal}, limit=20)
    bound = sum(abs(term.weight) for term in chosen) * MAX_SIGNAL
    for entry in ranked:
        assert math.isfinite(entry.score)
        assert abs(entry.score) <= bound * (1 + 1e-9)
        assert sum(entry.parts.values()) == pytest.approx(entry.score, rel=1e-9, abs=1e-6)
    assert [e.score for e in ranked] == sorted((e.score for e in ranked), reverse=True)
