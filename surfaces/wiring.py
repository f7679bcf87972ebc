"""The real stages, and the threads they run in: the one place where the parts meet."""

import os
from collections.abc import Iterable
from functools import lru_cache
from threading import Thread
from time import monotonic

import structlog

from enrichment import sources
from enrichment.errors import EnrichmentError
from enrichment.spec import SourceSpec
from indexes import embedding, search
from indexes.schema import EndpointSpec
from surfaces.plan import Plan
from surfaces.pool import Pool
from surfaces.probes import Probes
from surfaces.stages import Stages, Vector

# Every thread that answers, of requests and of pages, may embed and fetch two sources at once.
STAGE_THREADS = 64

log = structlog.get_logger(__name__)


def stages() -> Stages:
    """Return the stages of this process; its threads are made on first use."""
    return _stages(os.getpid())


def warm(plans: Iterable[Plan], *, timeout_s: float) -> None:
    """Open, side by side, what the plans' first requests would otherwise wait for.

    Waits at most so long: what takes longer goes on behind. Again, it costs nothing.
    """
    pid = os.getpid()
    until = monotonic() + timeout_s
    plans = list(plans)
    specs = (source.spec.model_dump_json() for plan in plans for source in plan.sources)
    sources = [_opening(pid, spec) for spec in dict.fromkeys(specs)]
    # For endpoints, one real call: what takes long is the first handshake, not the client.
    for thread in (*_probes(pid).begin(plans), *sources):
        thread.join(max(0.0, until - monotonic()))


def recheck(plans: Iterable[Plan]) -> dict[str, str]:
    """Begin the checks of the plans' models that are due, and return what is known to be wrong.

    Waits for nothing. By surface, with `` (canary)`` after its name for that of its canary.
    """
    plans = list(plans)
    probes = _probes(os.getpid())
    probes.begin(plans)
    return {
        plan.slug if plan.variant is None else f"{plan.slug} ({plan.variant})": str(wrong)
        for plan in plans
        if (wrong := probes.refused.get(plan.model)) is not None
    }


@lru_cache(maxsize=1)
def _probes(pid: int) -> Probes:
    return Probes()


@lru_cache(maxsize=1024)
def _opening(pid: int, spec: str) -> Thread:
    # Once for all plans that share it. A daemon: a process may end while a table hangs.
    thread = Thread(target=_open_source, args=(spec,), name="warm", daemon=True)
    thread.start()
    return thread


def _open_source(spec: str) -> None:
    source = SourceSpec.model_validate_json(spec)
    try:
        sources.warm(source)
    except EnrichmentError as error:
        log.warning("source not warm", source=source.slug, reason=error.reason)


@lru_cache(maxsize=1)
def _stages(pid: int) -> Stages:
    # By process: threads do not follow a fork.
    return Stages(
        embed=_embed,
        knn=search.knn,
        browse=search.browse,
        vectors=search.vectors,
        fetch=sources.fetch,
        pool=Pool(STAGE_THREADS),
        refused=_probes(pid).refused,
    )


def _embed(endpoint: EndpointSpec, text: str) -> Vector:
    return embedding.embed_query(endpoint, text)
