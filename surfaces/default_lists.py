"""Default lists: resolved from the index ahead of time, held by every web process.

They are what a surface serves with every store down, so their items carry all that
an answer shows and all that the surface filters by.
"""

from collections.abc import Iterable

import structlog
from django.db import transaction
from django.utils import timezone

from indexes import search
from indexes.errors import SearchError
from indexes.filters import matches
from indexes.models import IndexDefinition
from indexes.schema import LiveIndex
from indexes.search import Hit
from surfaces import snapshot
from surfaces.document import DefaultItem, FallbackMode, PublishedSurface, SurfaceDocument
from surfaces.errors import PlanInvalid
from surfaces.models import DefaultList, Surface
from surfaces.plan import compile_plan

log = structlog.get_logger(__name__)

TIMEOUT_S = 5.0
# Beyond the most a caller may ask for: a request excludes items and filters them.
SPARE = 50


def resolve(document: SurfaceDocument, index: LiveIndex) -> list[DefaultItem]:
    """Return the items the surface falls back to: its own list, else the first by its browse field.

    Only items that pass the surface's fixed filters. Raises SearchError and PlanInvalid.
    """
    plan = compile_plan(PublishedSurface(revision=0, document=document), index)
    size = document.max_limit + SPARE
    hits: list[Hit] = []
    if document.fallback_item_ids:
        listed = search.items(
            index, document.fallback_item_ids[:size], fields=plan.held, timeout_s=TIMEOUT_S
        )
        hits = [hit for hit in listed if matches(plan.static, hit.fields)]
    elif document.browse_field:
        hits = search.browse(
            index,
            sort_by=document.browse_field,
            descending=document.browse_descending,
            k=size,
            clauses=plan.static,
            fields=plan.held,
            timeout_s=TIMEOUT_S,
        ).hits
    return [DefaultItem(id=hit.id, fields=hit.fields) for hit in hits]


def store(surface: Surface, items: Iterable[DefaultItem], index: LiveIndex) -> None:
    """Keep the list in the open transaction; who calls also raises the snapshot's version."""
    DefaultList.objects.update_or_create(
        surface=surface,
        defaults={
            "items": [item.model_dump(mode="json") for item in items],
            "build_label": index.label,
            "refreshed_at": timezone.now(),
        },
    )


def refresh(definition: IndexDefinition | None = None) -> int:
    """Resolve the lists of all published surfaces, or of one index's; return how many were.

    A list that cannot be resolved, or has become empty, stays as it was.
    """
    surfaces = Surface.objects.exclude(live_revision=None).select_related("live_revision")
    indexes = snapshot.live_indexes()
    refreshed = 0
    for surface in surfaces:
        document = snapshot.live_document(surface)
        if document is None or document.fallback is not FallbackMode.DEFAULT_LIST:
            continue
        index = indexes.get(document.index)
        if index is None or (definition is not None and indexes.get(definition.slug) != index):
            continue
        try:
            items = resolve(document, index)
        except (SearchError, PlanInvalid) as error:
            log.warning(
                "default list not refreshed",
                surface=document.slug,
                reason=error.reason,
                message=str(error),
            )
            continue
        if items and _store_if_live(surface, items, index):
            refreshed += 1
    if refreshed:
        with transaction.atomic():
            snapshot.changed()
    return refreshed


def _store_if_live(surface: Surface, items: Iterable[DefaultItem], index: LiveIndex) -> bool:
    with transaction.atomic():
        unchanged = Surface.objects.select_for_update().filter(
            pk=surface.pk, live_revision=surface.live_revision_id
        )
        # A publish since the list was resolved has brought a list of its own.
        if unchanged.first() is None:
            return False
        store(surface, items, index)
    return True
