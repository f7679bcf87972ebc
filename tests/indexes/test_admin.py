"""Indexes in the admin: what people see, and what their buttons do."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from indexes import builds, progress, valkey
from indexes.models import (
    CatalogSource,
    EmbeddingEndpoint,
    IndexBuild,
    IndexDefinition,
    RejectedRow,
)
from indexes.sampling import sample
from indexes.schema import CatalogSpec
from surfaces.models import Surface
from tests.fixtures_indexes import PRODUCTS
from tests.pages import text_of

Status = IndexBuild.Status
FEW = PRODUCTS[:8]


def address(name: str, obj: Any = None) -> str:
    return reverse(f"admin:indexes_{name}", args=[obj.pk] if obj else [])


def built(definition: IndexDefinition) -> IndexBuild:
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    return build


@pytest.fixture
def viewer(db: None) -> Client:
    """A member of staff who may look at everything here and change nothing."""
    user = User.objects.create_user("viewer", is_staff=True)
    permissions = Permission.objects.filter(
        content_type__app_label="indexes", codename__startswith="view_"
    )
    user.user_permissions.set(permissions)
    client = Client()
    client.force_login(user)
    return client


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
    assert re.search(r"Products products products-v1 60 just now Live", said)


def test_the_button_builds_what_is_saved(
    admin_client, admin_user, new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    with django_capture_on_commit_callbacks(execute=True):
        response = admin_client.post(address("indexdefinition_build", definition), follow=True)
    build = definition.builds.get()
    assert (build.status, build.requested_by) == (Status.LIVE, admin_user)
    said = text_of(response)
    assert "products-v1 is being built. What is live stays live." in said


def test_the_button_is_disabled_with_the_reason(admin_client, new_definition):
    definition = new_definition(FEW, fields=[])
    page = admin_client.get(address("indexdefinition_change", definition))
    button = re.search(r"<button[^>]*>\s*Build", page.content.decode())
    assert button is not None
    assert "disabled" in button[0]
    assert "Build The index has no fields" in text_of(page)

    response = admin_client.post(address("indexdefinition_build", definition), follow=True)
    assert "The index has no fields" in text_of(response)
    assert not definition.builds.exists()


def test_looking_at_the_build_address_builds_nothing(admin_client, new_definition):
    definition = new_definition(FEW)
    assert admin_client.get(address("indexdefinition_build", definition)).status_code == 405
    assert not definition.builds.exists()


def test_the_panel_follows_a_build_to_its_end(admin_client, new_definition):
    definition = new_definition(FEW)
    panel = address("indexdefinition_panel", definition)
    build = builds.start(definition, enqueue=False)
    running = admin_client.get(panel)
    assert 'data-running="1"' in running.content.decode()
    builds.run_to_end(build.pk)
    ended = admin_client.get(panel)
    assert 'data-running="1"' not in ended.content.decode()
    assert "products-v1 is searched: 8 items, built just now." in text_of(ended)


def test_the_panel_names_what_was_changed_since(admin_client, definition):
    definition.ef_runtime = 50
    definition.save()
    definition.fields.filter(name="image").delete()
    said = text_of(admin_client.get(address("indexdefinition_change", definition)))
    assert "Changed since then: EF_RUNTIME, the fields." in said


def test_progress_is_shown_in_numbers(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    now = build.created_at
    IndexBuild.objects.filter(pk=build.pk).update(
        status=Status.LOADING,
        started_at=now,
        loading_at=now,
        cursor=2000,
        total_rows=10_000,
        written=1990,
        embedded=1990,
        under_way=500,
        rejected=10,
        notice="The embedding endpoint is throttled. Trying again.",
    )
    RejectedRow.objects.create(build=build, row=3, reason="missing_id", message='"id" is missing.')
    response = admin_client.get(address("indexbuild_progress", build))
    said = text_of(response)
    assert 'data-running="1"' in response.content.decode()
    assert 'value="25"' in response.content.decode()
    assert "25 %" in said
    assert "Rows done 2,500 of 10,000 Items 2,490 Rows rejected 10 Rows a second" in said
    assert "The embedding endpoint is throttled. Trying again." in said
    assert 'missing id 1 Row 3: "id" is missing.' in said


def test_progress_estimates_the_time_left(new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    build.status, build.loading_at = Status.LOADING, build.created_at
    build.cursor, build.total_rows = 3000, 12_000
    shown = progress.of(build, build.created_at + timedelta(seconds=30))
    assert (shown.percent, shown.rate, shown.seconds_left) == (25, 100, 90)
    assert shown.line() == "Loading items · 25 % · 3,000 of 12,000 rows · 100 rows/s · 2 min left"


def test_a_build_that_no_worker_takes_says_so(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    page = address("indexbuild_progress", build)
    assert "Is a Celery worker" not in text_of(admin_client.get(page))
    IndexBuild.objects.filter(pk=build.pk).update(
        created_at=build.created_at - progress.PATIENCE * 2
    )
    assert "is a Celery worker running?" in text_of(admin_client.get(page))


def test_a_build_whose_worker_is_gone_says_so(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    past = build.created_at - timedelta(minutes=5)
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.LOADING, heartbeat_at=past)
    said = text_of(admin_client.get(address("indexbuild_progress", build)))
    assert "No sign of its worker for 5 min." in said


def test_a_failure_is_told_in_words(admin_client, new_definition):
    definition = new_definition("/nowhere/c.jsonl")
    build = built(definition)
    for page in (
        address("indexbuild_change", build),
        address("indexdefinition_change", definition),
    ):
        said = text_of(admin_client.get(page))
        assert "Failed" in said
        assert "There is no file /nowhere/c.jsonl" in said


def test_rejected_rows_are_shown_by_reason_and_downloaded(admin_client, new_definition):
    bad = [{**FEW[0], "id": f"b{n}", "price": "cheap"} for n in range(3)]
    build = built(new_definition([*FEW, *bad, {"title": "no <b>id</b>"}]))
    page = admin_client.get(address("indexbuild_change", build))
    said = text_of(page)
    assert 'bad numeric 3 Row 9: price: "cheap" is not a number.' in said
    assert "missing id 1 Row 12" in said
    assert "<b>id</b>" not in page.content.decode()

    response = admin_client.get(address("indexbuild_rejected", build))
    lines = [json.loads(line) for line in response.getvalue().decode().splitlines()]
    assert [line["row"] for line in lines] == [9, 10, 11, 12]
    assert json.loads(lines[0]["content"]) == bad[0]
    assert "products-v1-rejected.jsonl" in response["Content-Disposition"]


def test_making_a_build_live_asks_first(admin_client, new_definition):
    definition = new_definition(FEW)
    first, second = built(definition), built(definition)
    assert "Make live…" in text_of(admin_client.get(address("indexbuild_change", first)))
    assert "Make live…" not in text_of(admin_client.get(address("indexbuild_change", second)))

    page = address("indexbuild_promote", first)
    assert "Search products-v1 from now on?" in text_of(admin_client.get(page))
    definition.refresh_from_db()
    assert definition.live_build == second
    assert "products-v1 is live." in text_of(admin_client.post(page, follow=True))
    definition.refresh_from_db()
    assert definition.live_build == first


def test_what_cannot_be_made_live_says_why(admin_client, new_definition):
    definition = new_definition(FEW)
    first, second = built(definition), built(definition)
    valkey.drop_index(first.index_name)
    response = admin_client.post(address("indexbuild_promote", first), follow=True)
    assert "Start a new build." in text_of(response)
    definition.refresh_from_db()
    assert definition.live_build == second


def test_stopping_a_build_asks_first(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    page = address("indexbuild_stop", build)
    assert "Stop building products-v1?" in text_of(admin_client.get(page))
    build.refresh_from_db()
    assert build.is_running
    assert "Cancelled" in text_of(admin_client.post(page, follow=True))
    build.refresh_from_db()
    assert build.status == Status.CANCELLED
    assert build.transitions.last().by.username == "admin"


def test_who_may_only_look_changes_nothing(viewer, new_definition):
    definition = new_definition(FEW)
    ready, live = built(definition), built(definition)
    for page in (
        address("indexdefinition_change", definition),
        address("indexdefinition_panel", definition),
        address("indexbuild_change", ready),
        address("indexbuild_progress", ready),
        address("indexbuild_rejected", ready),
    ):
        response = viewer.get(page)
        assert response.status_code == 200, page
        if not response.streaming:
            assert "/build/" not in response.content.decode()
            assert "Make live…" not in text_of(response)
    for page in (
        address("indexdefinition_build", definition),
        address("indexbuild_promote", ready),
        address("indexbuild_stop", ready),
    ):
        assert viewer.post(page).status_code == 403, page
    definition.refresh_from_db()
    assert (definition.live_build, definition.builds.count()) == (live, 2)


@pytest.mark.parametrize(
    "page", ["indexdefinition_panel", "indexdefinition_build", "indexbuild_progress"]
)
def test_strangers_are_sent_to_the_login(client, definition, page):
    obj = definition.live_build if "indexbuild" in page else definition
    for answer in (client.get(address(page, obj)), client.post(address(page, obj))):
        assert answer.status_code == 302
        assert "/login/" in answer["Location"]


def test_builds_are_never_edited_or_deleted_by_hand(admin_client, definition):
    build = definition.live_build
    assert admin_client.get(reverse("admin:indexes_indexbuild_add")).status_code == 403
    assert (
        admin_client.post(address("indexbuild_change", build), {"status": "ready"}).status_code
        == 403
    )
    assert (
        admin_client.post(address("indexbuild_delete", build), {"post": "yes"}).status_code == 403
    )


def test_an_index_is_deleted_with_its_builds(
    admin_client, new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    build = built(definition)
    page = address("indexdefinition_delete", definition)
    assert "all that the search engine holds" in text_of(admin_client.get(page))
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(page, {"post": "yes"})
    assert not IndexDefinition.objects.exists()
    assert valkey.drop_index(build.index_name) is False


def test_an_index_that_a_surface_names_cannot_be_deleted(admin_client, definition):
    Surface.objects.create(slug="home", name="Home row", index=definition)
    page = address("indexdefinition_delete", definition)
    assert "Home row" in text_of(admin_client.get(page))
    admin_client.post(page, {"post": "yes"})
    assert IndexDefinition.objects.filter(pk=definition.pk).exists()


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
