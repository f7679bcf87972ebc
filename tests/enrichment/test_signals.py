import math
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichment.signals import read_signal
from enrichment.spec import SignalKind, SignalSpec

pytestmark = pytest.mark.unit

NUMBER = SignalSpec(name="n", attribute="a", kind=SignalKind.NUMBER)
WEIGHTS = SignalSpec(name="w", attribute="a", kind=SignalKind.WEIGHTS)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Decimal("0.5"), 0.5),
        (Decimal(3), 3.0),
        (Decimal("1e-130"), 1e-130),
        (7, 7.0),
        (0.25, 0.25),
        ("0.5", 0.5),
        (" 12 ", 12.0),
        ("-1e3", -1000.0),
        (True, 1.0),
        (False, 0.0),
    ],
)
def test_numbers_in_any_spelling_become_floats(value: Any, number: float):
    signal = read_signal(NUMBER, {"a": value})

    assert signal == number
    assert type(signal) is float


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "many",
        "1_000",
        "nan",
        "inf",
        float("nan"),
        math.inf,
        Decimal("NaN"),
        Decimal("-Infinity"),
        Decimal("sNaN"),
        10**400,
        "1e999",
        [1],
        {"a": 1},
        {1},
        b"1",
    ],
)
def test_what_is_no_finite_number_is_no_signal(value: Any):
    assert read_signal(NUMBER, {"a": value}) is None


@pytest.mark.parametrize(
    ("value", "weights"),
    [
        ({"Volt": Decimal("0.9"), "Orbit": "0.2"}, {"Volt": 0.9, "Orbit": 0.2}),
        ({"Volt": 1, "x": None, "y": "no", "z": [1], "": 2, "inf": math.inf}, {"Volt": 1.0}),
        ([["sku-1", Decimal(2)], ["sku-2", "3"]], {"sku-1": 2.0, "sku-2": 3.0}),
        ([("sku-1", 2)], {"sku-1": 2.0}),
        ([["sku-1", None], ["sku-2", 1], ["x"], ["a", 1, 2], [None, 3]], {"sku-2": 1.0}),
        (["sku-1", "sku-2"], {"sku-1": 1.0, "sku-2": 1.0}),
        (["sku-1", "sku-1"], {"sku-1": 1.0}),
        ({"sku-1", "sku-2"}, {"sku-1": 1.0, "sku-2": 1.0}),
        ({Decimal(42), Decimal("1.5")}, {"42": 1.0, "1.5": 1.0}),
        ([Decimal(42), 43, True, None, {}, b"x"], {"42": 1.0, "43": 1.0}),
        (["plain", ["weighed", 5]], {"plain": 1.0, "weighed": 5.0}),
        ({Decimal("1E+2"): 1}, {"100": 1.0}),
    ],
)
def test_maps_lists_and_sets_become_weights(value: Any, weights: dict[str, float]):
    assert read_signal(WEIGHTS, {"a": value}) == weights


@pytest.mark.parametrize(
    "value", [None, "Volt", 3, True, {}, [], set(), {"a": "no"}, [None], [[]], b"ab", {b"x"}]
)
def test_what_weighs_nothing_is_no_signal(value: Any):
    assert read_signal(WEIGHTS, {"a": value}) is None


@pytest.mark.parametrize(
    ("path", "item", "found"),
    [
        ("a.b", {"a": {"b": 2}}, 2.0),
        ("a.b.c", {"a": {"b": {"c": 3}}}, 3.0),
        ("a.b", {"a": 1}, None),
        ("a.b", {"a": {"c": 1}}, None),
        ("a.b", {"a": None}, None),
        ("a.b", {"a.b": 1}, None),
        ("a", {}, None),
    ],
)
def test_a_dot_leads_into_a_map(path: str, item: dict[str, Any], found: float | None):
    spec = SignalSpec(name="n", attribute=path, kind=SignalKind.NUMBER)

    assert read_signal(spec, item) == found


ABSENT = """
from enrichment.signals import read_signal
from enrichment.spec import SignalSpec
read_signal(SignalSpec(name="w", attribute="a"), {"a": "wrong"})
"""


def test_an_absent_signal_leaves_one_debug_line():
    # In a process of its own, where the level of this one's settings does not hold.
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True
    )

    [line] = done.stdout.splitlines()
    assert "debug" in line
    assert all(word in line for word in ("signal absent", "signal=w", "attribute=a", "found=str"))


_scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
    | st.binary(max_size=3)
)
_attribute = st.recursive(
    _scalar | st.sets(_scalar.filter(lambda v: not isinstance(v, Decimal) or not v.is_snan())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(value=_attribute)
def test_whatever_is_stored_a_signal_is_finite_or_absent(value: Any):
    number = read_signal(NUMBER, {"a": value})
    weights = read_signal(WEIGHTS, {"a": value})

    assert number is None or (isinstance(number, float) and math.isfinite(number))
    assert weights is None or (
        isinstance(weights, dict)
        and len(weights) > 0
        and all(isinstance(key, str) and key for key in weights)
        and all(type(w) is float and math.isfinite(w) for w in weights.values())
    )


@given(weights=st.dictionaries(st.text(min_size=1), st.decimals(-100, 100, places=3), min_size=1))
def test_weights_that_can_be_read_are_read_exactly(weights: dict[str, Decimal]):
    expected = {key: float(weight) for key, weight in weights.items()}

    assert read_signal(WEIGHTS, {"a": weights}) == expected
    assert read_signal(WEIGHTS, {"a": [list(pair) for pair in weights.items()]}) == expected
