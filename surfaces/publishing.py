"""From draft to revision: every reason not to publish, and the publish itself."""

import hashlib
from dataclasses import dataclass
from functools import partial

import structlog
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Max, QuerySet

from indexes.errors import SearchError
from indexes.schema import LiveIndex
from indexes.validation.surfaces_fit import look_again_at
from surfaces import default_lists, snapshot
from surfaces.document import (
    DefaultItem,
    FallbackMode,
    FilterSpec,
    Operator,
    PublishedSurface,
    RerankSpec,
    SurfaceDocument,
    ValueFrom,
    WhenMissing,
)
from surfaces.errors import CannotPublish, DraftChanged, PlanInvalid, Problem
from surfaces.models import Reranker, Surface, SurfaceFilter, SurfaceRevision
from surfaces.plan import compile_plan

__all__ = [
    "CannotPublish",
    "DraftChanged",
    "Problem",
    "check",
    "draft_digest",
    "draft_document",
    "has_unpublished_changes",
    "problems",
    "publish",
]

# The field of a problem that is about the draft as a whole.
WHOLE_DRAFT = "__all__"
MAX_CANDIDATES = 1000
MIN_DEADLINE_MS = 5

log = structlog.get_logger(__name__)


def draft_document(surface: Surface) -> SurfaceDocument:
    """Return what would be published now; CannotPublish where the draft cannot be written as one."""
    fields = surface.fields
    if not isinstance(fields, list) or not all(isinstance(name, str) for name in fields):
        raise CannotPublish([Problem("fields", 'Write a list of names, such as ["title"].')])
    return SurfaceDocument(
        slug=surface.slug,
        name=surface.name,
        index=surface.index.slug,
        candidates=surface.candidates,
        limit=surface.limit,
        max_limit=surface.max_limit,
        deadline_ms=surface.deadline_ms,
        fields=tuple(dict.fromkeys(fields)),
        filters=tuple(_filter(item) for item in surface.filters.all()),
        sources=tuple(source.to_spec() for source in surface.sources.all()),
        reranker=_reranker(surface.reranker),
        seed_signal=surface.seed_signal.strip(),
        default_query=surface.default_query.strip(),
        browse_field=surface.browse_field.strip(),
        browse_descending=surface.browse_descending,
        fallback=FallbackMode(surface.fallback),
        fallback_item_ids=_lines(surface.fallback_item_ids),
    )


def draft_digest(surface: Surface) -> str:
    """Return what tells one draft from another; "none" where it cannot be written as a document."""
    try:
        return _digest(draft_document(surface))
    except CannotPublish:
        return "none"


def problems(document: SurfaceDocument, index: LiveIndex | None) -> list[Problem]:
    """Return every reason not to publish that the document and the live index show."""
    found = _bounds(document)
    if document.fallback is FallbackMode.DEFAULT_LIST and not (
        document.fallback_item_ids or document.browse_field
    ):
        found.append(
            Problem(
                "fallback_item_ids",
                "The default list would be empty: list item ids, or set a browse field.",
            )
        )
    if index is None:
        found.append(
            Problem("index", f'Index "{document.index}" has no live build: build it first.')
        )
        return found
    try:
        compile_plan(PublishedSurface(revision=0, document=document), index)
    except PlanInvalid as error:
        found += error.problems
    return found


def check(surface: Surface) -> list[Problem]:
    """Return every reason not to publish the draft now; empty when ``publish`` would go through."""
    return _checked(surface).problems


def has_unpublished_changes(surface: Surface) -> bool:
    """Return whether the draft differs from the live revision, or nothing is live."""
    try:
        return not _same_as_live(surface, draft_document(surface))
    except CannotPublish:
        return True


def publish(
    surface: Surface,
    *,
    user: AbstractBaseUser | None = None,
    note: str = "",
    expected: str = "",
) -> SurfaceRevision:
    """Make the draft the live revision and push it; raise CannotPublish with every problem.

    ``expected`` is the ``draft_digest`` of what was looked at: any other draft raises
    DraftChanged. Served within a second by every web process. While Valkey is down the
    publish stands and is pushed later: ``snapshot.is_pushed()`` tells.
    """
    # Valkey is asked here, so that no save and no push waits for it behind the row's lock.
    checked = _checked(_drafts().get(pk=surface.pk))
    if checked.document is None:
        raise CannotPublish(checked.problems)
    if expected not in ("", _digest(checked.document)):
        raise DraftChanged
    if checked.problems:
        raise CannotPublish(checked.problems)
    with transaction.atomic():
        locked = _drafts().select_for_update(of=("self",)).get(pk=surface.pk)
        document, index, found = _judged(locked)
        if (document, index) != (checked.document, checked.index):
            raise DraftChanged
        # Another publish of the same draft may have come first.
        if document is None or found:
            raise CannotPublish(found)
        last = locked.revisions.aggregate(last=Max("number"))["last"] or 0
        revision = SurfaceRevision.objects.create(
            surface=locked,
            number=last + 1,
            document=document.model_dump(mode="json"),
            note=note,
            published_by_id=user.pk if user is not None else None,
        )
        Surface.objects.filter(pk=locked.pk).update(live_revision=revision)
        if checked.items and index is not None:
            default_lists.store(locked, checked.items, index)
        snapshot.changed()
        # A build that waits to go live may fit no more, or fit again.
        transaction.on_commit(partial(look_again_at, locked.index_id), robust=True)
    surface.live_revision = revision
    log.info("surface published", surface=document.slug, revision=revision.number)
    return revision


