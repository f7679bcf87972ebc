"""The read door of surfaces, on the real engine."""

import math

import numpy as np
import pytest

from indexes import search
from indexes.errors import FilterError, SearchIndexMissing, SearchRejected, SearchTimeout
from indexes.filters import (
    MAX_QUERY_BYTES,
    AnyOf,
    NoneOf,
    Nothing,
    Range,
    Words,
    compile_filter,
)
from tests.indexes.conftest import direction


def knn(live, vector=None, *, k=10, clauses=(), fields=(), timeout_s=5.0):
    vector = direction(0) if vector is None else vector
    return search.knn(live, vector, k=k, clauses=clauses, fields=fields, timeout_s=timeout_s).hits


def ids(hits):
    return [hit.id for hit in hits]


@pytest.fixture
def circle(make_index):
    """Thirty items, one at each of 0, 3, 6, … degrees: the number of an item is its degrees."""
    return make_index(
        {
            str(degrees): (
                direction(degrees),
                {
                    "title": f"thing number {degrees} {'even' if degrees % 2 == 0 else 'odd'}",
                    "brand": "low" if degrees < 45 else "high",
                    "category": ["all", "even" if degrees % 2 == 0 else "odd"],
                    "price": degrees / 2,
                    "extra": {"degrees": degrees},
                },
            )
            for degrees in range(0, 90, 3)
        }
    )


def test_neighbours_come_nearest_first(circle):
    hits = knn(circle, direction(31), k=4)
    assert ids(hits) == ["30", "33", "27", "36"]
    for hit, degrees in zip(hits, (1, 2, 4, 5), strict=True):
        assert hit.distance == pytest.approx(1 - math.cos(math.radians(degrees)), abs=1e-6)
        assert hit.fields == {}


def test_fields_come_back_as_they_went_in(circle):
    [hit] = knn(circle, direction(3), k=1, fields=["title", "brand", "category", "price", "extra"])
    assert hit.fields == {
        "title": "thing number 3 odd",
        "brand": "low",
        "category": ["all", "odd"],
        "price": 1.5,
        "extra": {"degrees": 3},
    }


def test_whole_numbers_are_integers_and_missing_fields_are_absent(make_index):
    live = make_index({"a": (direction(0), {"price": 30.0}), "b": (direction(1), {})})
    assert [hit.fields for hit in knn(live, fields=["price", "brand"])] == [{"price": 30}, {}]
    assert isinstance(knn(live, k=1, fields=["price"])[0].fields["price"], int)


def test_filters_apply_and_the_answer_is_complete(circle):
    hits = knn(circle, k=3, clauses=[AnyOf("brand", ("high",)), NoneOf("category", ("odd",))])
    assert ids(hits) == ["48", "54", "60"]
    assert ids(knn(circle, clauses=[Range("price", gte=43)])) == ["87"]
    assert ids(knn(circle, k=50, clauses=[Range("price", lt=3)])) == ["0", "3"]


def test_filters_that_nothing_can_pass_make_no_search(circle):
    missing = circle.model_copy(update={"index_name": "no_such_index"})
    for clause in (Nothing(), Range("price", gt=5, lt=5), AnyOf("brand", ())):
        found = search.knn(missing, direction(0), k=5, clauses=[clause], fields=[], timeout_s=5)
        assert found.hits == []
        assert found.command == search.NO_SEARCH
    nothing = search.browse(
        missing, sort_by="price", descending=True, k=5, clauses=[Nothing()], fields=[], timeout_s=5
    )
    assert nothing.hits == []


def test_the_command_can_be_read(circle):
    found = search.knn(
        circle, direction(0), k=5, clauses=[AnyOf("brand", ("a b",))], fields=["price"], timeout_s=5
    )
    assert found.command == (
        f"FT.SEARCH {circle.index_name} "
        r'"(@brand:{a\\ b})=>[KNN 5 @rp_vector $vector EF_RUNTIME 100 AS rp_distance]" '
        "RETURN 2 rp_distance price LIMIT 0 5 PARAMS 2 vector <16 bytes> DIALECT 2"
    )


