"""What happened in a run, in words for those who did not build the platform."""

from typing import NamedTuple

from django.urls import reverse

from enrichment.models import EnrichmentSource
from indexes.models import IndexDefinition
from surfaces.contracts import Degraded, Fallback
from surfaces.models import Surface

STAGES = {
    "embed": "Embedding the query",
    "seed": "Reading the given items",
    "search": "Searching the index",
    "rerank": "Reranking",
    "index": "The index",
}
REASONS = {
    "timeout": "gave no answer in time",
    "throttled": "refuses load",
    "unavailable": "cannot be reached",
    "overloaded": "found no free thread in this process",
    "rejected": "refused the request: its configuration is wrong",
    "bad_response": "gave an answer that cannot be read",
    "other_model": "found another model behind the endpoint than the index was built with",
    "index_missing": "found that the physical index is gone",
    "error": "failed through a fault in the platform, which the log tells",
    "unknown_items": "found none of the item ids in the index",
    "no_signal": "found no signal to start from",
    "no_live_build": "has no live build",
    "does_not_compile": "no longer has what this configuration names",
}
RETRIEVALS = {
    "query": "Nearest to the query",
    "items": "Nearest to the given items",
    "query+items": "Nearest to the query and the given items",
    "signal": "Nearest to the items of the shopper's signal",
    "default_query": "Nearest to the surface's own query",
    "browse": "Listed by the browse field",
}


class Note(NamedTuple):
    """Something that went otherwise than configured, and where to mend it."""

    text: str
    link: str = ""
    link_text: str = ""


def stage(name: str) -> str:
    """Return the stage in words: ``enrichment:trending`` is “Signals from trending”."""
    kind, _, slug = name.partition(":")
    return f"Signals from {slug}" if slug else STAGES.get(kind, kind)


def reason(code: str) -> str:
    """Return the reason as the end of a sentence that a stage begins."""
    return REASONS.get(code, code)


def degraded(entry: Degraded, surface: Surface) -> Note:
    """Return what the answer was made without."""
    text = (
        f"{stage(entry.stage)} {reason(entry.reason)} ({entry.spent_ms:.0f} ms spent). "
        "The answer was made without it."
    )
    return Note(text, *_mend(entry.stage, surface))


def fallback(entry: Fallback, surface: Surface) -> Note:
    """Return why the default list is shown."""
    name, _, code = entry.reason.rpartition(":")
    age = f" It is {_age(entry.age_s)} old." if entry.age_s is not None else ""
    text = f"{stage(name)} {reason(code)}, so the default list is shown.{age}"
    return Note(text, *_mend(name, surface))


def failed(code: str, surface: Surface) -> Note:
    """Return why the surface answers 503: it is set to fail fast."""
    name, _, why = code.rpartition(":")
    text = f"{stage(name)} {reason(why)}, and this surface is set to fail fast: callers get 503."
    return Note(text, *_mend(name, surface))


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _mend(name: str, surface: Surface) -> tuple[str, str]:
    """Return the address and name of the page where the stage is configured."""
    kind, _, slug = name.partition(":")
    index: IndexDefinition = surface.index
    if kind == "enrichment":
        source = EnrichmentSource.objects.filter(slug=slug).first()
        if source is None:
            return "", ""
        return reverse("admin:enrichment_enrichmentsource_change", args=[source.pk]), (
            f"Source {slug}"
        )
    if kind == "embed":
        page = reverse("admin:indexes_embeddingendpoint_change", args=[index.endpoint_id])
        return page, f"Endpoint {index.endpoint}"
    if kind in ("index", "search", "seed"):
        return reverse("admin:indexes_indexdefinition_change", args=[index.pk]), f"Index {index}"
    return "", ""
