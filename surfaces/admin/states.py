"""The state of a surface's draft against what is live."""

from django.db.models import QuerySet

from surfaces import publishing
from surfaces.models import Surface

LIVE, CHANGED, UNPUBLISHED = "Live", "Unpublished changes", "Not published"
# With the colour that each is shown in.
STATES = {LIVE: "success", CHANGED: "warning", UNPUBLISHED: "info"}


def state(surface: Surface) -> tuple[str, str]:
    """Return the state in words and its colour."""
    name = UNPUBLISHED
    if surface.live_revision is not None:
        name = CHANGED if publishing.has_unpublished_changes(surface) else LIVE
    return name, STATES[name]


def with_drafts(surfaces: QuerySet[Surface]) -> QuerySet[Surface]:
    """Return the surfaces with all that their drafts are made of, read at once."""
    return surfaces.select_related(
        "index__live_build", "reranker", "live_revision"
    ).prefetch_related("filters", "sources__signals", "reranker__terms")
