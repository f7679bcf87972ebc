"""The real stages, and the threads they run in: the one place where the parts meet."""

import os
from functools import lru_cache

import structlog

from enrichment import sources
from enrichment.errors import EnrichmentError
from indexes import embedding, search
from indexes.errors import IndexesError
from indexes.schema import EndpointSpec
from surfaces.plan import Plan
from surfaces.pool import Pool
from surfaces.registry import Registry
from surfaces.stages import Stages, Vector

# Every thread that answers, of requests and of pages, may embed and fetch two sources at once.
STAGE_THREADS = 64

log = structlog.get_logger(__name__)


def stages() -> Stages:
    """Return the stages of this process; its threads are made on first use."""
    return _stages(os.getpid())


def warm(registry: Registry) -> None:
    """Open what the first request would otherwise wait for: clients, connections and code."""
    for plan in registry.plans():
        warm_plan(plan)


def warm_plan(plan: Plan) -> None:
    """Open what the plan's first request would otherwise wait for. Cheap when done before."""
    if plan.index is None:
        return
    try:
        embedding.warm(plan.index.spec.endpoint)
        for source in plan.sources:
            sources.warm(source.spec)
    except (IndexesError, EnrichmentError) as error:
        log.warning("not warm", surface=plan.slug, reason=error.reason, message=str(error))


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
    )


def _embed(endpoint: EndpointSpec, text: str, timeout_s: float) -> Vector:
    return embedding.embed_query(endpoint, text, timeout_s=timeout_s)
