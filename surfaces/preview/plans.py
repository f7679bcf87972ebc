"""What the preview runs: the live revision as it is served, or the saved draft."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from django.utils import timezone

from indexes.errors import SearchError
from indexes.models import IndexBuild
from indexes.schema import LiveIndex
from surfaces import default_lists, publishing, snapshot
from surfaces.document import DefaultItem, PublishedSurface, SurfaceDocument
from surfaces.models import DefaultList, Surface
from surfaces.plan import Plan, compile_plan

# What of a build can be searched.
SEARCHABLE = (IndexBuild.Status.LIVE, IndexBuild.Status.READY)
# No revision has it: they count from 1.
DRAFT_REVISION = 0


class Choice(NamedTuple):
    """A build that the preview can search, and what it is to callers now."""

    label: str
    role: str


@dataclass(frozen=True, slots=True)
class Version:
    """One configuration of a surface, with what its index searches now."""

    surface: Surface
    document: SurfaceDocument
    revision: int
    index: LiveIndex | None

    @property
    def is_draft(self) -> bool:
        return self.revision == DRAFT_REVISION

    def plan(self) -> Plan:
        """Return the plan that the API would make of it. Raises PlanInvalid."""
        return compile_plan(self._published(), self.index)

    def on(self, label: str) -> Version:
        """Return the same on another build of its index; unchanged where there is none of that label."""
        builds = IndexBuild.objects.filter(definition=self.surface.index_id, status__in=SEARCHABLE)
        index = next((build.to_live() for build in builds if build.label == label), self.index)
        return replace(self, index=index)

    def _published(self) -> PublishedSurface:
        kept = DefaultList.objects.filter(surface=self.surface).first()
        items = tuple(DefaultItem.model_validate(item) for item in kept.items) if kept else ()
        made = kept.refreshed_at if kept else None
        if self.is_draft and self.index is not None:
            try:
                items = tuple(default_lists.resolve(self.document, self.index))
                made = timezone.now()
            except SearchError:
                # With the engine down, the live revision's list is the one that is left.
                pass
        return PublishedSurface(
            revision=self.revision,
            document=self.document,
            default_items=items,
            default_items_at=made,
        )


def draft(surface: Surface) -> Version:
    """Return the saved draft. Raises CannotPublish where it cannot be written as a document."""
    return _version(surface, publishing.draft_document(surface), DRAFT_REVISION)


def live(surface: Surface) -> Version | None:
    """Return the live revision; None where there is none, or none that can be read."""
    revision, document = surface.live_revision, snapshot.live_document(surface)
    if revision is None or document is None:
        return None
    return _version(surface, document, revision.number)


def choices(surface: Surface) -> list[Choice]:
    """Return the builds of the surface's index that can be searched, the live one first."""
    definition = surface.index
    roles = {definition.live_build_id: "live"}
    if definition.canary_build_id is not None:
        roles[definition.canary_build_id] = f"canary, {definition.canary_percent} %"
    builds = definition.builds.filter(status__in=SEARCHABLE).order_by("-number")
    found = [(build.pk, Choice(build.label, roles.get(build.pk, "ready"))) for build in builds]
    found.sort(key=lambda pair: pair[0] != definition.live_build_id)
    return [choice for _, choice in found]


def _version(surface: Surface, document: SurfaceDocument, number: int) -> Version:
    return Version(surface, document, number, snapshot.live_indexes().get(document.index))
