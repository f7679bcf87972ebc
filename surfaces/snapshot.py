"""The serving snapshot: all that web processes need, written to Valkey on each change.

Every change of what is served (a publish, a promoted build, a key made or
revoked, a refreshed default list) calls ``changed()`` in its own transaction:
the version rises with the change or not at all, and the push follows the commit.

A version is the time of the change in milliseconds, and always greater than the
one before. So web processes need one rule, to load what is newer, even where
histories part: a database restored from a backup goes on with versions above
those it lost, and where Valkey holds a version above the database's (another
database's, or one lost with a backup) the next push first raises the
database's above it. A Valkey that lost the snapshot gets it again under a new
version, by the periodic push at the latest.
"""

import time

import structlog
from django.db import DatabaseError, connection, transaction
from django.db.models import Prefetch
from pydantic import ValidationError

from indexes.errors import SearchError
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import LiveIndex
from indexes.valkey import VersionedDocument
from surfaces.document import (
    Canary,
    DefaultItem,
    FallbackMode,
    KeyScope,
    PublishedSurface,
    Snapshot,
    SurfaceDocument,
)
from surfaces.errors import SnapshotUnavailable
from surfaces.models import ApiKey, ServingState, Surface
from surfaces.registry import document_key

log = structlog.get_logger(__name__)

STATE_PK = 1


