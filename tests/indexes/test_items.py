"""Rows become items: ids, texts and fields."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.errors import RowError
from indexes.items import (
    MAX_TEXT,
    CatalogItem,
    ItemMaker,
    content_digest,
    decode_vector,
    encode_vector,
    fill,
    item_hash,
    lookup,
    text_digest,
)
from indexes.naming import CONTENT_FIELD, ROW_FIELD, TEXT_FIELD, VECTOR_FIELD, VERSION_FIELD
from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec
from indexes.values import MAX_TAG

pytestmark = pytest.mark.unit


def field(name: str, kind: str, source: str = "", **changes: Any) -> FieldSpec:
    return FieldSpec.model_validate(
        {"name": name, "type": kind, "source": source or name, **changes}
    )


def make(row: dict[str, Any], *fields: FieldSpec, **catalog: Any) -> CatalogItem:
    spec = CatalogSpec.model_validate({"uri": "c", "text_template": "{title}", **catalog})
    return ItemMaker(spec, fields).make(row)


def test_a_row_becomes_an_item():
    row = {
        "sku": 7,
        "title": "Red  shoes",
        "attributes": {"colour": "red"},
        "tags": ["a", "b"],
        "price": "12.50",
        "stock": True,
        "released": "1970-01-02",
        "image": {"src": "x.png"},
    }
    item = make(
        row,
        field("colour", "tag", "attributes.colour"),
        field("tags", "tag", multiple=True),
        field("price", "numeric"),
        field("stock", "numeric"),
        field("released", "numeric"),
        field("title", "text"),
        field("image", "stored"),
        field("nothing", "tag"),
        id_field="sku",
        text_template="{title}, {attributes.colour} {missing}\n{tags}",
    )
    assert item.id == "7"
    assert item.text == "Red shoes, red a, b"
    assert item.fields["image"].endswith(b'{"src":"x.png"}')
    assert {name: value for name, value in item.fields.items() if name != "image"} == {
        "colour": b"red",
        "tags": b"a|b",
        "price": b"12.5",
        "stock": b"1",
        "released": b"86400",
        "title": b"Red  shoes",
    }


@pytest.mark.parametrize(
    ("row", "path", "found"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", 2),
        ({"a": {"b.c": 3}}, "a.b.c", 3),
        ({"a": [{"b": 1}, {"c": 2}, {"b": 3}]}, "a.b", [1, 3]),
        ({"a": [{"c": 2}]}, "a.b", None),
        ({"a": 1}, "a.b", None),
        ({"a": None}, "a", None),
        ({}, "a", None),
    ],
)
def test_a_path_is_looked_up(row, path, found):
    assert lookup(row, path) == found


def test_a_template_shows_values_as_people_write_them():
    row = {"n": 2.0, "b": True, "l": ["x", None, 3], "d": {"k": "v", "w": ["z"]}, "e": " "}
    row["none"] = math.nan
    assert fill("{n} {b} {l} {d} {e}{none}!", row) == "2 true x, 3 v, z !"


def test_a_long_text_is_cut():
    assert len(make({"id": 1, "title": "word " * 10_000}).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        ({"title": "x"}, "missing_id", '"id" is missing'),
        ({"id": "", "title": "x"}, "missing_id", '"id" is missing'),
        ({"id": "  ", "title": "x"}, "bad_id", "1 to 256"),
        ({"id": "x" * 257, "title": "x"}, "bad_id", "1 to 256"),
        ({"id": "a\0b", "title": "x"}, "bad_id", "no NUL"),
        ({"id": True, "title": "x"}, "bad_id", "not an id"),
        ({"id": ["a"], "title": "x"}, "bad_id", "not a text or a number"),
        ({"id": "\ud800", "title": "x"}, "bad_id", "not a text or a number"),
        ({"id": 1, "title": " \n"}, "empty_text", "gives no text"),
        ({"id": 1}, "empty_text", "gives no text"),
        ({"id": 1, "title": "x", "price": "cheap"}, "bad_numeric", 'price: "cheap"'),
        ({"id": 1, "title": "x", "price": "1e999"}, "bad_numeric", "price: "),
        ({"id": 1, "title": "x", "price": [1]}, "bad_numeric", "price: "),
        ({"id": 1, "title": "x", "brand": ["a", "b"]}, "bad_tag", "several values"),
        ({"id": 1, "title": "x", "brand": {"a": 1}}, "bad_tag", "brand: "),
        ({"id": 1, "title": "x", "tags": ["a|b"]}, "bad_tag", 'holds the separator "|"'),
        ({"id": 1, "title": {"de": "x"}}, "bad_text", "title: "),
        ({"id": 1, "title": "x", "brand": math.nan}, "bad_tag", "not finite"),
        ({"id": 1, "title": "x", "brand": "é" * 2001}, "long_tag", "longer than 4,000 bytes"),
        ({"id": 1, "title": "x", "tags": ["a", "b" * 4001]}, "long_tag", "longer than"),
        ({"id": 1, "title": "x", "tags": "a|" + "b" * 4001}, "long_tag", "longer than"),
    ],
)
def test_a_row_that_is_no_item_is_refused_with_a_reason(row, reason, said):
    fields = [
        field("title", "text"),
        field("price", "numeric"),
        field("brand", "tag"),
        field("tags", "tag", multiple=True),
    ]
    with pytest.raises(RowError) as caught:
        make(row, *fields)
    assert caught.value.reason == reason
    assert said in str(caught.value)


def test_tags_are_bounded_one_by_one():
    row = {"id": 1, "title": "x", "tags": ["a" * MAX_TAG, "b" * MAX_TAG]}
    assert len(make(row, field("tags", "tag", multiple=True)).fields["tags"]) == 2 * MAX_TAG + 1


def test_a_row_may_bring_a_vector_and_a_version():
    catalog = CatalogSpec(
        uri="c", text_template="{title}", vector_field="ml.v", version_field="updated"
    )
    endpoint = EndpointSpec(slug="two", endpoint_name="two", dimension=2)
    row = {"id": 1, "title": "x", "ml": {"v": [0, 2]}, "updated": "1970-01-02"}
    item = ItemMaker(catalog, (), endpoint).make(row)
    assert item.vector is not None
    assert item.vector.tolist() == [0, 1]
    assert item.version == 86400
    # Without an endpoint nobody can tell whether a vector is right.
    assert ItemMaker(catalog, ()).make(row).vector is None


ITEM = CatalogItem("1", "red shoes", {"brand": b"Acme", "price": b"5"})


@pytest.mark.parametrize(
    "other",
    [
        CatalogItem("1", "red shoe", {"brand": b"sAcme", "price": b"5"}),
        CatalogItem("1", "red shoes", {"brand": b"Acme", "price": b"6"}),
        CatalogItem("1", "red shoes", {"brand": b"Acmep", "rice": b"5"}),
        CatalogItem("1", "red shoes", {"brand": b"Acme"}),
        CatalogItem("1", "red shoes", ITEM.fields, np.array([1, 2], dtype=np.float32)),
    ],
)
def test_any_change_of_an_item_changes_its_digest(other):
    assert content_digest(other) != content_digest(ITEM)


def test_a_digest_does_not_depend_on_what_is_no_content():
    turned = dict(reversed(ITEM.fields.items()))
    assert content_digest(CatalogItem("2", ITEM.text, turned, None, 7.0)) == content_digest(ITEM)
    assert len(content_digest(ITEM)) == len(text_digest("x")) == 16
    assert text_digest("half of a pair \ud800") != text_digest("half of a pair ?")


def test_the_hash_of_an_item_holds_what_later_builds_compare():
    vector = encode_vector(np.array([1, 2], dtype=np.float32))
    assert item_hash(ITEM, vector, row=7) == {
        "brand": b"Acme",
        "price": b"5",
        VECTOR_FIELD: vector,
        TEXT_FIELD: text_digest("red shoes"),
        CONTENT_FIELD: content_digest(ITEM),
        ROW_FIELD: 7,
    }
    given_one = CatalogItem("1", "red shoes", {}, decode_vector(vector), 1.5)
    held = item_hash(given_one, vector)
    assert (held[TEXT_FIELD], held[VERSION_FIELD]) == (b"", "1.5")
    assert ROW_FIELD not in held


def test_empty_values_leave_the_field_out():
    row = {"id": 1, "title": "x", "brand": " ", "tags": [], "price": "", "stored": None}
    fields = [
        field("brand", "tag"),
        field("tags", "tag", multiple=True),
        field("price", "numeric"),
        field("stored", "stored"),
    ]
    assert make(row, *fields).fields == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    json_values, json_values, st.sampled_from(["tag", "numeric", "text", "stored"]), st.booleans()
)
def test_any_row_is_an_item_or_a_row_error(id_value, value, kind, multiple):
    row = {"id": id_value, "title": "x", "value": value}
    try:
        item = make(row, field("value", kind, multiple=multiple), text_template="{title} {value}")
    except RowError:
        return
    assert all(item.fields.values())
    assert 1 <= len(item.id) <= 256


def test_vectors_are_little_endian_float32():
    assert encode_vector(np.array([1.0, -2.5])) == bytes.fromhex("0000803f000020c0")
