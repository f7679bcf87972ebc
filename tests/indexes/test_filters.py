"""Filters: what callers send, the query text, and what the engine makes of it."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexes import search
from indexes.errors import FilterError
from indexes.filters import (
    EVERYTHING,
    NOTHING,
    AnyOf,
    Clause,
    NoneOf,
    Nothing,
    Range,
    Words,
    compile_filter,
    matches,
    parse_caller_filter,
    parse_values,
)
from tests.indexes.conftest import FIELDS, direction, spec_of

SPEC = spec_of()
TITLE, BRAND, CATEGORY, PRICE, EXTRA = FIELDS


@pytest.mark.parametrize(
    ("clauses", "text"),
    [
        ([], EVERYTHING),
        ([AnyOf("brand", ("acme",))], "(@brand:{acme})"),
        ([AnyOf("brand", ("acme", "Über"))], "(@brand:{acme|Über})"),
        ([AnyOf("brand", (" acme\n",))], "(@brand:{acme})"),
        ([AnyOf("brand", ("a b",))], r"(@brand:{a\ b})"),
        ([AnyOf("brand", ("a_b",))], r"(@brand:{a\_b})"),
        ([AnyOf("brand", ("a\tb\nc",))], "(@brand:{a\\\tb\\\nc})"),
        ([AnyOf("brand", ("a|b}=>[KNN 5",))], r"(@brand:{a\|b\}\=\>\[KNN\ 5})"),
        ([AnyOf("brand", (r"c:\dir",))], r"(@brand:{c\:\\dir})"),
        ([AnyOf("brand", ("*x",))], r"(@brand:{\*x})"),
        ([AnyOf("brand", (string.punctuation,))],
         "(@brand:{" + "".join(f"\\{c}" for c in string.punctuation) + "})"),
        ([NoneOf("brand", ("a", "b"))], "((-@brand:{a|b}))"),
        ([NoneOf("brand", ("a",)), NoneOf("brand", ("b",))], "((-@brand:{a}) (-@brand:{b}))"),
        ([AnyOf("brand", ("",))], NOTHING),
        ([AnyOf("brand", ())], NOTHING),
        ([NoneOf("brand", ("",))], EVERYTHING),
        ([AnyOf("price", (5,))], "(@price:[5 5])"),
        ([AnyOf("price", (5.0, 0.1))], "((@price:[5 5] | @price:[0.1 0.1]))"),
        ([NoneOf("price", (5, 6))], "((-@price:[5 5] -@price:[6 6]))"),
        ([Range("price")], "(@price:[-inf +inf])"),
        ([Range("price", gte=5)], "(@price:[5 +inf])"),
        ([Range("price", gt=5, lte=7.5)], "(@price:[(5 7.5])"),
        ([Range("price", lt=-1)], "(@price:[-inf (-1])"),
        ([Range("price", gte=5, gt=5)], "(@price:[(5 +inf])"),
        ([Range("price", gte=6, gt=5)], "(@price:[6 +inf])"),
        ([Range("price", lte=5, lt=5)], "(@price:[-inf (5])"),
        ([Range("price", gte=1e22)], "(@price:[1e22 +inf])"),
        ([Range("price", gte=1e-7)], "(@price:[1e-07 +inf])"),
        ([Range("price", gte=True)], "(@price:[1 +inf])"),
        ([Range("price", gte=5, lte=5)], "(@price:[5 5])"),
        ([Range("price", gte=5, lt=5)], NOTHING),
        ([Range("price", gt=5, lte=5)], NOTHING),
        ([Range("price", gte=6, lte=5)], NOTHING),
        ([Words("title", "Red  SHOES")], "((@title:red @title:shoes))"),
        ([Words("title", "c++ 50% don't @x:{y}")],
         "((@title:c @title:50 @title:don @title:t @title:x @title:y))"),
        ([Words("title", "AND the not_ _")], "((@title:and @title:the @title:not_))"),
        ([Words("title", "…")], "((@title:…))"),
        ([Words("title", "*?!")], NOTHING),
        ([Nothing()], NOTHING),
        ([AnyOf("brand", ("a",)), Nothing()], NOTHING),
        ([AnyOf("brand", ("a",)), Range("price", gte=1, lt=2), Words("title", "x")],
         "(@brand:{a} @price:[1 (2] (@title:x))"),
    ],
)  # fmt: skip
def test_query_text(clauses, text):
    assert compile_filter(clauses, SPEC) == text


@pytest.mark.parametrize(
    ("clause", "named"),
    [
        (AnyOf("nosuch", ("a",)), "nosuch"),
        (AnyOf("brand", ("a\x00b",)), "brand"),
        # RediSearch drops control characters and would find "ab" or "a b".
        (AnyOf("brand", ("a\x01b",)), "brand"),
        (NoneOf("brand", ("a\x7fb",)), "brand"),
        (AnyOf("brand", ("\ud800",)), "brand"),
        # valkey-search would find every value that starts with "ab".
        (AnyOf("brand", ("ab*",)), "brand"),
        (AnyOf("price", (float("nan"),)), "price"),
        (AnyOf("price", (float("inf"),)), "price"),
        (AnyOf("price", ("cheap",)), "price"),
        (AnyOf("title", ("a",)), "title"),
        (AnyOf("extra", ("a",)), "extra"),
        (Range("price", gte=float("nan")), "price"),
        (Range("price", lt=10**400), "price"),
        (Range("brand", gte=1), "brand"),
        (Words("brand", "x"), "brand"),
        (Words("title", "a\x00b"), "title"),
        (AnyOf("brand", tuple(f"value-{n}" for n in range(2000))), "brand"),
    ],
)
def test_what_the_index_cannot_answer_is_refused_by_field(clause, named):
    with pytest.raises(FilterError) as caught:
        compile_filter([AnyOf("category", ("shoes",)), clause], SPEC)
    assert caught.value.field == named
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("field", "value", "clauses"),
    [
        (BRAND, "acme", (AnyOf("brand", ("acme",)),)),
        (BRAND, ["a", "b"], (AnyOf("brand", ("a", "b")),)),
        (BRAND, True, (AnyOf("brand", ("true",)),)),
        (BRAND, [5, 5.5], (AnyOf("brand", ("5", "5.5")),)),
        (BRAND, {"any": "a", "none": ["b"]}, (AnyOf("brand", ("a",)), NoneOf("brand", ("b",)))),
        (PRICE, 5, (AnyOf("price", (5,)),)),
        (PRICE, "5.5", (AnyOf("price", (5.5,)),)),
        (PRICE, {"gte": 1, "lt": "2"}, (Range("price", gte=1, lt=2),)),
        (PRICE, {"gte": "2024-01-01"}, (Range("price", gte=1704067200),)),
        (PRICE, {"none": [0], "lte": 9}, (NoneOf("price", (0,)), Range("price", lte=9))),
        (TITLE, "red shoes", (Words("title", "red shoes"),)),
    ],
)
def test_what_callers_may_send(field, value, clauses):
    assert parse_caller_filter(field, value) == clauses


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (BRAND, None),
        (BRAND, []),
        (BRAND, [None]),
        (BRAND, [["a"]]),
        (BRAND, {}),
        (BRAND, {"like": "a"}),
        (BRAND, {"any": []}),
        (BRAND, {"any": {"any": "a"}}),
        (BRAND, {"gte": 1}),
        (BRAND, "a*"),
        (PRICE, "cheap"),
        (PRICE, {"gte": None}),
        (PRICE, {"gte": [1]}),
        (PRICE, "1_000"),
        (PRICE, "nan"),
        (PRICE, 10**400),
        (TITLE, ["a", "b"]),
        (TITLE, {"any": ["a"]}),
        (TITLE, "!?"),
        (EXTRA, "a"),
    ],
)
def test_what_callers_may_not_send_is_refused_by_field(field, value):
    with pytest.raises(FilterError) as caught:
        parse_caller_filter(field, value)
    named, _, bound = caught.value.field.partition(".")
    assert named == field.name
    # A bound is named too, when it is what is wrong.
    assert bound == ("gte" if field is PRICE and isinstance(value, dict) else "")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("field", "operator", "values", "clause"),
    [
        (BRAND, "any_of", ["a", "b"], AnyOf("brand", ("a", "b"))),
        (BRAND, "none_of", ["a"], NoneOf("brand", ("a",))),
        (PRICE, "any_of", ["1", 2.5], AnyOf("price", (1, 2.5))),
        (PRICE, "at_least", ["10"], Range("price", gte=10)),
        (PRICE, "at_most", [10.5], Range("price", lte=10.5)),
        (TITLE, "words", ["red", "shoes"], Words("title", "red shoes")),
    ],
)
def test_configured_operators(field, operator, values, clause):
    assert parse_values(field, operator, values) == clause


@pytest.mark.parametrize(
    ("field", "operator", "values"),
    [
        (BRAND, "any_of", []),
        (BRAND, "at_least", ["1"]),
        (BRAND, "words", ["a"]),
        (PRICE, "at_least", ["1", "2"]),
        (PRICE, "at_least", []),
        (PRICE, "any_of", ["a lot"]),
        (TITLE, "any_of", ["a"]),
        (TITLE, "words", []),
        (BRAND, "starts_with", ["a"]),
    ],
)
def test_configured_values_that_do_not_fit_are_refused(field, operator, values):
    with pytest.raises(FilterError) as caught:
        parse_values(field, operator, values)
    assert caught.value.field == field.name


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["any", "none", "gte", "gt", "lte", "lt", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.sampled_from(FIELDS), json_values)
def test_any_json_compiles_or_is_refused(field, value):
    try:
        text = compile_filter(parse_caller_filter(field, value), SPEC)
    except FilterError:
        return
    assert text in (EVERYTHING, NOTHING) or (text[0] == "(" and text[-1] == ")")


# What stands in an item, what is asked, and whether the engine finds it: one
# table for the engine and for the plain re-check, so that the two agree.
AGREEMENT: list[tuple[dict[str, Any], Clause, bool]] = [
    *[
        ({"brand": value}, AnyOf("brand", (value,)), True)
        for value in (
            "a b", "a,b", "x-y", 'q"q', "it's", "b{r", "b}r", "p|p", "k\\s", "a*c", "d$1", "$d",
            "c:x", "a@x", "d.x", "u/v", "5%", "p(x)", "s[1]", "a&b", "s;t", "c#", "c++", "a=b",
            "a<b", "~t", "n!", "w?", "a_b", "café", "ÉTÉ", "😀", "日本", "2024", "-neg", "a\tb",
            "a\nb", "a  b", "3f2a-9b1c", "jo.e@x-y.com", "http://a.b/c?d=1", "the", "z",
            "=>[KNN 5 @v $q]", "AT|T", "_", "_ _",
        )
    ],
    ({"brand": "Acme"}, AnyOf("brand", ("aCME",)), True),
    ({"brand": "acme"}, AnyOf("brand", ("acm",)), False),
    ({"brand": "ÉTÉ"}, AnyOf("brand", ("été",)), False),
    ({"brand": "a b"}, AnyOf("brand", ("ab",)), False),
    ({"brand": "AT|T"}, AnyOf("brand", ("AT",)), False),
    ({"brand": "acme"}, AnyOf("brand", ("other", "acme")), True),
    ({"brand": "acme"}, NoneOf("brand", ("acme",)), False),
    ({"brand": "acme"}, NoneOf("brand", ("other",)), True),
    ({"price": 5}, NoneOf("brand", ("other",)), True),
    ({"category": ["red shoes", "sale"]}, AnyOf("category", ("sale",)), True),
    ({"category": ["red shoes", "sale"]}, AnyOf("category", ("red shoes",)), True),
    ({"category": ["red shoes", "sale"]}, AnyOf("category", ("shoes",)), False),
    ({"category": ["red shoes", "sale"]}, NoneOf("category", ("new", "sale")), False),
    ({"price": 5}, AnyOf("price", (5,)), True),
    ({"price": 0.1}, AnyOf("price", (7, 0.1)), True),
    ({"price": 5}, NoneOf("price", (5,)), False),
    ({"price": 5}, Range("price", gt=5), False),
    ({"price": 5}, Range("price", gte=5, lte=5), True),
    ({"price": -3.5}, Range("price", lt=-3), True),
    ({"price": 1e22}, AnyOf("price", (1e22,)), True),
    ({"price": 1e-7}, Range("price", gt=0, lte=1e-7), True),
    ({"brand": "x"}, Range("price", gte=0), False),
    ({"title": "The Running Shoes"}, Words("title", "shoes the"), True),
    ({"title": "The Running Shoes"}, Words("title", "run"), False),
    ({"title": "The Running Shoes"}, Words("title", "shoes red"), False),
    ({"title": "C++ guide, don't panic (50%)"}, Words("title", "c++ don't 50%"), True),
    ({"title": "x-ray path/to_file"}, Words("title", "X ray to_file"), True),
    ({"title": "日本語 文字"}, Words("title", "文字"), True),
    ({"title": "café noir"}, Words("title", "CAFÉ"), True),
    ({"brand": "x"}, Words("title", "x"), False),
]  # fmt: skip


def test_the_engine_and_the_re_check_agree(make_index):
    live = make_index({str(n): (direction(0), held) for n, (held, _, _) in enumerate(AGREEMENT)})
    everything = len(AGREEMENT)
    wrong = []
    for number, (held, clause, expected) in enumerate(AGREEMENT):
        found = search.knn(
            live, direction(0), k=everything, clauses=[clause], fields=[], timeout_s=5
        )
        in_engine = str(number) in {hit.id for hit in found.hits}
        if (in_engine, matches([clause], held)) != (expected, expected):
            wrong.append((held, clause, in_engine, found.command))
    assert wrong == []


def test_clauses_are_all_required(make_index):
    items = {
        f"{brand}-{price}": (direction(0), {"brand": brand, "price": price})
        for brand in "abc"
        for price in (1, 2, 3)
    }
    live = make_index(items)
    clauses: list[Clause] = [NoneOf("brand", ("a",)), Range("price", gt=1), NoneOf("price", (3,))]
    found = search.knn(live, direction(0), k=10, clauses=clauses, fields=[], timeout_s=5)
    assert {hit.id for hit in found.hits} == {"b-2", "c-2"}


typed = st.text(
    st.characters(codec="utf-8") | st.sampled_from(string.punctuation + string.whitespace),
    min_size=1,
    max_size=12,
)


def test_nothing_that_can_be_typed_breaks_a_query(make_index):
    live = make_index({"one": (direction(0), {"brand": "x", "title": "x", "price": 1})})

    @settings(max_examples=200, deadline=None, database=None)
    @given(tag=typed, text=typed, number=st.floats() | st.integers())
    def ask(tag, text, number):
        clauses: list[Clause] = []
        for field, value in ((BRAND, tag), (TITLE, text), (PRICE, {"lte": number})):
            try:
                clauses += parse_caller_filter(field, value)
            except FilterError:
                continue
        for clause in clauses:
            search.knn(live, direction(0), k=1, clauses=[clause], fields=[], timeout_s=5)
        search.browse(
            live,
            sort_by="price",
            descending=False,
            k=1,
            clauses=clauses,
            fields=[],
            timeout_s=5,
        )

    ask()


def test_a_tag_value_finds_itself_and_no_other(make_index):
    @settings(max_examples=15, deadline=None, database=None)
    @given(st.lists(typed, min_size=2, max_size=12, unique_by=lambda text: text.strip().lower()))
    def ask(values):
        held: dict[str, str] = {}
        for value in values:
            try:
                parse_caller_filter(BRAND, value)
            except FilterError:
                continue
            held[str(len(held))] = value
        live = make_index({n: (direction(0), {"brand": value}) for n, value in held.items()})
        for number, value in held.items():
            found = search.knn(
                live,
                direction(0),
                k=len(held),
                clauses=[AnyOf("brand", (value,))],
                fields=["brand"],
                timeout_s=5,
            )
            expected = {number} if value.strip(string.whitespace) else set()
            assert {hit.id for hit in found.hits} == expected

    ask()
