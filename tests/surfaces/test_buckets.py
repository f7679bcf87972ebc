"""Buckets: the same for everybody who can hash, so their numbers are part of the contract."""

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces import buckets
from surfaces.buckets import bucket, unit_of

pytestmark = pytest.mark.unit

VECTORS = [
    ("canary:products-v3", "session-1", 0.3473072875849553),
    ("canary:products-v3", "session-2", 0.5595134919109725),
    ("canary:products-v4", "session-1", 0.9621073530522923),
    ("canary:products-v3", "", 0.14186623270079324),
    ("canary:products-v3", "Zoë", 0.4007963168097466),
]


@pytest.mark.parametrize(("salt", "unit", "expected"), VECTORS)
def test_published_vectors(salt, unit, expected):
    assert bucket(salt, unit) == expected


def test_the_module_tells_these_vectors():
    told = re.findall(r"^    (canary:\S+) +(\S+) +(0\.\d+)$", buckets.__doc__, re.MULTILINE)
    assert [(salt, unit.replace("(empty)", ""), float(number)) for salt, unit, number in told] == (
        VECTORS
    )


@given(st.text(max_size=20), st.text(max_size=50))
def test_is_what_its_description_says(salt, unit):
    bits = "".join(f"{byte:08b}" for byte in sha256(f"{salt}\x1f{unit}".encode()).digest())
    assert bucket(salt, unit) == int(bits[:53], 2) / 2**53
    assert 0 <= bucket(salt, unit) < 1


@given(st.text(st.characters(), max_size=20))
def test_every_text_of_a_request_has_a_place(unit):
    assert 0 <= bucket("s", unit) < 1


def test_shares_are_what_they_are_called_and_salts_are_independent():
    units = [f"session-{number}" for number in range(20_000)]
    first = {unit for unit in units if bucket("a", unit) < 0.1}
    second = {unit for unit in units if bucket("b", unit) < 0.1}
    assert len(first) / len(units) == pytest.approx(0.1, abs=0.01)
    assert len(first & second) / len(units) == pytest.approx(0.01, abs=0.004)


@pytest.mark.parametrize(
    ("session", "user", "unit"),
    [("s", "u", "s"), (None, "u", "u"), ("", "u", "u"), ("", "", "r"), (None, None, "r")],
)
def test_the_unit_is_what_stays_longest(session, user, unit):
    assert unit_of(session, user, "r") == unit
