"""What rows bring along by themselves: vectors and versions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from indexes.errors import RowError
from indexes.given import given_vector, given_version
from indexes.schema import EndpointSpec

pytestmark = pytest.mark.unit

ENDPOINT = EndpointSpec(slug="two", endpoint_name="two", dimension=2)
AS_IT_IS = ENDPOINT.model_copy(update={"normalize": False})


def read(value: object, endpoint: EndpointSpec = ENDPOINT) -> list[float]:
    vector = given_vector(value, "v", endpoint)
    assert vector is not None
    assert vector.dtype == np.float32
    return [float(number) for number in vector]


@pytest.mark.parametrize(
    "value", [[3, 4], [3.0, 4], (3, 4), "[3, 4]", " [3.0,4e0] ", np.array([3, 4], dtype=np.float64)]
)
def test_a_vector_is_read_and_scaled_as_the_endpoint_says(value):
    assert read(value) == pytest.approx([0.6, 0.8])
    assert read(value, AS_IT_IS) == [3, 4]


def test_large_numbers_keep_their_direction():
    assert read([3e30, 4e30]) == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_row_may_bring_none(value):
    assert given_vector(value, "v", ENDPOINT) is None
    assert given_version(None, "v") is given_version("", "v") is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2, 3], '3 numbers, and vectors of the endpoint "two" have 2'),
        ("[]", "0 numbers"),
        ([], "0 numbers"),
        ([1, math.nan], "NaN"),
        ([1, math.inf], "too large"),
        ([1, 1e300], "too large"),
        (np.array([1, np.nan], dtype=np.float32), "NaN"),
        ([0, 0], "all zeros"),
        (["1", "2"], "no list of numbers"),
        ([1, None], "no list of numbers"),
        ([True, False], "no list of numbers"),
        ([[1, 2]], "no list of numbers"),
        ([[1], [1, 2]], "no list of numbers"),
        ([1, {"a": 1}], "no list of numbers"),
        ([10**400, 1], "no list of numbers"),
        ({"a": 1}, "no list of numbers"),
        ("[NaN, 1]", "no list of numbers"),
        ("1, 2", "no list of numbers"),
        (12, "no list of numbers"),
    ],
)
def test_a_bad_vector_says_what_is_wrong(value, said):
    with pytest.raises(RowError) as caught:
        given_vector(value, "embedding", ENDPOINT)
    assert caught.value.reason == "bad_vector"
    assert str(caught.value).startswith("embedding: ")
    assert said in str(caught.value)


@given(arrays.arrays(np.float32, st.integers(0, 4), elements=st.floats(width=32)))
def test_a_vector_is_finite_or_refused(value):
    try:
        vector = given_vector(value, "v", ENDPOINT)
    except RowError:
        return
    assert vector is not None
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5


@pytest.mark.parametrize(
    ("value", "version"),
    [(3, 3.0), ("17", 17.0), (1.5, 1.5), ("1970-01-02", 86400.0), ("1970-01-01T00:00:01Z", 1.0)],
)
def test_a_version_is_a_number_or_a_date(value, version):
    assert given_version(value, "updated") == version


@pytest.mark.parametrize("value", ["yesterday", True, [1], {"a": 1}, math.nan, "nan"])
def test_an_unreadable_version_is_refused(value):
    with pytest.raises(RowError, match="updated: ") as caught:
        given_version(value, "updated")
    assert caught.value.reason == "bad_version"
