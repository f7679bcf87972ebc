"""Findings about what builds depend on: endpoints, replicas, memory and the limits of the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.conf import settings

from indexes import limits
from indexes.embedding import embed_passages
from indexes.errors import EmbeddingError, SearchError
from indexes.fleet.findings import Finding, Kind, Severity
from indexes.given import Vector
from indexes.items import decode_vector
from indexes.limits import Fleet
from indexes.models import IndexBuild, IndexDefinition
from indexes.probe import MIN_COSINE, cosine
from indexes.schema import PROBE_TEXT, EndpointSpec
from indexes.valkey_client import replica_state

# A page waits for the answer, and one that is given later is no help to a query.
PROBE_S = 5.0
# So far a replica may be behind without a word: a pipeline or two.
BEHIND_BYTES = 16 << 20


def of_endpoints(builds: Iterable[IndexBuild]) -> Iterator[Finding]:
    """Yield live builds whose endpoint is away, or answers the probe with another model's vector.

    Calls each endpoint once.
    """
    answers: dict[str, Vector | str] = {}
    for build in builds:
        if build.status != IndexBuild.Status.LIVE:
            continue
        endpoint = build.to_spec().endpoint
        if endpoint.fingerprint not in answers:
            answers[endpoint.fingerprint] = _probe(endpoint)
        answer = answers[endpoint.fingerprint]
        if isinstance(answer, str):
            yield Finding(
                kind=Kind.ENDPOINT_AWAY,
                target=str(build.pk),
                severity=Severity.ERROR,
                what=f"The endpoint {endpoint.endpoint_name} of {build.label} gives no vector: {answer}",
                why="Queries cannot be embedded: surfaces give their fallback for text.",
                advice="Look at the endpoint in SageMaker, and try it on its page here.",
                build_id=build.pk,
            )
            continue
        if not build.probe:
            continue
        alike = cosine(decode_vector(bytes(build.probe)), answer)
        if alike < MIN_COSINE:
            yield Finding(
                kind=Kind.MODEL_CHANGED,
                target=str(build.pk),
                severity=Severity.ERROR,
                what=f"The endpoint {endpoint.endpoint_name} answers another vector than when {build.label} "
                f"was built (cosine {alike:.2f}).",
                why="It has another model: queries are compared with items of the old one, and what is "
                "found has little to do with them.",
                advice=f'Deploy the old model again; or change "model" of endpoint "{endpoint.slug}" and '
                "build, so that no vector of the old model is taken over.",
                build_id=build.pk,
            )


def of_replicas() -> Iterator[Finding]:
    """Yield replicas that do not answer, or are no replicas, cut off or behind."""
    for number, url in enumerate(settings.VALKEY_REPLICA_URLS, 1):
        problem = _replica_problem(url)
        if problem:
            yield Finding(
                kind=Kind.REPLICA,
                target=str(number),
                severity=Severity.WARNING,
                what=f"Replica {number} of VALKEY_REPLICA_URLS {problem}",
                why="Reads go to the primary while it is away, and see the past while it is behind.",
                advice='Mend the replica, or take it out of VALKEY_REPLICA_URLS. With "replica-serve-stale-data '
                'no" one that is cut off refuses to answer, and the primary answers instead.',
            )


def of_server(fleet: Fleet, definitions: Iterable[IndexDefinition]) -> Iterator[Finding]:
    """Yield what is wrong with the server's memory, and the limits that indexes come near."""
    if full := limits.memory_warning(fleet.facts):
        yield Finding(
            kind=Kind.MEMORY,
            target="server",
            severity=Severity.ERROR,
            what=full,
            why="Nothing can be written, and valkey-search does not search.",
            advice="Give the server more memory, remove what nobody owns, or keep builds for less long.",
        )
    if evicts := limits.policy_warning(fleet.facts):
        yield Finding(
            kind=Kind.EVICTION,
            target="server",
            severity=Severity.ERROR,
            what=evicts,
            why="Items that are evicted are not found, and no build notices.",
            advice="CONFIG SET maxmemory-policy noeviction, or the parameter group of a managed server.",
        )
    for definition in definitions:
        for sentence in limits.of_spec(definition.to_spec(), fleet):
            yield Finding(
                kind=Kind.LIMIT,
                target=definition.slug,
                severity=Severity.WARNING,
                what=f'Index "{definition.slug}": {sentence}',
                why="A build that comes upon a limit fails; what is live stays live.",
                advice="Change the index before its next build.",
            )


def _probe(endpoint: EndpointSpec) -> Vector | str:
    try:
        vectors = embed_passages(endpoint, [PROBE_TEXT], within_s=PROBE_S)
    except EmbeddingError as error:
        return str(error)
    vector: Vector = vectors[0]
    return vector


def _replica_problem(url: str) -> str:
    try:
        state = replica_state(url)
    except SearchError as error:
        return f"does not answer: {error}"
    if state.get("role") != "slave":
        return "is a primary, not a replica."
    if state.get("master_link_status") != "up":
        seconds = state.get("master_link_down_since_seconds", 0)
        return f"has had no link to its primary for {seconds} seconds."
    behind = int(state.get("slave_read_repl_offset", 0)) - int(state.get("slave_repl_offset", 0))
    if state.get("master_sync_in_progress") or behind > BEHIND_BYTES:
        return f"is {limits.in_words(behind)} behind its primary."
    return ""
