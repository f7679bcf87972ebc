import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import ProtectedError, RestrictedError

from enrichment.models import EnrichmentSource, Signal
from indexes.models import IndexDefinition
from surfaces import publishing, snapshot
from surfaces.document import SurfaceDocument
from surfaces.errors import CannotPublish, DraftChanged
from surfaces.models import DefaultList, Reranker, RerankTerm, Surface, SurfaceRevision
from tests.surfaces.builders import document, live_index


def refused(surface: Surface) -> list[publishing.Problem]:
    with pytest.raises(CannotPublish) as caught:
        publishing.publish(surface)
    problems = list(caught.value.problems)
    assert publishing.check(surface) == problems
    return problems


@pytest.fixture
def preferences(db):
    source = EnrichmentSource.objects.create(
        slug="prefs", table="prefs", key_template="USER#{user_id}"
    )
    Signal.objects.create(source=source, name="brands")
    return source


@pytest.fixture
def reranker(db):
    reranker = Reranker.objects.create(slug="mix", name="Mix")
    RerankTerm.objects.create(reranker=reranker, kind="similarity", weight=1)
    RerankTerm.objects.create(
        reranker=reranker, kind="signal", signal="brands", field="brand", weight=0.5
    )
    return reranker


# --- The publish ------------------------------------------------------------------------------


def test_a_publish_makes_the_draft_the_live_revision(surface):
    user = get_user_model().objects.create_user("ann")
    revision = publishing.publish(surface, user=user, note="First")
    assert (revision.number, revision.note, revision.published_by) == (1, "First", user)
    assert surface.live_revision == revision
    stored = Surface.objects.get(pk=surface.pk)
    assert stored.live_revision == revision
    assert SurfaceDocument.model_validate(revision.document) == publishing.draft_document(surface)


def test_revisions_count_up(surface):
    publishing.publish(surface)
    for number in (2, 3):
        surface.limit += 1
        surface.save()
        assert publishing.publish(surface).number == number
    assert surface.revisions.count() == 3


def test_the_document_holds_everything_of_the_draft(surface, add_filter, preferences, reranker):
    surface.sources.add(preferences)
    surface.reranker = reranker
    surface.seed_signal = "brands"
    surface.fallback_item_ids = " sku-2 \n\nsku-1\nsku-2"
    surface.save()
    add_filter("price", "30", operator="at_most", position=2)
    add_filter("brand", "Lumea", " Strada ", "", position=1)
    add_filter("region", value_from="context", key="region", when_missing="refuse", position=3)
    frozen = publishing.draft_document(surface)
    assert [item.field for item in frozen.filters] == ["brand", "price", "region"]
    assert frozen.filters[0].values == ("Lumea", "Strada")
    assert [source.slug for source in frozen.sources] == ["prefs"]
    assert [signal.name for signal in frozen.sources[0].signals] == ["brands"]
    assert [(term.kind, term.name, term.field) for term in frozen.reranker.terms] == [
        ("similarity", "", ""),
        ("signal", "brands", "brand"),
    ]
    assert frozen.fallback_item_ids == ("sku-2", "sku-1")
    revision = publishing.publish(surface)
    assert SurfaceDocument.model_validate(revision.document) == frozen


def test_a_revision_keeps_its_parts_when_these_change(surface, preferences, reranker, add_filter):
    surface.sources.add(preferences)
    surface.reranker = reranker
    surface.save()
    clause = add_filter("brand", "Lumea")
    before = publishing.publish(surface).document
    assert not publishing.has_unpublished_changes(surface)
    for change in (
        lambda: RerankTerm.objects.update(weight=9),
        lambda: Signal.objects.update(attribute="other"),
        lambda: type(clause).objects.update(values="Strada"),
    ):
        change()
        fresh = Surface.objects.get(pk=surface.pk)
        assert publishing.has_unpublished_changes(fresh)
        assert snapshot.build().surfaces["shelf"].document == SurfaceDocument.model_validate(before)
        before = publishing.publish(fresh).document
        assert not publishing.has_unpublished_changes(fresh)


