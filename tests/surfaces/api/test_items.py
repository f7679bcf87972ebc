"""The items API as a caller sees it, over a real index."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from indexes import builds, valkey
from indexes.embedding import embed_query
from indexes.filters import Range
from indexes.models import IndexBuild
from indexes.search import knn
from surfaces.api.items_contract import LARGEST_BODY, ItemsOutcome
from surfaces.digest import digest
from surfaces.document import KeyScope
from tests.fixtures_indexes import PRODUCTS
from tests.surfaces.api.conftest import (
    KEY,
    SCOPED_KEY,
    Api,
    Publish,
    assert_problem,
    check_problem,
)

PATH = "/api/v1/indexes/products/items"


@dataclass
class Items(Api):
    """Changes items as a caller does."""

    path: str = PATH

    def put(self, *rows: Any, **headers: str) -> Any:
        return self.put_body(orjson.dumps({"items": rows}), **headers)

    def put_body(self, body: bytes, **headers: str) -> Any:
        return self.client.put(
            self.path, body, content_type="application/json", headers=self._headers(headers)
        )

    def delete(self, body: Any) -> Any:
        return self.send(f"{self.path}/delete", orjson.dumps(body))


@pytest.fixture
def items(publish: Publish) -> Items:
    publish(
        keys={
            digest(KEY): KeyScope(name="feed", indexes=("products", "gone")),
            digest(SCOPED_KEY): KeyScope(name="shop", indexes=("other",)),
        }
    )
    return Items()


@pytest.fixture
def build(new_definition: Any, settings: Any) -> Iterator[IndexBuild]:
    """A live build of three products."""
    # The keys are published under the namespace of the run.
    namespace = settings.VALKEY_NAMESPACE
    definition = new_definition(PRODUCTS[:3])
    build = builds.start(definition)
    builds.run_to_end(build.pk)
    settings.VALKEY_NAMESPACE = namespace
    build.refresh_from_db()
    assert build.status == IndexBuild.Status.LIVE, build.error
    yield build
    valkey.drop_index(build.index_name)
    valkey.delete_prefix(build.key_prefix)


def answer(response: Any) -> dict[str, Any]:
    """Check that a call was answered by the contract, and return the answer."""
    assert response.status_code == 200, response.content
    body: dict[str, Any] = orjson.loads(response.content)
    assert body["request_id"] == response["X-Request-Id"]
    assert response["Cache-Control"] == "no-store"
    assert set(body) == set(ItemsOutcome.model_fields)
    ItemsOutcome.model_validate(body, strict=True)
    return body


def found(build: IndexBuild, text: str, **price: float) -> list[str]:
    live = build.to_live()
    clauses = [Range("price", **price)] if price else []
    vector = embed_query(live.spec.endpoint, text)
    hits = knn(live, vector, k=3, clauses=clauses, fields=(), timeout_s=5).hits
    return [hit.id for hit in hits]


@pytest.mark.django_db
def test_a_search_finds_what_was_put(items: Items, build: IndexBuild):
    stove = {"id": "new", "title": "Gas camping stove", "brand": "Kettleworks", "price": 45}

    assert answer(items.put(stove)) | {"request_id": ""} == {
        "request_id": "",
        "accepted": 1,
        "refused": [],
        "builds": [build.label],
    }
    assert found(build, "camping stove")[0] == "new"
    assert found(build, "camping stove", gte=40, lte=50) == ["new"]
    items.put({"id": "new", "price": 12})
    assert "new" not in found(build, "camping stove", gte=40, lte=50)
    assert "new" in found(build, "camping stove", gte=11, lte=13)
    items.delete({"ids": ["new"]})
    assert "new" not in found(build, "camping stove")


@pytest.mark.django_db
def test_what_is_refused_is_named(items: Items, build: IndexBuild):
    body = answer(items.put({"id": "sku-1", "price": "x"}, {"id": "sku-2", "price": 5}, "row"))

    assert body["accepted"] == 1
    assert [(one["index"], one["id"], one["code"]) for one in body["refused"]] == [
        (0, "sku-1", "bad_numeric"),
        (2, None, "not_an_object"),
    ]
    assert body["refused"][0]["message"].startswith("price: ")


@pytest.mark.django_db
def test_both_ways_to_delete(items: Items, build: IndexBuild):
    assert answer(items.delete({"ids": ["sku-1", 7]}))["accepted"] == 2
    body = answer(items.delete({"items": [{"id": "sku-2", "version": 4}, {"id": "sku-3"}]}))
    assert body["accepted"] == 2
    late = answer(items.put({"id": "sku-2", "title": "Late", "version": 3}))
    assert [one["code"] for one in late["refused"]] == ["older_version"]
    assert valkey.index_info(build.index_name).num_docs == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ([], "body", "invalid"),
        ({}, "items", "required"),
        ({"items": None}, "items", "required"),
        ({"items": []}, "items", "invalid"),
        ({"items": {}}, "items", "invalid"),
        ({"items": [{}] * 1001}, "items", "too_large"),
        ({"items": [{}], "ids": ["a"]}, "ids", "unknown"),
    ],
)
def test_a_malformed_call_is_a_problem(items: Items, body: Any, field: str, code: str):
    problem = assert_problem(items.put_body(orjson.dumps(body)), 400, "bad_request", field)
    assert problem["errors"][0]["code"] == code


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "ids"), ({"ids": "a"}, "ids"), ({"ids": ["a"], "items": [{"id": "b"}]}, "items")],
)
def test_a_malformed_deletion_is_a_problem(items: Items, body: Any, field: str):
    assert_problem(items.delete(body), 400, "bad_request", field)


def test_bodies_have_bounds(items: Items):
    assert_problem(items.put_body(b"{" + b" " * LARGEST_BODY), 413, "too_large")
    assert_problem(items.put_body(b"{"), 400, "malformed_json")
    response = items.client.put(
        items.path, b"a=b", content_type="text/plain", headers=items._headers({})
    )
    assert_problem(response, 415, "unsupported_media_type")


@pytest.mark.django_db
def test_bodies_may_be_larger_than_questions(items: Items, build: IndexBuild):
    row = {"id": "sku-1", "price": 3, "note": "x" * 200_000}

    assert answer(items.put(row))["accepted"] == 1


def test_a_key_changes_only_its_indexes(items: Items):
    for path in (PATH, "/api/v1/indexes/nowhere/items"):
        items.path = path
        items.key = SCOPED_KEY
        problem = assert_problem(items.put({"id": "a"}), 403, "out_of_scope")
        assert "in the admin" in problem["detail"]
        assert_problem(items.delete({"ids": ["a"]}), 403, "out_of_scope")
    items.key = None
    assert_problem(items.put({"id": "a"}), 401, "missing_key")
    items.key = "rp_wrong"
    assert_problem(items.put({"id": "a"}), 401, "invalid_key")


@pytest.mark.django_db
def test_an_index_that_is_gone(items: Items):
    items.path = "/api/v1/indexes/gone/items"

    assert_problem(items.put({"id": "a"}), 404, "unknown_index")
    assert_problem(items.delete({"ids": ["a"]}), 404, "unknown_index")


def test_other_methods(items: Items):
    response = items.client.get(items.path, headers=items._headers({}))
    assert_problem(response, 405, "method_not_allowed")


@pytest.mark.django_db
def test_without_valkey_the_caller_is_told_to_come_back(
    items: Items, build: IndexBuild, outage: Any
):
    outage.begin()

    response = items.put({"id": "sku-1", "price": 3})

    outage.end()
    assert_problem(response, 503, "items_unavailable")
    assert int(response["Retry-After"]) > 0


@pytest.mark.django_db(transaction=True)
def test_without_postgresql_the_caller_is_told_to_come_back(items: Items, build: IndexBuild):
    from django.db import connection

    port = connection.settings_dict["PORT"], connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict |= {"PORT": "1", "HOST": "127.0.0.1"}
    try:
        response = items.put({"id": "sku-1", "price": 3})
    finally:
        connection.close()
        connection.settings_dict["PORT"], connection.settings_dict["HOST"] = port

    assert_problem(response, 503, "items_unavailable")
    assert int(response["Retry-After"]) > 0


@pytest.mark.django_db
def test_calls_are_counted(items: Items, build: IndexBuild):
    def counts() -> tuple[float, ...]:
        names = [
            ("recplatform_item_calls_total", {"index": "products", "outcome": "ok"}),
            ("recplatform_items_total", {"index": "products", "result": "accepted"}),
            ("recplatform_items_total", {"index": "products", "result": "refused"}),
        ]
        return tuple(REGISTRY.get_sample_value(name, labels) or 0 for name, labels in names)

    before = counts()
    items.put({"id": "sku-1", "price": 3}, {"id": "sku-2", "price": 3}, {})

    assert tuple(b - a for a, b in zip(before, counts(), strict=True)) == (1, 2, 1)


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=8,
)
# Without the fields of the text, so that nothing waits for a model.
_names = ["id", "price", "rating", "in_stock", "region", "image", "version", "updated_at"]
_rows = st.dictionaries(st.sampled_from(_names) | _text, _any_json, max_size=5) | _any_json
_known = st.fixed_dictionaries(
    {"id": st.sampled_from(["sku-1", "sku-2", 3, "x"])},
    optional=dict.fromkeys(_names[1:], _any_json),
)


@pytest.mark.django_db
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(_rows | _known, min_size=1, max_size=5), deleting=st.booleans())
def test_any_rows_are_answered(items: Items, build: IndexBuild, rows: list[Any], deleting: bool):
    items.client.raise_request_exception = False
    call = items.delete({"items": rows}) if deleting else items.put(*rows)

    if call.status_code == 200:
        body = answer(call)
        assert body["accepted"] + len(body["refused"]) == len(rows)
    else:
        assert call.status_code == 400
        check_problem(orjson.loads(call.content))
