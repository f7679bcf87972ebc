import time

import pytest
from django.db import transaction
from django.db.models import F, JSONField, Value

from indexes.errors import SearchUnavailable
from indexes.models import IndexBuild, IndexDefinition
from indexes.valkey import VersionedDocument
from surfaces import keys, publishing, snapshot, tasks
from surfaces.document import Canary, KeyScope
from surfaces.models import ServingState
from surfaces.registry import document_key


@pytest.fixture
def stored(serving):
    """The snapshot's document in Valkey, for this test only."""
    return VersionedDocument(document_key())


def version() -> int:
    return ServingState.objects.get().version


@pytest.mark.django_db
def test_versions_are_times_and_always_rise():
    before = time.time_ns() // 1_000_000
    first = snapshot.bump()
    assert before <= first <= time.time_ns() // 1_000_000
    assert snapshot.bump() > first
    ahead = first + 10_000_000
    assert snapshot.bump(at_least=ahead) == ahead
    assert snapshot.bump() == ahead + 1


@pytest.mark.django_db(transaction=True)
def test_a_version_rises_only_within_the_transaction_of_a_change():
    with pytest.raises(transaction.TransactionManagementError):
        snapshot.bump()


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_raises_and_pushes_nothing(stored):
    with transaction.atomic():
        snapshot.changed()
    before = version()
    with transaction.atomic():
        snapshot.changed()
        transaction.set_rollback(True)
    assert version() == before
    assert stored.version() == before


@pytest.mark.django_db(transaction=True)
def test_a_change_is_pushed_when_it_commits(stored, serving):
    with transaction.atomic():
        changed = snapshot.changed()
        assert stored.version() is None
    # The first push found nothing, so it raised the version once more.
    assert stored.version() == version() > changed
    with transaction.atomic():
        changed = snapshot.changed()
    assert stored.version() == changed
    assert serving.refresh()
    assert serving.version == changed


def test_holds_what_is_published(surface, definition, django_capture_on_commit_callbacks):
    revision = publishing.publish(surface)
    _, plaintext = keys.issue("shop", [surface])
    keys.issue("all")
    gone, _ = keys.issue("gone")
    keys.revoke(gone)
    built = snapshot.build()
    assert built.version == version()
    assert list(built.surfaces) == ["shelf"]
    assert built.surfaces["shelf"].revision == revision.number
    assert built.surfaces["shelf"].default_items
    assert built.indexes["products"] == definition.live_build.to_live()
    assert built.keys[keys.digest(plaintext)] == KeyScope(name="shop", surfaces=("shelf",))
    assert sorted(scope.name for scope in built.keys.values()) == ["all", "shop"]


def test_a_draft_is_not_part_of_it(surface):
    assert snapshot.build().surfaces == {}
    publishing.publish(surface)
    surface.default_query = "not published"
    surface.slug = "renamed"
    surface.save()
    [(slug, published)] = snapshot.build().surfaces.items()
    assert slug == "shelf"
    assert published.document.default_query == ""


def test_a_revision_that_cannot_be_read_takes_only_itself_down(surface, definition):
    publishing.publish(surface)
    other = type(surface).objects.create(
        slug="other", name="Other", index=definition, browse_field="price"
    )
    revision = publishing.publish(other)
    type(revision).objects.filter(pk=revision.pk).update(document={"slug": "other"})
    assert list(snapshot.build().surfaces) == ["shelf"]
    assert publishing.has_unpublished_changes(type(other).objects.get(pk=other.pk))


@pytest.mark.parametrize("document", [{}, {"slug": None}, {"slug": 7}, [], "shelf", None])
def test_a_revision_without_a_slug_leaves_keys_their_other_surfaces(surface, definition, document):
    publishing.publish(surface)
    other = type(surface).objects.create(
        slug="other", name="Other", index=definition, browse_field="price"
    )
    revision = publishing.publish(other)
    _, plaintext = keys.issue("shop", [surface, other])
    type(revision).objects.filter(pk=revision.pk).update(document=Value(document, JSONField()))
    built = snapshot.build()
    assert built.keys[keys.digest(plaintext)] == KeyScope(name="shop", surfaces=("shelf",))
    assert list(built.surfaces) == ["shelf"]


def test_a_renamed_index_is_still_found(surface, definition):
    publishing.publish(surface)
    definition.slug = "goods"
    definition.save()
    built = snapshot.build()
    assert built.indexes[built.surfaces["shelf"].document.index].label == "products-v1"
    assert "goods" in built.indexes


