"""The real stages, and the threads they run in: the one place where the parts meet."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from threading import Thread
from time import monotonic

import structlog

from enrichment import sources
from enrichment.errors import EnrichmentError
from enrichment.spec import SourceSpec
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


def warm(plans: Iterable[Plan], *, timeout_s: float) -> None:
    """Open, side by side, what the plans' first requests would otherwise wait for.

    Waits at most so long: what takes longer goes on behind. Again, it costs nothing.
    """
    pid = os.getpid()
    until = monotonic() + timeout_s
    opening = [_opening(pid, opener, spec) for opener, spec in dict.fromkeys(_needs(plans))]
    for thread in opening:
        thread.join(max(0.0, until - monotonic()))


def _needs(plans: Iterable[Plan]) -> Iterator[tuple[Callable[[str], None], str]]:
    for plan in plans:
        if plan.endpoint is not None:
            yield _open_endpoint, plan.endpoint.model_dump_json()
        for source in plan.sources:
            yield _open_source, source.spec.model_dump_json()


@lru_cache(maxsize=1024)
def _opening(pid: int, opener: Callable[[str], None], spec: str) -> Thread:
    # Once for all plans that share it. A daemon: a process may end while an endpoint hangs.
    thread = Thread(target=opener, args=(spec,), name="warm", daemon=True)
    thread.start()
    return thread


def _open_endpoint(spec: str) -> None:
    # One real call: what takes long is the first handshake, not the client.
    endpoint = EndpointSpec.model_validate_json(spec)
    try:
        embedding.embed_query(endpoint, "warm")
    except IndexesError as error:
        log.warning("endpoint not warm", endpoint=endpoint.slug, reason=error.reason)


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
    )


def _embed(endpoint: EndpointSpec, text: str) -> Vector:
    return embedding.embed_query(endpoint, text)
