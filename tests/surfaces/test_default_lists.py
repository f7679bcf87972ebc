from datetime import timedelta

import pytest
from django.utils import timezone

from indexes.errors import SearchUnavailable
from indexes.models import IndexDefinition
from indexes.signals import live_build_changed
from surfaces import default_lists, publishing, snapshot, tasks
from surfaces.models import DefaultList, Surface
from tests.fixtures_indexes import PRODUCTS
from tests.surfaces.builders import bound, document, opened, static


def by_rating(keep=lambda product: True):
    rated = sorted((p for p in PRODUCTS if keep(p)), key=lambda p: -p["rating"])
    return [p["rating"] for p in rated]


def test_the_own_list_in_its_order_without_what_is_gone(built_index):
    given = document(fallback_item_ids=("sku-9", "nosuch", "sku-1"), browse_field="rating")
    items = default_lists.resolve(given, built_index.live)
    assert [item.id for item in items] == ["sku-9", "sku-1"]
    assert items[1].fields == {"title": "Hydrating face cream for dry skin", "price": 24.5}


def test_else_the_first_by_the_browse_field(built_index):
    given = document(browse_field="rating", fields=("rating",), max_limit=5)
    items = default_lists.resolve(given, built_index.live)
    # What a request excludes or filters out is made up for.
    assert len(items) == 5 + default_lists.SPARE
    assert [item.fields["rating"] for item in items] == by_rating()[:55]
    lowest = default_lists.resolve(
        given.model_copy(update={"browse_descending": False}), built_index.live
    )
    assert [item.fields["rating"] for item in lowest] == by_rating()[::-1][:55]


@pytest.mark.parametrize("own", [(), ("sku-4", "sku-1", "sku-9")])
def test_only_what_passes_the_fixed_filters(built_index, own):
    given = document(
        browse_field="rating",
        fallback_item_ids=own,
        filters=(static("in_stock", "true"), static("category", "skin care")),
    )
    items = default_lists.resolve(given, built_index.live)
    expected = {"sku-1"} if own else {"sku-1", "sku-2", "sku-3", "sku-5"}
    assert {item.id for item in items} == expected


def test_items_carry_what_requests_filter_by(built_index):
    given = document(
        browse_field="rating", fields=("title",), filters=(bound("region", "r"), opened("price"))
    )
    items = default_lists.resolve(given, built_index.live)
    assert set(items[0].fields) == {"title", "region", "price"}


def test_neither_gives_nothing(built_index):
    assert default_lists.resolve(document(fallback="fail"), built_index.live) == []


def test_nobody_answers(built_index, outage):
    outage.begin()
    with pytest.raises(SearchUnavailable):
        default_lists.resolve(document(browse_field="rating"), built_index.live)


def stale(surface: Surface) -> None:
    DefaultList.objects.filter(surface=surface).update(
        items=[], refreshed_at=timezone.now() - timedelta(days=1)
    )


def test_a_refresh_resolves_the_lists_again_and_raises_the_version(surface):
    publishing.publish(surface)
    stale(surface)
    before = snapshot.build()
    tasks.refresh_default_lists.delay()
    after = snapshot.build()
    assert after.version > before.version
    published = after.surfaces["shelf"]
    assert len(published.default_items) > 10
    assert published.default_items_at is not None
    assert timezone.now() - published.default_items_at < timedelta(minutes=1)


def test_a_refresh_serves_the_published_document_not_the_draft(surface):
    publishing.publish(surface)
    surface.fallback_item_ids = "sku-1"
    surface.save()
    assert default_lists.refresh() == 1
    assert len(snapshot.build().surfaces["shelf"].default_items) > 10


def test_a_list_that_cannot_be_had_stays(surface, outage):
    publishing.publish(surface)
    before = DefaultList.objects.get().items
    version = snapshot.build().version
    outage.begin()
    assert default_lists.refresh() == 0
    assert DefaultList.objects.get().items == before
    assert snapshot.build().version == version


def test_a_list_that_would_be_empty_stays(surface):
    surface.fallback_item_ids = "sku-1"
    surface.save()
    revision = publishing.publish(surface)
    revision.document["fallback_item_ids"] = ["gone"]
    type(revision).objects.filter(pk=revision.pk).update(document=revision.document)
    assert default_lists.refresh() == 0
    assert [item["id"] for item in DefaultList.objects.get().items] == ["sku-1"]


def test_a_surface_that_fails_fast_has_no_list(surface):
    surface.fallback = "fail"
    surface.save()
    publishing.publish(surface)
    assert default_lists.refresh() == 0
    assert snapshot.build().surfaces["shelf"].default_items == ()


def test_a_list_resolved_before_a_publish_does_not_replace_its_own(surface, built_index):
    publishing.publish(surface)
    before = Surface.objects.get()
    surface.fallback_item_ids = "sku-1"
    surface.save()
    publishing.publish(surface)
    assert not default_lists._store_if_live(before, (), built_index.live)
    assert [item["id"] for item in DefaultList.objects.get().items] == ["sku-1"]


def test_drafts_have_no_list(surface):
    assert default_lists.refresh() == 0
    assert not DefaultList.objects.exists()


def test_a_promoted_build_is_served_with_new_default_lists(
    surface, definition, serving, django_capture_on_commit_callbacks
):
    publishing.publish(surface)
    stale(surface)
    version = snapshot.build().version
    with django_capture_on_commit_callbacks(execute=True):
        live_build_changed.send(sender=IndexDefinition, definition=definition, moved=True)
    assert snapshot.build().version > version
    assert DefaultList.objects.get().items
    assert snapshot.is_pushed()
    serving.refresh()
    [plan] = serving.plans()
    assert plan.published.default_items


def test_a_canary_that_starts_or_stops_leaves_the_default_lists(
    surface, definition, django_capture_on_commit_callbacks
):
    publishing.publish(surface)
    stale(surface)
    version = snapshot.build().version
    with django_capture_on_commit_callbacks(execute=True):
        live_build_changed.send(sender=IndexDefinition, definition=definition, moved=False)
    assert snapshot.build().version > version
    assert DefaultList.objects.get().items == []


def test_only_the_lists_of_the_promoted_index_are_resolved(surface, definition):
    publishing.publish(surface)
    other = IndexDefinition.objects.create(
        slug="other", name="Other", endpoint=definition.endpoint, source=definition.source
    )
    assert default_lists.refresh(other) == 0
    assert default_lists.refresh(definition) == 1
