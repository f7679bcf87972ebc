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
from surfaces.stages import Stages, Vector

# Every thread that answers, of requests and of pages, may embed and fetch two sources at once.
STAGE_THREADS = 64

log = structlog.get_logger(__name__)


def stages() -> Stages:
    """Return the stages of this process; its threads are made on first use."""
    return _stages(os.getpid())


def warm(plan: Plan) -> None:
    """Open what the plan's first request would otherwise wait for. Again, it costs nothing."""
    if plan.endpoint is not None:
        _warm_endpoint(os.getpid(), plan.endpoint.model_dump_json())
    for source in plan.sources:
        try:
            sources.warm(source.spec)
        except EnrichmentError as error:
            log.warning("source not warm", source=source.spec.slug, reason=error.reason)


@lru_cache(maxsize=256)
def _warm_endpoint(pid: int, spec: str) -> None:
    # One real call: what takes long is the first handshake, not the client.
    endpoint = EndpointSpec.model_validate_json(spec)
    try:
        embedding.embed_query(endpoint, "warm")
    except IndexesError as error:
        log.warning("endpoint not warm", endpoint=endpoint.slug, reason=error.reason)


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


def _embed(endpoint: EndpointSpec, text: str) -> Vector:
    return embedding.embed_query(endpoint, text)
