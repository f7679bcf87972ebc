"""What an index must do, asked of the real one and of the fake that holds the same items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import search
from indexes.errors import SearchIndexMissing, SearchRejected, SearchTimeout
from indexes.filters import AnyOf, Clause, NoneOf, Nothing, Range, Words, matches
from indexes.schema import LiveIndex
from indexes.search import Found, Hit
from tests.fakes.index import FakeIndex
from tests.fixtures_indexes import PRODUCTS, BuiltIndex

# The build under it needs a database, which is only made where some test is marked so.
pytestmark = pytest.mark.django_db

FIELDS = ("title", "brand", "category", "price", "rating", "in_stock", "region", "image")
IDS = [product["id"] for product in PRODUCTS]
TIMEOUT_S = 10.0


@dataclass
class Subject:
    """The doors of an index, whichever it is."""

    doors: Any
    live: LiveIndex

    def knn(self, vector: Any, k: int = 60, *clauses: Clause, fields: Sequence[str] = ()) -> Found:
        return self.doors.knn(  # type: ignore[no-any-return]  # a module or a fake
            self.live, vector, k=k, clauses=clauses, fields=fields, timeout_s=TIMEOUT_S
        )

    def browse(self, by: str, k: int, *clauses: Clause, descending: bool = True) -> list[Hit]:
        found = self.doors.browse(
            self.live,
            sort_by=by,
            descending=descending,
            k=k,
            clauses=clauses,
            fields=FIELDS,
            timeout_s=TIMEOUT_S,
        )
        return list(found.hits)

    def vector(self, item_id: str) -> Any:
        return self.doors.vectors(self.live, [item_id], timeout_s=TIMEOUT_S)[item_id]


@pytest.fixture(scope="module")
def fake(built_index: BuiltIndex) -> Subject:
    return Subject(FakeIndex.copy_of(built_index.live, IDS), built_index.live)


@pytest.fixture(scope="module")
def real(built_index: BuiltIndex) -> Subject:
    return Subject(search, built_index.live)


@pytest.fixture(params=["fake", "real"])
def index(request: pytest.FixtureRequest) -> Subject:
    chosen: Subject = request.getfixturevalue(request.param)
    return chosen


def found_ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_an_item_is_nearest_to_itself(index):
    for item_id in ("sku-1", "sku-31"):
        hits = index.knn(index.vector(item_id), 3).hits
        assert hits[0].id == item_id
        assert hits[0].distance == pytest.approx(0, abs=1e-4)


def test_hits_come_nearest_first_and_no_more_than_asked(index):
    vector = index.vector("sku-9")
    hits = index.knn(vector, 10).hits
    assert len(hits) == 10
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    assert found_ids(index.knn(vector, 4).hits) == found_ids(hits)[:4]


def test_fewer_items_than_asked_for_are_all_found(index):
    assert set(found_ids(index.knn(index.vector("sku-9"), 500).hits)) == set(IDS)


def test_fields_are_decoded_and_only_those_asked_for(index):
    [hit] = index.knn(index.vector("sku-1"), 1, fields=("category", "price", "image")).hits
    assert hit.fields == {
        "category": ["beauty", "skin care"],
        "price": 24.5,
        "image": {"src": "/images/sku-1.svg", "alt": "Hydrating face cream for dry skin"},
    }


def test_a_filter_that_passes_nothing(index):
    vector = index.vector("sku-1")
    for clause in (Nothing(), AnyOf("brand", ("nosuch",)), Range("price", gte=5, lt=5)):
        assert index.knn(vector, 5, clause).hits == []
        assert index.browse("price", 5, clause) == []


@pytest.mark.parametrize("brand", ['Say "Cheese" (50%)', "back\\slash-brand, inc", "Café Zoë"])
def test_items_of_an_awkward_brand(index, brand):
    hits = index.knn(index.vector("sku-1"), 60, AnyOf("brand", (brand,))).hits
    assert set(found_ids(hits)) == {p["id"] for p in PRODUCTS if p["brand"] == brand}


def test_browsing_sorts_by_the_number(index):
    prices = sorted(product["price"] for product in PRODUCTS)
    assert [h.fields["price"] for h in index.browse("price", 60, descending=False)] == prices
    assert [h.fields["price"] for h in index.browse("price", 5)] == prices[::-1][:5]
    assert index.browse("price", 1)[0].distance is None


def test_vectors_of_those_that_exist(index):
    found = index.doors.vectors(index.live, ["sku-1", "nosuch", "sku-1"], timeout_s=TIMEOUT_S)
    assert list(found) == ["sku-1"]
    assert found["sku-1"].shape == (index.live.spec.endpoint.dimension,)
    assert found["sku-1"].dtype == np.float32


def test_items_that_exist_in_the_order_asked(index):
    hits = index.doors.items(
        index.live, ["sku-3", "nosuch", "sku-1"], fields=["brand"], timeout_s=TIMEOUT_S
    )
    assert [(hit.id, hit.distance, hit.fields) for hit in hits] == [
        ("sku-3", None, {"brand": "Café Zoë"}),
        ("sku-1", None, {"brand": "Lumea"}),
    ]


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.full(384, np.nan, np.float32)])
def test_a_vector_that_does_not_fit_is_refused(index, vector):
    with pytest.raises(SearchRejected):
        index.knn(vector, 3)


def test_no_time_left_is_a_timeout(index):
    with pytest.raises(SearchTimeout):
        index.doors.knn(index.live, index.vector("sku-1"), k=3, fields=(), timeout_s=0.0)


def test_an_index_that_is_gone(real):
    # The fake fails with this error when told to: the real one must do it by itself.
    gone = real.live.model_copy(update={"index_name": f"{real.live.index_name}_gone"})
    with pytest.raises(SearchIndexMissing):
        search.knn(gone, real.vector("sku-1"), k=3, fields=(), timeout_s=TIMEOUT_S)


# A filter refuses values that end in a star.
BRANDS = sorted({p["brand"] for p in PRODUCTS if not p["brand"].endswith("*")} | {"nosuch"})
brands = st.lists(st.sampled_from(BRANDS), min_size=1, max_size=3).map(tuple)
tags = st.lists(st.sampled_from(["us", "EU", "uk", "x"]), min_size=1, max_size=2).map(tuple)
prices = st.none() | st.sampled_from([3.5, 24.5, 31.0, 129.99, 500.0, -1.0])
clauses = st.lists(
    st.one_of(
        brands.map(lambda values: AnyOf("brand", values)),
        brands.map(lambda values: NoneOf("brand", values)),
        tags.map(lambda values: AnyOf("region", values)),
        tags.map(lambda values: NoneOf("region", values)),
        st.builds(Range, st.just("price"), gte=prices, gt=prices, lte=prices, lt=prices),
        st.sampled_from(["face", "running shoes", "leather", "nosuch"]).map(
            lambda text: Words("title", text)
        ),
        st.just(AnyOf("price", (24.5, 31.0))),
    ),
    max_size=3,
)


@given(clauses, st.sampled_from(IDS), st.integers(1, 60))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_both_find_the_same(fake, real, chosen, near, k):
    vector = real.vector(near)
    mine = fake.knn(vector, k, *chosen, fields=FIELDS).hits
    theirs = real.knn(vector, k, *chosen, fields=FIELDS).hits
    assert all(matches(chosen, hit.fields) for hit in theirs)
    assert found_ids(mine) == found_ids(theirs)
    assert [hit.fields for hit in mine] == [hit.fields for hit in theirs]
    assert [hit.distance for hit in mine] == pytest.approx(
        [hit.distance for hit in theirs], abs=1e-4
    )
    listed = fake.browse("price", k, *chosen, descending=False)
    assert [h.fields["price"] for h in listed] == [
        h.fields["price"] for h in real.browse("price", k, *chosen, descending=False)
    ]
