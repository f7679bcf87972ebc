import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes.filters import AnyOf, NoneOf, Nothing, Range
from surfaces.binding import bind
from surfaces.contracts import RecommendRequest
from surfaces.errors import BadRequest
from tests.surfaces.builders import bound, opened, plan, source, static

pytestmark = pytest.mark.unit


def question(plan, **request):
    return bind(plan, RecommendRequest(**{"query": "shoes", **request}))


def errors(plan, **request):
    with pytest.raises(BadRequest) as caught:
        bind(plan, RecommendRequest(**request))
    return [(error.field, error.code) for error in caught.value.errors]


def test_clauses_are_the_fixed_then_the_contexts_then_the_callers():
    made = plan(filters=(opened("price"), bound("region", "where"), static("in_stock", "true")))
    asked = question(made, context={"where": "us"}, filters={"price": {"lte": 30, "gt": 1}})
    assert asked.clauses == (
        AnyOf("in_stock", ("true",)),
        AnyOf("region", ("us",)),
        Range("price", lte=30, gt=1),
    )


@pytest.mark.parametrize(
    ("given", "clause"),
    [
        (True, AnyOf("brand", ("true",))),
        (7, AnyOf("brand", ("7",))),
        (7.0, AnyOf("brand", ("7",))),
        (7.5, AnyOf("brand", ("7.5",))),
        ("it's {odd}|*x", AnyOf("brand", ("it's {odd}|*x",))),
    ],
)
def test_context_values_are_written_as_tags_are(given, clause):
    made = plan(filters=(bound("brand", "b"),))
    assert question(made, context={"b": given}).clauses == (clause,)


def test_a_number_field_takes_a_number_of_the_context():
    made = plan(filters=(bound("price", "budget", operator="at_most"),))
    assert question(made, context={"budget": 30}).clauses == (Range("price", lte=30),)
    assert errors(made, query="x", context={"budget": "cheap"}) == [("context.budget", "invalid")]
    assert errors(made, query="x", context={"budget": float("nan")}) == [
        ("context.budget", "invalid")
    ]


def test_the_request_itself_may_be_filtered_by():
    made = plan(filters=(bound("brand", "user_id", operator="none_of"),))
    assert question(made, user_id="acme").clauses == (NoneOf("brand", ("acme",)),)


def test_context_cannot_stand_in_for_the_request():
    made = plan(filters=(bound("brand", "user_id", missing="refuse"),))
    assert errors(made, query="x", context={"user_id": "acme"}) == [("user_id", "required")]


def test_a_wrong_bound_is_named_below_its_field():
    made = plan(filters=(opened("price"),))
    assert errors(made, query="x", filters={"price": {"gte": "low", "lte": 3}}) == [
        ("filters.price.gte", "invalid")
    ]


@pytest.mark.parametrize("context", [{}, {"region": None}, {"region": ""}])
def test_a_missing_value_follows_its_rule(context):
    skip = plan(filters=(bound("region", "region"),))
    assert question(skip, context=context).clauses == ()
    nothing = plan(filters=(bound("region", "region", missing="nothing"),))
    assert question(nothing, context=context).clauses == (Nothing(),)
    assert question(nothing, context=context).matches_nothing
    refuse = plan(filters=(bound("region", "region", missing="refuse"),))
    assert errors(refuse, query="x", context=context) == [("context.region", "required")]


def test_a_missing_filter_of_the_caller_follows_its_rule():
    assert errors(plan(filters=(opened("price", missing="refuse"),)), query="x") == [
        ("filters.price", "required")
    ]
    assert question(plan(filters=(opened("price", missing="nothing"),))).matches_nothing
    assert question(plan(filters=(opened("price"),))).clauses == ()


def test_only_opened_fields_can_be_filtered_by():
    made = plan(filters=(opened("price"), static("brand", "acme")))
    assert errors(made, query="x", filters={"brand": "zen", "nosuch": 1}) == [
        ("filters.brand", "not_open"),
        ("filters.nosuch", "not_open"),
    ]


def test_every_wrong_field_is_named_at_once():
    made = plan(
        filters=(opened("price"), bound("region", "region", missing="refuse")),
        sources=(source(required=True),),
        max_limit=5,
    )
    assert errors(made, limit=6, filters={"price": "cheap", "x": 1}) == [
        ("query", "required"),
        ("limit", "too_large"),
        ("context.region", "required"),
        ("filters.price", "invalid"),
        ("filters.x", "not_open"),
        ("user_id", "required"),
    ]


def test_a_filter_too_long_for_the_engine_is_refused():
    made = plan(filters=(opened("brand"),))
    assert errors(made, query="x", filters={"brand": [f"b{n}" * 9 for n in range(1000)]}) == [
        ("filters", "invalid")
    ]


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_a_blank_query_is_none(text):
    assert errors(plan(), query=text) == [("query", "required")]
    assert question(plan(), query=text, item_ids=["s1"]).text == ""


@pytest.mark.parametrize(
    "start",
    [
        {"default_query": "gifts"},
        {"browse_field": "price"},
        {"seed_signal": "liked", "sources": (source(),)},
    ],
)
def test_a_surface_with_a_start_of_its_own_needs_no_query(start):
    assert question(plan(**start), query=None).text == ""


def test_limits():
    assert question(plan(limit=3)).limit == 3
    assert question(plan(limit=3), limit=5).limit == 5


def test_given_items_are_excluded_with_the_excluded():
    asked = question(plan(), item_ids=["b", "a", "b"], exclude_ids=["c"])
    assert asked.seeds == ("b", "a")
    assert asked.excluded == {"a", "b", "c"}


def test_a_source_without_its_values_is_left_out():
    made = plan(sources=(source("prefs"), source("local", "s", key_template="AT#{context.city}")))
    assert [s.spec.slug for s in question(made, user_id="u1").sources] == ["prefs"]
    asked = question(made, context={"city": 12.0})
    assert [s.spec.slug for s in asked.sources] == ["local"]
    assert asked.values == {"city": "12"}


def test_a_required_source_without_its_values_refuses():
    made = plan(sources=(source(required=True, key_template="{user_id}#{city}#{session_id}"),))
    assert errors(made, query="x", user_id="") == [
        ("user_id", "required"),
        ("context.city", "required"),
        ("session_id", "required"),
    ]


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["{|}@*\"'\\", "\x00", "\ud800", "*", "-inf", "2020-01-01"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["any", "none", "gte", "gt", "lte", "lt", "x"]), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["brand", "category", "price", "title", "x"]), json_values, max_size=4
    ),
    st.dictionaries(st.sampled_from(["r", "n", "t"]), st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)
    )),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_bound_or_refused(filters, context):
    made = plan(
        filters=(
            opened("brand"),
            opened("category"),
            opened("price"),
            opened("title"),
            bound("region", "r"),
            bound("rating", "n", operator="at_least"),
            bound("title", "t", operator="words"),
        )
    )
    request = RecommendRequest.model_construct(
        query="x", item_ids=[], exclude_ids=[], user_id=None, session_id=None,
        context=context, filters=filters, limit=None, explain=False,
    )  # fmt: skip
    known = {"filters", *(f"filters.{n}" for n in filters), *(f"context.{n}" for n in context)}
    refused: set[str] = set()
    try:
        bind(made, request)
    except BadRequest as error:
        # A bound is named below its field: filters.price.gte.
        refused = {".".join(wrong.field.split(".")[:2]) for wrong in error.errors} or {"nothing"}
    assert refused <= known
