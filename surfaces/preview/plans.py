"""What the preview runs: the live revision as it is served, or the saved draft."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone

from indexes.errors import SearchError
from indexes.schema import LiveIndex
from surfaces import default_lists, publishing, snapshot
from surfaces.document import DefaultItem, PublishedSurface, SurfaceDocument
from surfaces.models import DefaultList, Surface
from surfaces.plan import Plan, compile_plan

# No revision has it: they count from 1.
DRAFT_REVISION = 0


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


def _version(surface: Surface, document: SurfaceDocument, number: int) -> Version:
    return Version(surface, document, number, snapshot.live_indexes().get(document.index))
