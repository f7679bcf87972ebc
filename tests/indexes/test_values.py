"""Values on the way into a hash and out of it."""

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.schema import FieldType
from indexes.values import as_number, decode, encode, tag_text, words
from tests.indexes.conftest import field

TAG = field("f", FieldType.TAG)
TAGS = field("f", FieldType.TAG, multiple=True)
NUMBER = field("f", FieldType.NUMERIC)
TEXT = field("f", FieldType.TEXT)
STORED = field("f", FieldType.STORED)


@pytest.mark.parametrize(
    ("spec", "value", "raw", "back"),
    [
        (TAG, " Acme ", b"Acme", "Acme"),
        (TAG, "AT|T", b"AT|T", "AT|T"),
        (TAG, True, b"true", "true"),
        (TAG, 5.0, b"5", "5"),
        (TAG, "a\x00b\x1fc", b"abc", "abc"),
        (TAGS, ["a", " b ", "", None, 3], b"a|b|3", ["a", "b", "3"]),
        (TAGS, ["\x01", "a", "\x02 b"], b"a|b", ["a", "b"]),
        (TAGS, "a|b", b"a|b", ["a", "b"]),
        (TAGS, "|a| |b |", b"a|b", ["a", "b"]),
        (TAGS, "a", b"a", ["a"]),
        (NUMBER, 5, b"5", 5),
        (NUMBER, 5.0, b"5", 5),
        (NUMBER, 0.1, b"0.1", 0.1),
        (NUMBER, "12.50", b"12.5", 12.5),
        (NUMBER, True, b"1", 1),
        (NUMBER, "2024-01-01", b"1704067200", 1704067200),
        (NUMBER, "2024-01-01T01:00:00+01:00", b"1704067200", 1704067200),
        # No count any more, and too long for JSON writers.
        (NUMBER, 1e22, b"10000000000000000000000", 1e22),
        (TEXT, "Café ☕", "Café ☕".encode(), "Café ☕"),
        (TEXT, 7, b"7", "7"),
        (TEXT, ["a", "b"], b"a b", "a b"),
        (STORED, "plain", b"plain", "plain"),
        (STORED, "", b"", ""),
        (STORED, "true", b"true", "true"),
        (STORED, True, b"\x00true", True),
        (STORED, {"a": [1, None]}, b'\x00{"a":[1,null]}', {"a": [1, None]}),
        (STORED, "\x00{}", b'\x00"\\u0000{}"', "\x00{}"),
    ],
)
def test_there_and_back(spec, value, raw, back):
    assert encode(spec, value) == raw
    decoded = decode(spec, raw)
    assert decoded == back
    assert type(decoded) is type(back)


@pytest.mark.parametrize(
    ("spec", "value"),
    [(TAG, ""), (TAG, " "), (TAGS, []), (TAGS, "|"), (NUMBER, ""), (TEXT, ""), (STORED, None)],
)
def test_empty_values_are_left_out(spec, value):
    """An empty tag or number would count as a failure of the engine."""
    assert encode(spec, value) is None
    assert encode(spec, None) is None


@pytest.mark.parametrize(
    ("spec", "value", "reason"),
    [
        (TAG, ["a", "b"], "several values"),
        (TAG, {"a": 1}, "an object"),
        (TAGS, ["a|b"], "the separator"),
        (TAGS, [["a"]], "a list"),
        (NUMBER, "cheap", "not a number"),
        (NUMBER, "1_000", "not a number"),
        (NUMBER, "nan", "not a number"),
        (NUMBER, math.inf, "not finite"),
        (NUMBER, math.nan, "not finite"),
        (NUMBER, 10**400, "not finite"),
        (NUMBER, [1], "a list"),
        (TEXT, {"a": 1}, "an object"),
        (TEXT, "\ud800", "broken Unicode"),
        (STORED, object(), "JSON"),
    ],
)
def test_values_that_do_not_fit_say_why(spec, value, reason):
    with pytest.raises(ValueError, match=reason):
        encode(spec, value)


@pytest.mark.parametrize("damaged", [b'{"a": [1', b"", b"nan", b"\xff", b"[" * 2000])
def test_a_stored_value_that_is_damaged_is_shown_as_it_is(damaged):
    assert decode(STORED, b"\x00" + damaged) == damaged.decode("utf-8", "replace")


def test_a_number_that_the_hash_does_not_hold_is_shown_as_it_is():
    assert decode(NUMBER, b"n/a") == "n/a"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (date(2024, 1, 1), 1704067200),
        (datetime(2024, 1, 1, tzinfo=UTC), 1704067200),
        ("+5", 5),
        (" 5 ", 5),
        ("1e3", 1000),
        ("2024-01-01 00:00:00.5", 1704067200.5),
    ],
)
def test_numbers(value, number):
    assert as_number(value) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red  SHOES", ["red", "shoes"]),
        ("c++ don't x_y", ["c", "don", "t", "x_y"]),
        ("tab\tnew\nline\x01end", ["tab", "new", "line", "end"]),
        ("_ __ a_", ["a_"]),
        ("日本語 文字", ["日本語", "文字"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(json_values)
def test_whatever_is_stored_comes_back_equal(value: Any):
    raw = encode(STORED, value)
    assert (raw is None) == (value is None)
    if raw is not None:
        assert decode(STORED, raw) == value


@given(st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_equal(value: float):
    raw = encode(NUMBER, value)
    assert raw is not None
    assert decode(NUMBER, raw) == value


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="|"))))
def test_tags_come_back_as_the_filter_writes_them(values: list[str]):
    raw = encode(TAGS, values)
    alone = [tag_text((encode(TAG, value) or b"").decode()) for value in values]
    assert ([] if raw is None else decode(TAGS, raw)) == [text for text in alone if text]