@dataclass(frozen=True, slots=True)
class _Checked:
    """A draft with its problems; ``items`` is its default list, empty where it could not be had."""

    document: SurfaceDocument | None
    index: LiveIndex | None
    problems: list[Problem]
    items: tuple[DefaultItem, ...] = ()


def _drafts() -> QuerySet[Surface]:
    return Surface.objects.select_related("index__live_build", "reranker", "live_revision")


def _checked(surface: Surface) -> _Checked:
    document, index, found = _judged(surface)
    if (
        found
        or document is None
        or index is None
        or document.fallback is not FallbackMode.DEFAULT_LIST
    ):
        return _Checked(document, index, found)
    try:
        items = default_lists.resolve(document, index)
    except SearchError as error:
        # The list of the revision before stays until the periodic refresh.
        log.warning("default list waits for valkey", surface=document.slug, reason=error.reason)
        return _Checked(document, index, found)
    if not items:
        found.append(Problem("fallback_item_ids", _why_empty(document)))
    return _Checked(document, index, found, tuple(items))


def _judged(surface: Surface) -> tuple[SurfaceDocument | None, LiveIndex | None, list[Problem]]:
    """Return the draft, its index, and every problem that shows without asking Valkey."""
    index = snapshot.live_index(surface.index)
    try:
        document = draft_document(surface)
    except CannotPublish as error:
        return None, index, list(error.problems)
    found = [*_address_taken(surface, document), *problems(document, index)]
    if _same_as_live(surface, document):
        found.append(
            Problem(
                WHOLE_DRAFT, "Nothing has changed since the live revision: save a change first."
            )
        )
    return document, index, found


def _digest(document: SurfaceDocument) -> str:
    return hashlib.sha256(document.model_dump_json().encode()).hexdigest()


def _why_empty(document: SurfaceDocument) -> str:
    who = "none of the listed items" if document.fallback_item_ids else "no item"
    return (
        f"The default list would be empty: {who} is in the live build and passes the fixed filters."
    )


def _same_as_live(surface: Surface, document: SurfaceDocument) -> bool:
    return snapshot.live_document(surface) == document


def _address_taken(surface: Surface, document: SurfaceDocument) -> list[Problem]:
    other = (
        Surface.objects.filter(live_revision__document__slug=document.slug)
        .exclude(pk=surface.pk)
        .first()
    )
    if other is None:
        return []
    return [
        Problem(
            "slug",
            f'"{document.slug}" is still served by the live revision of {other.name}, '
            f'now "{other.slug}": publish that one first.',
        )
    ]


def _bounds(document: SurfaceDocument) -> list[Problem]:
    found = []
    if document.limit < 1:
        found.append(Problem("limit", "Give at least 1 result."))
    if document.limit > document.max_limit:
        found.append(
            Problem("limit", f"More than the most a caller may ask for ({document.max_limit}).")
        )
    if document.candidates < document.max_limit:
        found.append(
            Problem(
                "candidates",
                f"Fewer than the {document.max_limit} results that a caller may ask for: "
                "raise it, or lower the most results.",
            )
        )
    if document.candidates > MAX_CANDIDATES:
        found.append(Problem("candidates", f"At most {MAX_CANDIDATES}."))
    if document.deadline_ms < MIN_DEADLINE_MS:
        found.append(Problem("deadline_ms", f"At least {MIN_DEADLINE_MS} ms."))
    return found


def _filter(item: SurfaceFilter) -> FilterSpec:
    return FilterSpec(
        field=item.field,
        operator=Operator(item.operator),
        value_from=ValueFrom(item.value_from),
        values=_lines(item.values),
        key=item.key.strip(),
        when_missing=WhenMissing(item.when_missing),
    )


def _reranker(reranker: Reranker | None) -> RerankSpec:
    if reranker is None:
        return RerankSpec()
    return RerankSpec(
        kind=reranker.kind,
        terms=tuple(term.to_spec() for term in reranker.terms.all()),
    )


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
