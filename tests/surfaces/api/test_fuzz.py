"""Whatever is sent, the answer is the contract's or a problem, and never a fault of the platform."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surfaces.contracts import RecommendRequest, RecommendResponse
from tests.surfaces.api.conftest import (
    SCOPED_KEY,
    Api,
    Publish,
    check_problem,
    open_to_callers,
    surface,
)

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=10,
)
_filter = _any_json | st.dictionaries(
    st.sampled_from(["any", "none", "gte", "gt", "lte", "lt"]), _any_json, max_size=3
)
# Near the contract: its own names, with right and wrong values.
_near = st.dictionaries(
    st.sampled_from(sorted(RecommendRequest.model_fields)) | _text,
    _any_json
    | st.lists(_text, max_size=3)
    | st.dictionaries(st.sampled_from(["price", "category", "title", "region"]), _filter),
    max_size=6,
)
_fuzz = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def fuzzed(api: Api, publish: Publish, gone_index: Any) -> Api:
    filters = open_to_callers("price", "category", "title")
    # Without a browse field what asks nothing is refused, and nothing waits for a model.
    publish(
        surface(filters=filters),
        surface("other", index="none"),
        indexes={"things": gone_index},
    )
    api.client.raise_request_exception = False
    return api


def check(response: Any) -> None:
    assert response.status_code in (200, 400), response.content
    body = orjson.loads(response.content)
    if response.status_code == 200:
        RecommendResponse.model_validate(body)
    else:
        check_problem(body)


@_fuzz
@given(body=_any_json | _near)
def test_any_json_is_answered(fuzzed: Api, body: Any):
    if isinstance(body, dict):
        # A query costs an embedding: the texts go where they cost nothing.
        body = {"user_id" if name == "query" else name: value for name, value in body.items()}
    check(fuzzed.post("shelf", body))


@_fuzz
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered(fuzzed: Api, body: bytes):
    check(fuzzed.send("/api/v1/surfaces/shelf/recommendations", body or b" "))


@_fuzz
@given(query=st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_query_string_is_answered(fuzzed: Api, query: str):
    check(fuzzed.get("shelf", query.replace("query=", "user_id=")))


@_fuzz
@given(
    name=st.sampled_from(["filters[price]", "filters[category][any]", "context[a]", "limit"]),
    value=_text,
)
def test_any_value_of_a_parameter_is_answered(fuzzed: Api, name: str, value: str):
    from urllib.parse import quote

    check(fuzzed.get("shelf", f"{name}={quote(value)}"))


@_fuzz
@given(
    entries=st.lists(
        _any_json | st.fixed_dictionaries({"surface": st.sampled_from(["shelf", "other", "x"])}),
        max_size=3,
    )
)
def test_any_page_is_answered(fuzzed: Api, entries: list[Any]):
    response = Api(SCOPED_KEY, fuzzed.client).page({"requests": entries})

    if response.status_code == 400:
        check_problem(orjson.loads(response.content))
        return
    answers = orjson.loads(response.content)["responses"]
    assert len(answers) == len(entries)
    for answer in answers:
        if "code" in answer:
            check_problem(answer)
            assert answer["status"] < 500
        else:
            RecommendResponse.model_validate(answer)


@_fuzz
@given(
    headers=st.dictionaries(
        st.sampled_from(["Authorization", "X-Request-Id", "Content-Type", "Accept", "Host"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
    )
)
def test_any_headers_are_answered(fuzzed: Api, headers: dict[str, str]):
    response = fuzzed.post("shelf", {}, **headers)

    assert response.status_code < 500
    if response.status_code != 200:
        check_problem(orjson.loads(response.content))
