import pytest

from surfaces.document import FilterSpec, PublishedSurface, RerankSpec
from surfaces.errors import PlanInvalid, Problem
from surfaces.misfits import misfits
from surfaces.plan import compile_plan
from tests.surfaces.builders import (
    bound,
    by_field,
    by_signal,
    document,
    index_spec,
    linear,
    live_index,
    opened,
    similar,
    source,
    static,
)

pytestmark = pytest.mark.unit


def problems(**changes) -> list[Problem]:
    return misfits(document(**changes), index_spec())


def test_a_document_that_does_not_fit_is_not_compiled():
    published = PublishedSurface(revision=1, document=document(fields=("nosuch",)))
    with pytest.raises(PlanInvalid) as caught:
        compile_plan(published, live_index())
    assert list(caught.value.problems) == problems(fields=("nosuch",))


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"fields": ("title", "nosuch")}, "fields", 'no field "nosuch"'),
        ({"browse_field": "nosuch"}, "browse_field", 'no field "nosuch"'),
        ({"browse_field": "brand"}, "browse_field", "number field is needed"),
        ({"seed_signal": "views"}, "seed_signal", 'gives the signal "views"'),
        (
            {"seed_signal": "age_n", "sources": (source("a", "age_n"),)},
            "seed_signal",
            "is a number, not weights",
        ),
        ({"filters": (static("nosuch", "x"),)}, "filters[0].field", "Fields: title, brand"),
        ({"filters": (static("image", "x"),)}, "filters[0].field", "only stored"),
        (
            {"filters": (static("brand", "x"), static("brand", "x", operator="at_least"))},
            "filters[1].operator",
            "any_of, none_of",
        ),
        ({"filters": (static("title", "x"),)}, "filters[0].operator", "words"),
        ({"filters": (static("brand"),)}, "filters[0].values", "at least one value"),
        (
            {"filters": (static("price", "cheap", operator="at_most"),)},
            "filters[0].values",
            "number",
        ),
        (
            {"filters": (static("price", "1", "2", operator="at_most"),)},
            "filters[0].values",
            "one number",
        ),
        ({"filters": (bound("region", ""),)}, "filters[0].key", "context key"),
        (
            {"filters": (opened("price"), opened("price"))},
            "filters[1].field",
            "opened to callers twice",
        ),
        ({"reranker": RerankSpec(kind="magic")}, "reranker", '"magic"'),
        ({"reranker": RerankSpec(kind="linear")}, "reranker", "no terms"),
        ({"reranker": linear(by_field("nosuch"))}, "reranker", 'no field "nosuch"'),
        ({"reranker": linear(by_field("brand"))}, "reranker", "number field is needed"),
        ({"reranker": linear(by_field(""))}, "reranker", "names no field"),
        ({"reranker": linear(by_signal("trending"))}, "reranker", 'the signal "trending"'),
        (
            {"sources": (source("a", "s"),), "reranker": linear(by_signal("s", field="nosuch"))},
            "reranker",
            'no field "nosuch"',
        ),
        (
            {"sources": (source("a", "s_n"),), "reranker": linear(by_signal("s_n", field="brand"))},
            "reranker",
            "number field is needed",
        ),
        ({"reranker": linear(similar(float("nan")))}, "reranker", "nan"),
        ({"reranker": linear(similar(1e9))}, "reranker", "1000000"),
        (
            {"sources": (source("a", "s"), source("b", "s"))},
            "sources",
            'Signal "s" comes from a and from b',
        ),
        ({"sources": (source("a", key_template="USER#{"),)}, "sources", "a: The braces"),
    ],
)
def test_every_problem_is_on_its_form_field(changes, path, says):
    [problem] = problems(**changes)
    assert problem.field == path
    assert says in problem.message


def test_a_field_that_the_index_does_not_return_cannot_be_answered():
    fields = (index_spec().fields[3].model_copy(update={"returned": False}),)
    [problem] = misfits(document(fields=("price",)), index_spec(fields=fields))
    assert problem.field == "fields"


def test_all_problems_come_at_once():
    found = problems(
        fields=("nosuch",), browse_field="brand", filters=(static("x", "1"), static("brand"))
    )
    assert [problem.field for problem in found] == [
        "fields",
        "browse_field",
        "filters[0].field",
        "filters[1].values",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": (static("price", "1", "2"), static("in_stock", "true"), opened("title"))},
        {"filters": (static("title", "red shoes", operator="words"),)},
        {"sources": (source("a", "s", "s_n"),), "seed_signal": "s"},
        {
            "sources": (source("a", "s", "s_n"),),
            "reranker": linear(
                similar(),
                by_field("price"),
                by_signal("s"),
                by_signal("s", field="category"),
                by_signal("s_n"),
                by_signal("s_n", field="price"),
            ),
        },
    ],
)
def test_what_is_right_compiles(changes):
    assert problems(**changes) == []


def test_filters_ignore_an_operator_that_callers_choose_themselves():
    item = FilterSpec(field="price", operator="any_of", value_from="caller")
    assert problems(filters=(item,)) == []