def bump(at_least: int = 0) -> int:
    """Raise the version in the transaction of a change, which must be open, and return it."""
    state = _locked_state()
    state.version = max(state.version + 1, at_least, time.time_ns() // 1_000_000)
    state.save(update_fields=["version"])
    return state.version


def changed() -> int:
    """Raise the version with the open transaction and push when it commits; return the version."""
    version = bump()
    transaction.on_commit(push_or_wait)
    return version


def push() -> bool:
    """Write the snapshot to Valkey; False when it holds this version already. Raises SearchError."""
    document = _document()
    # Read before the database is: whatever this database's history pushed until
    # now is then at most its version, and a higher one is another history's.
    stored = document.version()
    with transaction.atomic():
        version = _locked_state().version
        if stored == version:
            return False
        if stored is None or stored > version:
            bump(at_least=(stored or 0) + 1)
            log.info("snapshot version raised", stored=stored, version=version)
        snapshot = build()
    return document.publish(snapshot.version, snapshot.model_dump_json().encode())


def push_or_wait() -> None:
    """Push, or leave it to the periodic task while Valkey cannot be reached."""
    try:
        push()
    except SearchError as error:
        log.warning("snapshot waits for valkey", reason=error.reason, message=str(error))


def is_pushed() -> bool:
    """Return whether web processes can see all that is published; False too while Valkey is down."""
    version = (
        ServingState.objects.filter(pk=STATE_PK).values_list("version", flat=True).first() or 0
    )
    try:
        return (_document().version() or 0) == version
    except SearchError:
        return False


def build() -> Snapshot:
    """Read the snapshot from the database, all of it at one version."""
    with transaction.atomic():
        # Whoever changes what is read here holds this row until it commits.
        version = _locked_state().version
        return Snapshot(
            version=version,
            surfaces=published(),
            indexes=live_indexes(),
            canaries=canaries(),
            keys=_keys(),
        )


def read() -> tuple[int, bytes]:
    """Return the version and the JSON of the snapshot: the registry's source while Valkey has none."""
    try:
        snapshot = build()
    except DatabaseError as error:
        raise SnapshotUnavailable(f"The database cannot be read: {error}") from error
    finally:
        # Called from a thread of its own, whose connection nobody else would close.
        if not connection.in_atomic_block:
            connection.close()
    return snapshot.version, snapshot.model_dump_json().encode()


def live_indexes() -> dict[str, LiveIndex]:
    """Return the live builds by the slug of their definition."""
    found: dict[str, LiveIndex] = {}
    for definition, names in served().items():
        if (live := live_index(definition)) is not None:
            found |= dict.fromkeys(names, live)
    return found


def canaries() -> dict[str, Canary]:
    """Return the canaries by the slugs under which the live builds beside them are found."""
    found: dict[str, Canary] = {}
    for definition, names in served().items():
        if (build := definition.canary_build) is not None:
            canary = Canary(percent=definition.canary_percent, index=build.to_live())
            found |= dict.fromkeys(names, canary)
    return found


def served() -> dict[IndexDefinition, list[str]]:
    """Return the definitions with a live build, and every slug that published documents name them by."""
    definitions = {
        definition.pk: definition
        for definition in IndexDefinition.objects.exclude(live_build=None).select_related(
            "live_build", "canary_build"
        )
    }
    names = {definition: [definition.slug] for definition in definitions.values()}
    own = {definition.slug for definition in definitions.values()}
    # A renamed definition is still found by the documents that name an old slug, which
    # some build was made under.
    former = IndexBuild.objects.filter(definition__in=definitions).order_by("definition_id")
    for pk, slug in former.values_list("definition_id", "spec__slug").distinct():
        if slug not in own:
            own.add(slug)
            names[definitions[pk]].append(slug)
    return names


def live_index(definition: IndexDefinition) -> LiveIndex | None:
    """Return the live build of an index, or None."""
    return definition.live_build.to_live() if definition.live_build else None


def live_document(surface: Surface) -> SurfaceDocument | None:
    """Return what the surface serves; None where nothing is live, or an old release wrote it unreadably."""
    revision = surface.live_revision
    if revision is None:
        return None
    try:
        return SurfaceDocument.model_validate(revision.document)
    except ValidationError as error:
        log.error(
            "revision not readable",
            surface=surface.slug,
            revision=revision.number,
            message=str(error),
        )
        return None


def _locked_state() -> ServingState:
    ServingState.objects.get_or_create(pk=STATE_PK)
    return ServingState.objects.select_for_update().get(pk=STATE_PK)


def _document() -> VersionedDocument:
    return VersionedDocument(document_key())


def published() -> dict[str, PublishedSurface]:
    """Return what the surfaces serve, by the slugs that it is served under."""
    found = {}
    live = Surface.objects.exclude(live_revision=None)
    for surface in live.select_related("live_revision", "default_list"):
        revision, document = surface.live_revision, live_document(surface)
        if revision is None or document is None:
            continue
        served = document.fallback is FallbackMode.DEFAULT_LIST
        default_list = getattr(surface, "default_list", None) if served else None
        # By the published slug: that of a renamed draft is not served before its publish.
        found[document.slug] = PublishedSurface(
            revision=revision.number,
            document=document,
            default_items=tuple(
                DefaultItem.model_validate(item)
                for item in (default_list.items if default_list else ())
            ),
            default_items_at=default_list.refreshed_at if default_list else None,
        )
    return found


def _keys() -> dict[str, KeyScope]:
    published = Prefetch("surfaces", Surface.objects.select_related("live_revision"))
    keys = ApiKey.objects.filter(revoked_at=None).prefetch_related(published, "indexes")
    return {key.digest: _scope(key) for key in keys}


def _scope(key: ApiKey) -> KeyScope:
    indexes = tuple(sorted(index.slug for index in key.indexes.all()))
    surfaces = list(key.surfaces.all())
    if not key.scoped and not surfaces:
        return KeyScope(name=key.name, indexes=indexes)
    slugs = {slug for surface in surfaces if (slug := _published_slug(surface))}
    return KeyScope(name=key.name, surfaces=tuple(sorted(slugs)), indexes=indexes)


def _published_slug(surface: Surface) -> str:
    """Return the slug that is served; "" where nothing is, or the revision cannot be read."""
    document = surface.live_revision.document if surface.live_revision else None
    slug = document.get("slug") if isinstance(document, dict) else None
    return slug if isinstance(slug, str) else ""