@pytest.mark.parametrize("metric", ["COSINE", "L2", "IP"])
@pytest.mark.parametrize("algorithm", ["HNSW", "FLAT"])
def test_metrics_and_algorithms(make_index, metric, algorithm):
    vectors = {"near": np.array([2, 1, 0, 0]), "far": np.array([0, 1, 0, 3])}
    live = make_index(
        {name: (vector, {}) for name, vector in vectors.items()},
        metric=metric,
        algorithm=algorithm,
    )
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    hits = knn(live, query)
    expected = {
        "COSINE": [1 - 2 / math.sqrt(5), 1.0],
        "L2": [2.0, 11.0],
        "IP": [-1.0, 1.0],
    }[metric]
    assert ids(hits) == ["near", "far"]
    assert [hit.distance for hit in hits] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("distance", "metric", "expected"),
    [(0, "COSINE", 1), (0.25, "COSINE", 0.75), (-1, "IP", 2), (0, "L2", 1), (1, "L2", 0.5)],
)
def test_similarity(distance, metric, expected):
    assert search.similarity(distance, metric) == expected


def test_a_vector_of_zeros_is_far_from_everything(make_index):
    zeros = np.zeros(4)
    live = make_index({"zero": (zeros, {}), "other": (direction(0), {})})
    assert [(hit.id, hit.distance) for hit in knn(live)] == [("other", 0.0), ("zero", 1.0)]
    assert [hit.distance for hit in knn(live, np.zeros(4, np.float32))] == [1.0, 1.0]


@pytest.mark.parametrize(
    "vector",
    [direction(0)[:3], np.zeros((1, 4), np.float32), np.full(4, np.nan), np.full(4, np.inf)],
    ids=["short", "two-dimensional", "nan", "infinite"],
)
def test_a_vector_that_does_not_fit_is_refused(circle, vector):
    with pytest.raises(SearchRejected, match="4 finite numbers"):
        knn(circle, vector)


def test_k_is_bounded_by_what_the_engines_allow(circle):
    assert len(knn(circle, k=50_000)) == 30
    assert knn(circle, k=0) == []


def test_equal_distances_are_ordered_by_id(make_index):
    live = make_index({item_id: (direction(0), {}) for item_id in "cabd"})
    assert ids(knn(live)) == list("abcd")


def test_ids_may_hold_anything(make_index):
    odd = ["a b", "x:y{z}", "ünï", "日本", 'q"\\', "*?[]", "tab\tline\n", "nul\x00nul", "😀"]
    live = make_index({item_id: (direction(n), {"price": n}) for n, item_id in enumerate(odd)})
    assert ids(knn(live)) == odd
    assert set(search.vectors(live, odd, timeout_s=5)) == set(odd)
    assert ids(search.items(live, odd, fields=["price"], timeout_s=5)) == odd
    assert search.items(live, ["\ud800", ""], fields=["price"], timeout_s=5) == []


def test_browse_orders_by_a_number(circle):
    def browse(**options):
        options = {"k": 3, "descending": True, "fields": ["price"], **options}
        return search.browse(circle, sort_by="price", timeout_s=5, **options).hits

    assert [(hit.id, hit.distance, hit.fields) for hit in browse(k=2)] == [
        ("87", None, {"price": 43.5}),
        ("84", None, {"price": 42}),
    ]
    assert ids(browse(descending=False)) == ["0", "3", "6"]
    # No field asked for: valkey-search would leave it unsorted.
    assert ids(browse(fields=[])) == ["87", "84", "81"]
    assert browse(fields=[])[0].fields == {}
    assert ids(browse(clauses=[AnyOf("brand", ("low",))])) == ["42", "39", "36"]
    assert ids(browse(clauses=[NoneOf("brand", ("high",))])) == ["42", "39", "36"]


def test_browse_takes_a_filter_as_long_as_filters_may_be(circle):
    field = circle.spec.field("category")
    size = MAX_QUERY_BYTES - len(f"(@{field.name}:{{}})")
    clause = AnyOf(field.name, ("x" * size,))
    assert len(compile_filter([clause], circle.spec)) == MAX_QUERY_BYTES
    found = search.browse(
        circle, sort_by="price", descending=True, k=3, clauses=[clause], fields=[], timeout_s=5
    )
    assert found.hits == []


def test_browse_leaves_out_items_without_the_number(make_index):
    live = make_index({"a": (direction(0), {"price": 2}), "b": (direction(0), {"brand": "x"})})
    found = search.browse(
        live, sort_by="price", descending=False, k=5, fields=["brand"], timeout_s=5
    )
    assert ids(found.hits) == ["a"]


