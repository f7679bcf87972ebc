"""The preview's form: an address becomes the question that the API would be sent."""

import json

import pytest
from django.http import QueryDict

from surfaces.errors import FieldError
from surfaces.preview.question import QuestionForm, context_keys
from tests.surfaces.builders import bound, document, index_spec, opened, source, static

pytestmark = pytest.mark.unit

DOCUMENT = document(
    filters=(
        static("in_stock", "true"),
        bound("region", "region"),
        opened("category"),
        opened("price"),
        opened("title"),
    ),
    sources=(source("prefs"), source("trending", "hot", key_template="TRENDING#{country}")),
)


SPEC = index_spec()


def form(query="", spec=SPEC):
    return QuestionForm(QueryDict(query), DOCUMENT, spec)


def asked(query, **options):
    question = form(query, **options).question()
    assert question is not None
    values = question.model_dump(exclude_defaults=True)
    assert values.pop("explain") is True
    return values


@pytest.mark.parametrize(
    ("query", "question"),
    [
        ("", {}),
        ("query=+dry+skin+", {"query": "dry skin"}),
        ("query=&user_id=&limit=", {}),
        ("item_ids=a,b+c%0Ad", {"item_ids": ["a", "b", "c", "d"]}),
        ("exclude_ids=x", {"exclude_ids": ["x"]}),
        ("user_id=u1&session_id=s1&limit=7", {"user_id": "u1", "session_id": "s1", "limit": 7}),
        ("context.region=us", {"context": {"region": "us"}}),
        ("context=page%3Dhome%0A%0Aa%3Db%3Dc", {"context": {"page": "home", "a": "b=c"}}),
        (
            "context=region%3Deu&context.region=us&context.country=de",
            {"context": {"region": "us", "country": "de"}},
        ),
        ("filters.category=skin,+hair+", {"filters": {"category": ["skin", "hair"]}}),
        ("filters.price.gte=5&filters.price.lte=30.5", {"filters": {"price": {"gte": 5, "lte": 30.5}}}),
        ("filters.price.lte=30", {"filters": {"price": {"lte": 30}}}),
        ("filters.price.lte=cheap", {"filters": {"price": {"lte": "cheap"}}}),
        ("filters.title=red+shoes", {"filters": {"title": "red shoes"}}),
        (
            'filters={"brand":{"none":["acme"]}}&filters.category=skin',
            {"filters": {"brand": {"none": ["acme"]}, "category": ["skin"]}},
        ),
        ("revision=draft&unknown=1", {}),
    ],
)  # fmt: skip
def test_an_address_is_a_question(query, question):
    assert asked(query) == question


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("query=" + "x" * 1001, "query"),
        ("query=%00", "query"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("item_ids=" + ",".join(f"i{n}" for n in range(51)), "item_ids"),
        ("item_ids=" + "x" * 300, "item_ids"),
        ("context=nothing", "context"),
        ("context.region=" + "x" * 20 + "&context=" + "k" * 65 + "%3D1", "context"),
        ("filters={", "filters"),
        ("filters=[1]", "filters"),
        ("filters=" + "[" * 100_000, "filters"),
    ],
)
def test_what_is_wrong_is_said_on_its_input(query, field):
    question = form(query)
    assert question.question() is None
    assert list(question.errors) == [field]


@pytest.mark.parametrize(
    ("path", "shown_on"),
    [
        ("query", "query"),
        ("filters.category", "filters.category"),
        ("filters.price", "filters.price.gte"),
        ("filters.price.lte", "filters.price.lte"),
        ("filters.colour", "filters"),
        ("context.region", "context.region"),
        ("context.page", "context"),
        ("item_ids.3", "item_ids"),
        ("elsewhere", "__all__"),
    ],
)
def test_errors_of_the_api_find_their_input(path, shown_on):
    question = form("query=tea")
    question.question()
    question.show([FieldError(path, "invalid", "Mend it.")])
    assert question.errors == {shown_on: ["Mend it."]}


def test_inputs_are_those_that_the_surface_knows():
    question = form()
    assert [field.label for field in question.context_inputs()] == ["region", "country"]
    inputs = {name: [f.html_name for f in fields] for name, fields in question.filter_inputs()}
    assert inputs == {
        "category": ["filters.category"],
        "price": ["filters.price.gte", "filters.price.lte"],
        "title": ["filters.title"],
    }


def test_without_a_live_build_filters_are_plain_values():
    assert asked("filters.price=30", spec=None) == {"filters": {"price": ["30"]}}


def test_a_broken_key_template_costs_only_its_own_inputs():
    broken = document(
        sources=(source("prefs", key_template="USER#{"), source("b", "x", key_template="{shop}"))
    )
    assert context_keys(broken) == ("shop",)


def test_an_address_can_be_shared():
    query = "query=tea&context.region=us&filters.price.lte=30&filters=%7B%22a%22%3A1%7D"
    first = form(query).question()
    again = QuestionForm(QueryDict(query), DOCUMENT, index_spec()).question()
    assert first == again
    assert json.loads(first.model_dump_json())["filters"] == {"a": 1, "price": {"lte": 30}}