def test_a_publish_raises_the_version_and_keeps_the_default_list(surface, definition):
    publishing.publish(surface)
    kept = DefaultList.objects.get(surface=surface)
    assert kept.build_label == "products-v1"
    served = snapshot.build()
    assert served.version > 0
    assert served.surfaces["shelf"].default_items[0].id == "sku-59"


@pytest.mark.django_db(transaction=True)
def test_two_publishes_at_once_get_two_numbers(surface, serving):
    publishing.publish(surface)
    start = threading.Barrier(2, timeout=10)
    numbers: list[int] = []

    def publish(query: str) -> None:
        start.wait()
        Surface.objects.filter(pk=surface.pk).update(default_query=query)
        try:
            numbers.append(publishing.publish(surface).number)
        except CannotPublish:
            # The other one has published this text already.
            numbers.append(0)
        finally:
            connection.close()

    threads = [threading.Thread(target=publish, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = sorted(surface.revisions.values_list("number", flat=True))
    assert published == list(range(1, len(published) + 1))
    assert sorted(number for number in numbers if number) == published[1:]


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def somebody_waits_for_this_transaction():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks"
            " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return cursor.fetchone()[0] > 0


@pytest.fixture
def in_thread():
    """A factory of running threads, each ending with what its call returned or raised."""
    with ThreadPoolExecutor() as pool:

        def run(call):
            def closing():
                try:
                    return call()
                finally:
                    connection.close()

            return pool.submit(closing)

        yield run


def test_only_the_draft_that_was_looked_at_is_published(surface):
    seen = publishing.draft_digest(surface)
    Surface.objects.update(limit=5)
    with pytest.raises(DraftChanged) as caught:
        publishing.publish(surface, expected=seen)
    assert "Look again" in caught.value.problems[0].message
    now = publishing.draft_digest(Surface.objects.get())
    assert publishing.publish(surface, expected=now).document["limit"] == 5


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("expecting", [True, False])
def test_a_save_while_a_publish_waits_is_not_published_unseen(
    surface, serving, in_thread, expecting
):
    seen = publishing.draft_digest(surface) if expecting else ""
    with transaction.atomic():
        Surface.objects.update(limit=5)
        # It sees the draft as it is before this transaction, then waits for the row.
        publish = in_thread(lambda: publishing.publish(surface, expected=seen))
        wait_for(somebody_waits_for_this_transaction)
    with pytest.raises(DraftChanged):
        publish.result(10)
    assert not SurfaceRevision.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_save_does_not_wait_while_valkey_is_asked(surface, serving, settings, in_thread):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        settings.VALKEY_URL = f"valkey://127.0.0.1:{silent.getsockname()[1]}/0"
        publish = in_thread(lambda: publishing.publish(surface))
        asked, _ = silent.accept()
        with asked, transaction.atomic():
            Surface.objects.select_for_update(nowait=True).get(pk=surface.pk)
            assert not publish.done()
    assert publish.result(20).number == 1


def test_a_revision_cannot_be_changed(surface):
    revision = publishing.publish(surface)
    revision.note = "rewritten"
    with pytest.raises(TypeError):
        revision.save()


def test_a_live_revision_cannot_be_deleted_but_its_surface_can(surface):
    revision = publishing.publish(surface)
    with pytest.raises((ProtectedError, RestrictedError)):
        revision.delete()
    before = snapshot.build().version
    surface.delete()
    assert not SurfaceRevision.objects.exists()
    after = snapshot.build()
    assert after.surfaces == {}
    assert after.version > before


# --- What has changed -------------------------------------------------------------------------


def test_a_new_surface_has_unpublished_changes(surface):
    assert publishing.has_unpublished_changes(surface)
    publishing.publish(surface)
    assert not publishing.has_unpublished_changes(surface)
    surface.description = "No part of what is served."
    surface.save()
    assert not publishing.has_unpublished_changes(surface)


def test_nothing_changed_is_nothing_to_publish(surface):
    publishing.publish(surface)
    [problem] = refused(surface)
    assert problem.field == "__all__"
    assert "Nothing has changed" in problem.message
    assert surface.revisions.count() == 1


def test_a_draft_that_cannot_be_written_down_has_unpublished_changes(surface):
    publishing.publish(surface)
    surface.fields = {"title": 1}
    assert publishing.has_unpublished_changes(surface)


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"title": 1}, "title", [1], None])
def test_fields_must_be_a_list_of_names(surface, fields):
    surface.fields = fields
    with pytest.raises(CannotPublish) as caught:
        publishing.draft_document(surface)
    assert [problem.field for problem in caught.value.problems] == ["fields"]