@pytest.mark.parametrize("field", ["brand", "nosuch"])
def test_browse_needs_a_number_field(circle, field):
    with pytest.raises(FilterError) as caught:
        search.browse(circle, sort_by=field, descending=False, k=5, fields=[], timeout_s=5)
    assert caught.value.field == field


def test_vectors_of_existing_items(circle):
    found = search.vectors(circle, ["3", "nosuch", "6", "3"], timeout_s=5)
    assert list(found) == ["3", "6"]
    np.testing.assert_array_equal(found["6"], direction(6))
    assert found["6"].dtype == np.float32
    assert found["6"].flags.writeable
    assert search.vectors(circle, [], timeout_s=5) == {}


def test_items_come_in_the_order_asked(circle):
    hits = search.items(circle, ["6", "nosuch", "0", "6"], fields=["price"], timeout_s=5)
    assert [(hit.id, hit.fields) for hit in hits] == [("6", {"price": 3}), ("0", {"price": 0})]


def test_items_without_any_of_the_fields_exist_all_the_same(make_index):
    live = make_index({"a": (direction(0), {})})
    assert ids(search.items(live, ["a"], fields=["price"], timeout_s=5)) == ["a"]
    assert ids(search.items(live, ["a"], fields=[], timeout_s=5)) == ["a"]


def test_words_are_found_with_a_vector(circle):
    hits = knn(circle, direction(31), k=3, clauses=[Words("title", "EVEN thing")])
    assert ids(hits) == ["30", "36", "24"]
    assert hits[0].fields == {}
    [hit] = knn(circle, clauses=[Words("title", "number 33")], fields=["title", "price"])
    assert hit.fields == {"title": "thing number 33 odd", "price": 16.5}


@pytest.mark.parametrize("metric", ["COSINE", "L2", "IP"])
def test_words_are_complete_when_the_engine_is_careless_with_them(make_index, metric):
    """valkey-search may leave words out of a KNN filter. An index that stems stands in for it:

    it takes "running" for "run", and a hundred such items are nearer than the three asked for.
    """
    rng = np.random.default_rng(7)
    near = {
        f"running-{n}": (direction(rng.uniform(0, 20)), {"title": "running shoes"})
        for n in range(100)
    }
    far = {
        f"run-{degrees}": (0.5 * direction(degrees), {"title": "Run, shoes!", "price": degrees})
        for degrees in (80, 60, 40)
    }
    live = make_index({**near, **far}, metric=metric, stemmed=True)
    careless = search.knn(live, direction(0), k=60, clauses=[], fields=["title"], timeout_s=5)
    assert {hit.fields["title"] for hit in careless.hits} == {"running shoes"}

    hits = knn(live, k=5, clauses=[Words("title", "run shoes")], fields=["price"])

    cosines = {degrees: math.cos(math.radians(degrees)) for degrees in (40, 60, 80)}
    expected = {
        "COSINE": [1 - cosine for cosine in cosines.values()],
        "IP": [1 - 0.5 * cosine for cosine in cosines.values()],
        "L2": [1.25 - cosine for cosine in cosines.values()],
    }[metric]
    assert [hit.fields for hit in hits] == [{"price": 40}, {"price": 60}, {"price": 80}]
    assert [hit.distance for hit in hits] == pytest.approx(expected, abs=1e-5)
    narrowed = [Words("title", "run"), Range("price", gt=40)]
    assert ids(knn(live, k=1, clauses=narrowed)) == ["run-60"]


def test_an_index_that_is_gone_is_told_apart(circle):
    gone = circle.model_copy(update={"index_name": circle.index_name + "_gone"})
    for ask in (
        lambda: knn(gone),
        lambda: search.browse(gone, sort_by="price", descending=True, k=1, fields=[], timeout_s=5),
    ):
        with pytest.raises(SearchIndexMissing):
            ask()


def test_no_time_is_a_timeout(circle):
    for ask in (
        lambda: knn(circle, timeout_s=0),
        lambda: knn(circle, timeout_s=-1),
        lambda: search.items(circle, ["0"], fields=["price"], timeout_s=0),
        lambda: search.vectors(circle, ["0"], timeout_s=0),
    ):
        with pytest.raises(SearchTimeout):
            ask()
    # The connections are usable afterwards.
    assert ids(knn(circle, k=1)) == ["0"]
