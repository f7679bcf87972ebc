from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.api.bodies import parse_query, parse_request
from surfaces.api.problems import ApiProblem
from surfaces.contracts import RecommendRequest
from surfaces.errors import BadRequest
from tests.surfaces.api.conftest import Api, assert_problem


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", {}),
        ("query=red+shoes", {"query": "red shoes"}),
        ("query=caf%C3%A9", {"query": "café"}),
        ("item_ids=a,b&item_ids=c", {"item_ids": ["a", "b", "c"]}),
        ("item_ids=,a,,", {"item_ids": ["a"]}),
        ("exclude_ids=x", {"exclude_ids": ["x"]}),
        ("limit=5&explain=1", {"limit": 5, "explain": True}),
        ("explain=TRUE", {"explain": True}),
        ("explain=0", {"explain": False}),
        ("query=&limit=&user_id=", {}),
        ("filters[category]=skin", {"filters": {"category": "skin"}}),
        ("filters[category]=a&filters[category]=b", {"filters": {"category": ["a", "b"]}}),
        ("filters%5Bprice%5D%5Blte%5D=30", {"filters": {"price": {"lte": "30"}}}),
        (
            "filters[price][gte]=1&filters[price][lt]=2",
            {"filters": {"price": {"gte": "1", "lt": "2"}}},
        ),
        (
            "filters[brand][none]=a&filters[brand][none]=b",
            {"filters": {"brand": {"none": ["a", "b"]}}},
        ),
        ("context[region]=us&context[n]=3", {"context": {"region": "us", "n": "3"}}),
        ("filters[a.b]=x&filters[c-d]=y", {"filters": {"a.b": "x", "c-d": "y"}}),
    ],
)
def test_a_query_string_is_the_body_that_post_takes(query: str, value: dict[str, Any]):
    assert parse_query(query) == value


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("colour=red", ["colour"]),
        ("limit=1&limit=2", ["limit"]),
        ("query=a&query=b&user_id=1&user_id=2", ["query", "user_id"]),
        ("filters=x", ["filters"]),
        ("filters[]=x", ["filters[]"]),
        ("filters[a", ["filters[a"]),
        ("filters[a=1", ["filters[a"]),
        ("filters[a][b][c]=1", ["filters[a][b][c]"]),
        ("filters[a]=1&filters[a][lte]=2", ["filters.a"]),
        ("filters[a][lte]=2&filters[a]=1", ["filters.a"]),
        ("filters[a][lte]=2&filters[a][lte]=3", ["filters.a.lte"]),
        ("context[a][b]=1", ["context.a.b"]),
        ("context[a]=1&context[a]=2", ["context.a"]),
        ("item_ids[]=a", ["item_ids[]"]),
    ],
)
def test_a_wrong_parameter_is_named(query: str, fields: list[str]):
    if "=" not in query:
        query += "=x"
    with pytest.raises(BadRequest) as caught:
        parse_query(query)

    assert [error.field for error in caught.value.errors] == fields


@pytest.mark.parametrize("query", ["limit=three", "limit=1.5", "limit=-1", "limit=" + "9" * 5000])
def test_a_limit_that_is_no_count_is_named(api: Api, shelf: str, query: str):
    assert_problem(api.get(shelf, query), 400, "bad_request", "limit")


@pytest.mark.parametrize("query", ["query=%ff", "query=\xff", "%ed%a0%80=1"])
def test_a_query_string_in_another_encoding_is_refused(api: Api, shelf: str, query: str):
    problem = assert_problem(api.get(shelf, query), 400, "malformed_query")

    assert "UTF-8" in problem["detail"]


def test_too_many_parameters_are_refused():
    with pytest.raises(ApiProblem) as caught:
        parse_query("&".join(f"context[k{n}]=1" for n in range(1001)))

    assert caught.value.code == "malformed_query"


def test_a_very_long_query_is_named(api: Api, shelf: str):
    assert_problem(api.get(shelf, "query=" + "x" * 60_000), 400, "bad_request", "query")


_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_key = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[]"), min_size=1)
_id = _text.filter(lambda text: "," not in text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "query": _text,
            "item_ids": st.lists(_id, min_size=1, max_size=3),
            "exclude_ids": st.lists(_id, min_size=1, max_size=3),
            "user_id": _text,
            "limit": st.integers(1, 1000),
            "explain": st.booleans(),
            "context": st.dictionaries(
                _key.map(lambda key: key[:64]), _text, min_size=1, max_size=3
            ),
            "filters": st.dictionaries(
                _key.map(lambda key: key[:64]),
                _text | st.dictionaries(st.sampled_from(["lte", "gt"]), _text, min_size=1),
                min_size=1,
                max_size=3,
            ),
        },
    )
)
def test_whatever_get_can_say_is_the_request_that_post_makes_of_it(body: dict[str, Any]):
    assert parse_request(parse_query(_written(body))) == RecommendRequest.model_validate(body)


def _written(body: dict[str, Any]) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in body.items():
        if name in ("item_ids", "exclude_ids"):
            pairs.append((name, ",".join(value)))
        elif name == "explain":
            pairs.append((name, str(value).lower()))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, dict):
                    pairs += [(f"{name}[{key}][{op}]", text) for op, text in inner.items()]
                else:
                    pairs.append((f"{name}[{key}]", inner))
        else:
            pairs.append((name, str(value)))
    return urlencode(pairs, quote_via=quote)
