"""The demo's rows: made once, kept when changed, put back on demand, fit to be published."""

import pytest

from enrichment.models import EnrichmentSource
from indexes.schema import LiveIndex
from recplatform.demo import content
from recplatform.demo.catalog import products
from surfaces import publishing
from surfaces.models import Reranker, Surface

pytestmark = pytest.mark.django_db


def test_every_field_of_the_index_is_in_the_catalog():
    row = products()[0]
    for name, (_, options) in content.INDEX_FIELDS.items():
        assert options.get("source_path", name) in row


def test_the_drafts_have_no_problems_on_their_own_index():
    index, surfaces = content.ensure(reset=False)
    live = LiveIndex(label="v1", index_name="v1", key_prefix="v1:", spec=index.to_spec())
    assert {surface.slug for surface in surfaces} == set(content.SURFACES)
    for surface in surfaces:
        assert publishing.problems(publishing.draft_document(surface), live) == []


def test_a_second_run_keeps_what_was_changed():
    content.ensure(reset=False)
    surface = Surface.objects.get(slug="home-row")
    surface.limit = 7
    surface.save()
    surface.filters.all().delete()
    index, written = content.ensure(reset=False)
    surface.refresh_from_db()
    assert written == []
    assert surface.limit == 7
    assert not surface.filters.exists()
    assert index.fields.count() == len(content.INDEX_FIELDS)


def test_a_deleted_surface_is_made_again():
    content.ensure(reset=False)
    Surface.objects.get(slug="home-row").delete()
    _, written = content.ensure(reset=False)
    assert [surface.slug for surface in written] == ["home-row"]


def test_reset_puts_every_row_back():
    content.ensure(reset=False)
    surface = Surface.objects.get(slug="home-row")
    wanted = publishing.draft_document(surface)
    surface.limit = 7
    surface.save()
    surface.filters.all().delete()
    surface.sources.clear()
    Reranker.objects.get(slug="taste-first").terms.all().delete()
    EnrichmentSource.objects.get(slug="shoppers").signals.all().delete()
    _, written = content.ensure(reset=True)
    assert len(written) == len(content.SURFACES)
    assert publishing.draft_document(Surface.objects.get(slug="home-row")) == wanted
