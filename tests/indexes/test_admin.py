"""Endpoints, sources and the lists of indexes in the admin."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from indexes.models import CatalogSource, EmbeddingEndpoint
from indexes.sampling import sample
from indexes.schema import CatalogSpec
from tests.indexes.admin_pages import FEW, address
from tests.pages import text_of


@pytest.mark.parametrize(
    "model", ["embeddingendpoint", "catalogsource", "indexdefinition", "indexbuild"]
)
def test_every_list_and_form_opens(admin_client, definition, model):
    objects = {
        "embeddingendpoint": definition.endpoint,
        "catalogsource": definition.source,
        "indexdefinition": definition,
        "indexbuild": definition.live_build,
    }
    pages = [address(f"{model}_changelist"), address(f"{model}_change", objects[model])]
    if model != "indexbuild":
        pages.append(address(f"{model}_add"))
    for page in pages:
        assert admin_client.get(page).status_code == 200, page


def test_the_list_shows_what_is_live(admin_client, definition):
    said = text_of(admin_client.get(address("indexdefinition_changelist")))
    assert re.search(r"Products products products-v1 60 just now – Live", said)


SOURCE = {
    "slug": "s",
    "uri": "/c.jsonl",
    "format": "auto",
    "id_field": "id",
    "text_template": "{title}",
}


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"text_template": "no field"}, "text_template", "at least one field in braces"),
        ({"uri": "/c.xlsx"}, "uri", "choose one in"),
        ({"uri": "s3://bucket.jsonl"}, "uri", "write s3://bucket/key"),
        ({"uri": "https://shop.example/c.jsonl"}, "uri", "a path on the worker"),
    ],
)
def test_a_source_that_no_build_could_read_is_refused_on_its_field(
    admin_client, changes, field, said
):
    response = admin_client.post(address("catalogsource_add"), {**SOURCE, **changes})
    [error] = response.context["adminform"].form.errors[field]
    assert said in error
    assert not CatalogSource.objects.exists()


def test_a_good_source_is_saved(admin_client):
    assert admin_client.post(address("catalogsource_add"), SOURCE).status_code == 302
    assert CatalogSource.objects.get().uri == "/c.jsonl"


def test_rows_are_previewed_as_items(admin_client, new_definition):
    definition = new_definition([FEW[0], {"title": "no id"}, {**FEW[1], "price": "cheap"}])
    said = text_of(
        admin_client.get(
            reverse("admin:indexes_catalogsource_preview", args=[definition.source.pk])
        )
    )
    assert "sku-1 Hydrating face cream for dry skin Lumea beauty, skin care" in said
    assert 'Rejected. "id" is missing' in said
    assert "category list 2 beauty, skin care" in said

    said = text_of(
        admin_client.get(reverse("admin:indexes_indexdefinition_preview", args=[definition.pk]))
    )
    assert "24.5 4.6 true us, eu" in said
    assert 'Rejected. price: "cheap" is not a number.' in said


def test_a_preview_of_an_unreadable_source_says_why(admin_client, new_definition):
    definition = new_definition("/nowhere/c.jsonl")
    page = admin_client.get(
        reverse("admin:indexes_catalogsource_preview", args=[definition.source.pk])
    )
    assert "There is no file /nowhere/c.jsonl" in text_of(page)


@pytest.mark.unit
def test_a_sample_stops_early_and_shows_nested_paths(
    tmp_path: Any, catalog_file: Callable[..., Any]
):
    rows = [
        {"id": n, "title": "x" * 500, "a": {"b": {"c": {"d": 1}}, "none": None}} for n in range(300)
    ]
    shown = sample(CatalogSpec(uri=str(catalog_file(rows)), text_template="{title}"))
    assert (len(shown.rows), shown.scanned) == (20, 100)
    found = {entry.path: (entry.rows, entry.kind) for entry in shown.found}
    assert found == {
        "id": (100, "number"),
        "title": (100, "text"),
        "a.b.c": (100, "object"),
    }
    assert max(len(entry.example) for entry in shown.found) <= 160


def test_an_endpoint_is_tried_out(admin_client, new_definition, endpoint_spec):
    endpoint = new_definition().endpoint
    page = reverse("admin:indexes_embeddingendpoint_test", args=[endpoint.pk])
    assert "Embed" in text_of(admin_client.get(page))
    said = text_of(admin_client.get(page, {"text": "hiking boots"}))
    assert re.search(r"as a search sends it: first call: 1 × 384 numbers in [\d.]+ ms", said)
    assert re.search(r"as a build sends them: 2 × 384 numbers in [\d.]+ ms", said)

    EmbeddingEndpoint.objects.filter(pk=endpoint.pk).update(dimension=768)
    said = text_of(admin_client.get(page, {"text": "hiking boots"}))
    assert "384 numbers, not 768" in said


def test_an_endpoint_has_fields_for_jobs_and_for_its_pace(admin_client, new_definition):
    endpoint = new_definition().endpoint
    address = reverse("admin:indexes_embeddingendpoint_change", args=[endpoint.pk])
    page = admin_client.get(address)
    values = {**page.context["adminform"].form.initial, "request_extra": "{}"}
    changed = {
        "model": "all-MiniLM-L6-v2@1",
        "concurrency": 5,
        "max_calls_per_second": 2.5,
        "batch_model": "minilm",
        "batch_s3_uri": "not a folder",
        "batch_instance_type": "ml.m5.large",
        "batch_instance_count": 3,
    }
    refused = admin_client.post(address, values | changed)
    assert "A Batch Transform job needs a folder" in refused.content.decode()
    changed["batch_s3_uri"] = "s3://bucket/folder"
    assert admin_client.post(address, values | changed).status_code == 302
    endpoint.refresh_from_db()
    assert {name: getattr(endpoint, name) for name in changed} == changed
