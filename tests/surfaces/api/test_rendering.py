import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surfaces.api.rendering import to_json
from surfaces.contracts import Debug, Degraded, Explanation, Fallback, Item, RecommendResponse

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_number = st.floats(allow_nan=False, allow_infinity=False)
_explanation = st.builds(
    Explanation,
    similarity=st.none() | _number,
    distance=st.none() | _number,
    retrieved_rank=st.integers(1, 100),
    parts=st.dictionaries(_text, _number, max_size=3),
)
_items = st.builds(
    Item,
    id=_text,
    rank=st.integers(1, 100),
    score=_number,
    fields=st.dictionaries(_text, _text | _number | st.lists(_text), max_size=3),
    explanation=st.none() | _explanation,
)


_responses = st.builds(
    RecommendResponse,
    request_id=_text,
    surface=_text,
    revision=st.integers(1, 1000),
    build=st.none() | _text,
    items=st.lists(_items, max_size=3),
    degraded=st.lists(st.builds(Degraded, stage=_text, reason=_text, spent_ms=_number), max_size=2),
    fallback=st.none() | st.builds(Fallback, level=_text, reason=_text, age_s=st.none() | _number),
    timings_ms=st.dictionaries(_text, _number, max_size=2),
    debug=st.none() | st.builds(Debug, search=st.none() | _text, candidates=st.integers(0, 99)),
)


@settings(max_examples=60)
@given(_responses)
def test_the_bytes_are_those_of_the_contract(response: RecommendResponse):
    expected = response.model_dump(mode="json")
    if response.debug is None:
        del expected["debug"]
    for item in expected["items"]:
        if item["explanation"] is None:
            del item["explanation"]

    rendered = orjson.loads(to_json(response))

    assert rendered == expected
    assert RecommendResponse.model_validate(rendered) == response


def test_what_has_no_json_form_is_an_error_and_not_half_an_answer():
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json({"fields": object()})