def canary_of(definition, slug="products", percent=15):
    """A canary, as of a build made under this slug."""
    live = definition.live_build
    build = IndexBuild.objects.create(
        definition=definition,
        number=2,
        status=IndexBuild.Status.READY,
        spec=live.spec | {"slug": slug},
        fingerprint=live.fingerprint,
        index_name="x_v2",
        key_prefix="x:v2:",
    )
    IndexDefinition.objects.filter(pk=definition.pk).update(
        canary_build=build, canary_percent=percent
    )
    return build


def test_holds_the_canary_beside_the_live_build(surface, definition):
    publishing.publish(surface)
    build = canary_of(definition)
    built = snapshot.build()
    assert built.indexes["products"].label == "products-v1"
    assert built.canaries == {"products": Canary(percent=15, index=build.to_live())}


def test_a_canary_of_a_renamed_index_is_found_where_its_live_build_is(surface, definition):
    publishing.publish(surface)
    definition.slug = "goods"
    definition.save()
    canary_of(definition, slug="goods")
    built = snapshot.build()
    assert {slug: canary.index.label for slug, canary in built.canaries.items()} == {
        "products": "goods-v2",
        "goods": "goods-v2",
    }
    # Once it is live, documents that name the old slug still find it.
    IndexDefinition.objects.update(live_build=F("canary_build"), canary_build=None)
    assert snapshot.build().indexes.keys() == {"products", "goods"}
    assert snapshot.build().indexes["products"].label == "goods-v2"


def test_a_live_index_carries_the_model_it_was_built_with(definition):
    live = snapshot.live_indexes()["products"]
    assert live.fingerprint == live.spec.fingerprint
    assert live.probe


def test_pushing_again_changes_nothing(surface, stored):
    publishing.publish(surface)
    assert snapshot.push()
    before = stored.version()
    assert not snapshot.push()
    assert stored.version() == before == version()
    assert snapshot.is_pushed()


def test_what_is_pushed_is_served(surface, serving):
    publishing.publish(surface)
    snapshot.push()
    assert serving.refresh()
    [plan] = serving.plans()
    assert (plan.slug, plan.revision, plan.build) == ("shelf", 1, "products-v1")


def test_a_publish_stands_while_valkey_is_down_and_is_pushed_later(
    surface, serving, outage, django_capture_on_commit_callbacks
):
    outage.begin()
    with django_capture_on_commit_callbacks(execute=True):
        revision = publishing.publish(surface)
    surface.refresh_from_db()
    assert surface.live_revision == revision
    assert not snapshot.is_pushed()
    with pytest.raises(SearchUnavailable):
        snapshot.push()
    outage.end()
    assert not snapshot.is_pushed()
    tasks.push_snapshot.delay()
    assert snapshot.is_pushed()
    assert serving.refresh()
    assert [plan.revision for plan in serving.plans()] == [revision.number]


def test_the_periodic_push_rides_out_an_outage(surface, outage):
    outage.begin()
    tasks.push_snapshot.delay()


def test_a_valkey_that_lost_the_snapshot_gets_it_again(surface, stored, serving, valkey):
    publishing.publish(surface)
    snapshot.push()
    serving.refresh()
    valkey.delete(stored.key)
    assert not snapshot.is_pushed()
    assert snapshot.push()
    assert snapshot.is_pushed()
    # Under a new version: some process may hold one that this database never knew.
    assert serving.refresh()


def test_a_newer_leftover_of_another_history_is_overruled(surface, stored, serving):
    publishing.publish(surface)
    ahead = version() + 3_600_000
    assert stored.publish(ahead, b'{"version": 1, "surfaces": {}}')
    assert serving.refresh()
    assert not snapshot.is_pushed()
    assert snapshot.push()
    assert stored.version() == version() == ahead + 1
    assert serving.refresh()
    assert [plan.slug for plan in serving.plans()] == ["shelf"]
    assert not snapshot.push()


def test_a_database_restored_from_a_backup_overrules_what_it_lost(surface, stored, serving):
    publishing.publish(surface)
    snapshot.push()
    backup = version()
    surface.default_query = "lost with the crash"
    surface.save()
    publishing.publish(surface)
    snapshot.push()
    serving.refresh()
    # The restore: revision 2 was never made.
    surface.live_revision = surface.revisions.get(number=1)
    surface.save()
    ServingState.objects.update(version=backup)
    assert snapshot.push()
    assert serving.refresh()
    assert [plan.revision for plan in serving.plans()] == [1]


def test_the_registry_starts_from_the_database_while_valkey_is_down(surface, serving, outage):
    publishing.publish(surface)
    outage.begin()
    serving.loader = snapshot.read
    assert serving.refresh()
    assert [plan.slug for plan in serving.plans()] == ["shelf"]
    assert serving.age == float("inf")


@pytest.mark.django_db
def test_nothing_published_is_a_snapshot_too(stored, serving):
    assert snapshot.push()
    assert serving.refresh()
    assert (serving.loaded, list(serving.plans())) == (True, [])