def test_a_surface_without_live_build_cannot_be_published(surface, definition):
    definition.live_build = None
    definition.save()
    [problem] = refused(Surface.objects.get(pk=surface.pk))
    assert problem.field == "index"
    assert "build it first" in problem.message


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"limit": 6, "max_limit": 5}, "limit"),
        ({"limit": 0}, "limit"),
        ({"candidates": 4, "max_limit": 5}, "candidates"),
        ({"candidates": 1001}, "candidates"),
        ({"deadline_ms": 4}, "deadline_ms"),
        ({"browse_field": ""}, "fallback_item_ids"),
        ({"fields": ("nosuch",)}, "fields"),
    ],
)
def test_the_problems_of_a_document(changes, path):
    given = document(**{"browse_field": "rating", **changes})
    assert [problem.field for problem in publishing.problems(given, live_index())] == [path]


def test_a_surface_that_fails_fast_needs_no_default_list():
    given = document(fallback="fail")
    assert publishing.problems(given, live_index()) == []


def test_all_problems_come_at_once(surface, add_filter, reranker):
    add_filter("brand", "x")
    add_filter("nosuch", "x")
    add_filter("price", "cheap", operator="at_most")
    surface.fields = ["title", "colour"]
    surface.reranker = reranker
    surface.seed_signal = "views"
    surface.limit = 100
    surface.save()
    assert sorted(problem.field for problem in refused(surface)) == [
        "fields",
        "filters[1].field",
        "filters[2].values",
        "limit",
        "reranker",
        "seed_signal",
    ]
    assert not surface.revisions.exists()
    assert surface.live_revision is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fallback_item_ids": "nosuch\nnor-this"}, "none of the listed items"),
        ({}, "no item"),
    ],
)
def test_a_default_list_may_not_be_empty(surface, add_filter, changes, says):
    if not changes:
        add_filter("price", "1000000", operator="at_least")
    Surface.objects.filter(pk=surface.pk).update(**changes)
    [problem] = refused(Surface.objects.get(pk=surface.pk))
    assert problem.field == "fallback_item_ids"
    assert says in problem.message


def test_an_address_that_another_surface_still_serves_is_refused(surface):
    publishing.publish(surface)
    Surface.objects.filter(pk=surface.pk).update(slug="moved")
    taken = Surface.objects.create(
        slug="shelf",
        name="New shelf",
        index=IndexDefinition.objects.get(),
        browse_field="rating",
    )
    [problem] = refused(taken)
    assert problem.field == "slug"
    assert '"moved"' in problem.message
    publishing.publish(Surface.objects.get(slug="moved"))
    publishing.publish(taken)
    assert set(snapshot.build().surfaces) == {"moved", "shelf"}


def test_a_publish_in_an_outage_keeps_the_default_list_there_was(surface, outage):
    publishing.publish(surface)
    kept = DefaultList.objects.get().items
    outage.begin()
    surface.browse_descending = False
    surface.save()
    assert publishing.publish(surface).number == 2
    assert DefaultList.objects.get().items == kept
