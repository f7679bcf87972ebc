"""Gate: the endpoint answers the same vector for a fixed text after the load as before it."""

from __future__ import annotations

from indexes.embedding import embed_passages
from indexes.items import decode_vector
from indexes.models import IndexBuild
from indexes.probe import MIN_COSINE, cosine
from indexes.schema import PROBE_TEXT
from indexes.validation.bench import Bench
from indexes.validation.result import Outcome, Result, skipped

Status = IndexBuild.Status


def measure(bench: Bench) -> Result:
    """A model that is replaced during a load leaves vectors of two models in one index.

    Where most vectors were taken over or given, the endpoint is not called for this: web
    processes compare the same probe before they serve a build.
    """
    build = bench.build
    if build.probe is None or build.embedded <= build.reused + build.given:
        return skipped("The endpoint made few or none of the vectors of this build.")
    before = decode_vector(bytes(build.probe))
    [now] = embed_passages(bench.own.spec.endpoint, [PROBE_TEXT])
    figure = cosine(before, now)
    if figure >= MIN_COSINE:
        message = "The endpoint embeds a fixed text as it did before the load."
        return Result(Outcome.PASSED, message, figure, MIN_COSINE)
    message = (
        "The endpoint embeds a fixed text differently than before the load: its model was "
        f"replaced meanwhile. {_next_step(build)}"
    )
    return Result(Outcome.FAILED, message, figure, MIN_COSINE)


def _next_step(build: IndexBuild) -> str:
    endpoint = build.to_spec().endpoint
    kept = build.definition.builds.filter(status__in=(Status.LIVE, Status.READY))
    alike = (other.to_spec().endpoint.fingerprint for other in kept.exclude(pk=build.pk))
    if endpoint.fingerprint not in alike:
        return "Build again."
    return (
        f'Change "model" of endpoint "{endpoint.slug}" and build again, so that no vector of the '
        "old model is taken over."
    )
