"""Published surfaces and a build that they do not fit: it is held back, and says which and why."""

from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User

from indexes import builds, cutover
from indexes.errors import BuildError
from indexes.models import GateResult, IndexBuild, IndexDefinition
from indexes.validation import surfaces_fit
from surfaces import fit, publishing
from surfaces.models import Surface, SurfaceFilter
from tests.fixtures_indexes import PRODUCTS

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict


@dataclass
class Stand:
    definition: IndexDefinition
    surface: Surface

    def build(self) -> IndexBuild:
        build = builds.start(self.definition, enqueue=False)
        builds.run_to_end(build.pk)
        build.refresh_from_db()
        return build

    def drop(self, name: str) -> None:
        self.definition.fields.filter(name=name).delete()

    @property
    def live(self) -> str | None:
        live = IndexDefinition.objects.get(pk=self.definition.pk).live_build
        return live.label if live else None


@pytest.fixture
def stand(new_definition) -> Stand:
    """A live build, and a surface that filters by brand, published on it."""
    definition = new_definition(PRODUCTS[:20])
    surface = Surface(
        slug="similar", name="Similar items", index=definition, fields=["title"], deadline_ms=5000
    )
    stand = Stand(definition, surface)
    stand.build()
    surface.browse_field = "rating"
    surface.save()
    SurfaceFilter.objects.create(surface=surface, field="brand", values="Lumea")
    publishing.publish(surface)
    return stand


def gate(build: IndexBuild) -> GateResult:
    return build.gates.get(gate=surfaces_fit.NAME)


def test_a_build_without_a_field_that_is_filtered_by_does_not_go_live(stand):
    stand.drop("brand")
    build = stand.build()
    assert (build.status, build.verdict) == (Status.READY, Verdict.BLOCKED)
    assert stand.live == "products-v1"
    said = gate(build)
    assert said.outcome == GateResult.Outcome.FAILED
    assert "Similar items filters by brand, which products-v2 does not have." in said.message
    assert (said.figure, said.threshold) == (1, 0)
    with pytest.raises(BuildError, match=r"Similar items filters by brand.*override"):
        cutover.promote(build)


def test_a_build_that_all_fit_goes_live(stand):
    stand.drop("region")
    build = stand.build()
    assert (build.status, gate(build).outcome) == (Status.LIVE, GateResult.Outcome.PASSED)


def test_every_use_of_a_field_is_named(stand):
    for name in ("brand", "rating"):
        stand.drop(name)
    stand.definition.fields.filter(name="title").update(type="stored", returned=False)
    assert fit.complaints(builds.start(stand.definition, enqueue=False)) == [
        "Similar items filters by brand, which products-v2 does not have.",
        "Similar items lists by rating, which products-v2 does not have.",
        'Similar items: The index does not return "title": tick "returned" on it.',
    ]


def test_a_surface_that_is_broken_already_holds_nothing_back(stand):
    stand.drop("brand")
    boss = User.objects.create_superuser("boss")
    cutover.promote(stand.build(), by=boss, why="The row is gone from the shop.", override=True)
    assert stand.live == "products-v2"
    assert stand.build().status == Status.LIVE


def test_only_the_surfaces_of_the_index_are_asked(stand, new_definition):
    other = new_definition(PRODUCTS[:5], slug="other", fields=[{"name": "title", "type": "text"}])
    assert fit.complaints(builds.start(other, enqueue=False)) == []


def test_a_draft_holds_nothing_back(stand):
    SurfaceFilter.objects.create(surface=stand.surface, field="region", values="us")
    stand.drop("region")
    assert stand.build().status == Status.LIVE


@pytest.mark.django_db(transaction=True)
class TestLater:
    """A surface is published, mended or deleted while a build waits."""

    @pytest.fixture
    def waiting(self, stand: Stand) -> IndexBuild:
        IndexDefinition.objects.update(promotion=IndexDefinition.Promotion.MANUAL)
        stand.drop("region")
        build = stand.build()
        assert (build.status, build.verdict) == (Status.READY, Verdict.PASSED)
        return build

    @pytest.fixture
    def fresh(self, stand) -> Surface:
        """A surface that filters by the field that the waiting build lacks."""
        surface = Surface.objects.create(
            slug="fresh",
            name="Fresh",
            index=stand.definition,
            browse_field="rating",
            deadline_ms=5000,
        )
        SurfaceFilter.objects.create(surface=surface, field="region", values="us")
        return surface

    def test_the_build_is_held_back_until_it_is_mended(self, stand, waiting, fresh):
        publishing.publish(fresh)
        waiting.refresh_from_db()
        assert waiting.verdict == Verdict.BLOCKED
        fresh.filters.all().delete()
        publishing.publish(fresh)
        cutover.promote(waiting)
        assert (waiting.verdict, stand.live) == (Verdict.PASSED, "products-v2")

    def test_or_until_it_is_deleted(self, waiting, fresh):
        publishing.publish(fresh)
        fresh.delete()
        waiting.refresh_from_db()
        assert waiting.verdict == Verdict.PASSED

    def test_it_is_looked_at_again_when_the_build_goes_live(
        self, stand, waiting, fresh, monkeypatch
    ):
        monkeypatch.setattr(publishing, "look_again_at", lambda definition_id: None)
        publishing.publish(fresh)
        with pytest.raises(BuildError, match="Fresh filters by region"):
            cutover.promote(waiting)
        assert stand.live == "products-v1"
        waiting.refresh_from_db()
        # So that its page offers to override.
        assert waiting.verdict == Verdict.BLOCKED
        boss = User.objects.create_superuser("boss")
        cutover.promote(waiting, by=boss, why="Fresh is not shown yet.", override=True)
        assert (waiting.verdict, stand.live) == (Verdict.OVERRIDDEN, "products-v2")

    def test_a_failed_gate_of_another_kind_stays(self, waiting, fresh):
        GateResult.objects.filter(build=waiting, gate="recall").update(
            outcome=GateResult.Outcome.FAILED
        )
        publishing.publish(fresh)
        fresh.delete()
        waiting.refresh_from_db()
        assert waiting.verdict == Verdict.BLOCKED
