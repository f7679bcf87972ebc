"""Gate: how well the build ranks judged products, against the live build.

nDCG at 10 after Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques",
ACM TOIS 20(4), 2002: the sum of grade / log2(place + 1), divided by that of the best order.
Products without a judgment count as grade 0. The condensed figure leaves them out of the ranking
first (Sakai, "Alternatives to bpref", SIGIR 2007), which is fairer to results nobody has judged.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Final

from indexes.errors import EmbeddingError
from indexes.given import Vector
from indexes.items import decode_vector, encode_vector
from indexes.models import JudgedQuery
from indexes.schema import EndpointSpec, LiveIndex
from indexes.validation.asking import ask
from indexes.validation.bench import SEED, Bench, nearest
from indexes.validation.result import Outcome, Result, skipped

PLACES: Final = 10
# Deep enough to find ten judged products among those without a judgment.
DEPTH: Final = 100
QUERIES: Final = 200
SHOWN: Final = 5

Grades = Mapping[str, float]


@dataclass(frozen=True)
class Scores:
    """nDCG of each query in one build: of all products, and of the judged ones alone."""

    full: dict[str, float]
    condensed: dict[str, float]

    @property
    def mean(self) -> float:
        return sum(self.full.values()) / len(self.full)

    @property
    def condensed_mean(self) -> float:
        return sum(self.condensed.values()) / len(self.condensed)


def measure(bench: Bench) -> Result:
    """FAILED where nDCG is further below the live build's than the index allows."""
    judged = _judged(bench)
    if not judged:
        return skipped("The index has no judgments with a grade above 0: upload some on its page.")
    ours = _scores(bench, bench.own, judged)
    if ours is None:
        return Result(
            Outcome.FAILED,
            "The endpoint refuses all judged queries. Test it on its page.",
            0.0,
        )
    said = f"nDCG@{PLACES} over {len(judged)} judged queries is {ours.mean:.3f}"
    detail: dict[str, Any] = {
        "queries": len(judged),
        "ndcg": round(ours.mean, 4),
        "condensed": round(ours.condensed_mean, 4),
    }
    if bench.rival is None:
        return Result(
            Outcome.REPORTED, f"{said}. Nothing is live to compare with.", ours.mean, detail=detail
        )
    try:
        theirs = _scores(bench, bench.rival.to_live(), judged)
    except EmbeddingError as error:
        theirs, why = None, str(error)
    else:
        why = "it refuses the queries"
    if theirs is None:
        message = f"{said}. {bench.rival.label} could not be asked the same queries: {why}"
        return Result(Outcome.REPORTED, message, ours.mean, detail=detail)
    least = theirs.mean - bench.definition.max_ndcg_drop
    detail |= {
        "live_ndcg": round(theirs.mean, 4),
        "live_condensed": round(theirs.condensed_mean, 4),
        **_changed(ours, theirs),
    }
    said += f", {theirs.mean:.3f} in {bench.rival.label}"
    if ours.mean >= least - 1e-9:
        return Result(Outcome.PASSED, f"{said}.", ours.mean, least, detail)
    message = (
        f"{said}; it may lose {bench.definition.max_ndcg_drop:g} at most. Look at the queries that "
        "lost most; if the change is meant, override."
    )
    return Result(Outcome.FAILED, message, ours.mean, least, detail)


def ndcg(ranking: Sequence[str], grades: Grades, places: int = PLACES) -> float:
    """Return nDCG of a ranking, from 0 to 1; 0 where no product has a grade above 0."""
    best = _gain(sorted(grades.values(), reverse=True)[:places])
    gained = _gain([grades.get(product, 0.0) for product in ranking[:places]])
    return gained / best if best else 0.0


def _gain(grades: Sequence[float]) -> float:
    return sum(grade / log2(place + 1) for place, grade in enumerate(grades, 1))


def _judged(bench: Bench) -> dict[str, dict[str, float]]:
    """Return the grades of each query that has a good product, for as many queries as are looked at."""
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    rows = bench.definition.judgments.values_list("query", "product_id", "grade")
    for query, product, grade in rows.iterator():
        grades[query][product] = grade
    queries = sorted(query for query, own in grades.items() if max(own.values()) > 0)
    if len(queries) > QUERIES:
        queries = sorted(random.Random(SEED).sample(queries, QUERIES))
    return {query: grades[query] for query in queries}


def _scores(bench: Bench, index: LiveIndex, judged: Mapping[str, Grades]) -> Scores | None:
    """Return the scores of a build; None where its endpoint refuses every query."""
    vectors = _query_vectors(bench, index.spec.endpoint, list(judged))
    if not vectors:
        return None
    full, condensed = {}, {}
    for query, grades in judged.items():
        bench.stay()
        vector = vectors.get(query)
        found = [] if vector is None else [hit.id for hit in nearest(index, vector, DEPTH)]
        full[query] = ndcg(found, grades)
        condensed[query] = ndcg([product for product in found if product in grades], grades)
    return Scores(full, condensed)


def _query_vectors(
    bench: Bench, endpoint: EndpointSpec, queries: Sequence[str]
) -> dict[str, Vector]:
    """Return the vectors of those queries that the endpoint embeds; each is asked for once a model."""
    kept = JudgedQuery.objects.filter(
        definition=bench.definition, fingerprint=endpoint.fingerprint, query__in=queries
    )
    vectors: dict[str, Vector] = {one.query: decode_vector(bytes(one.vector)) for one in kept}
    new = [query for query in queries if query not in vectors]
    for query, answer in zip(new, ask(bench, endpoint, new) if new else (), strict=True):
        if isinstance(answer, EmbeddingError):
            continue
        vectors[query] = answer
        JudgedQuery.objects.get_or_create(
            definition=bench.definition,
            fingerprint=endpoint.fingerprint,
            query=query,
            defaults={"vector": encode_vector(answer)},
        )
    return vectors


def _changed(ours: Scores, theirs: Scores) -> dict[str, Any]:
    """Return the queries that lost and won most."""
    change = {query: ours.full[query] - theirs.full[query] for query in ours.full}
    ranked = sorted(change, key=lambda query: change[query])
    lost = [query for query in ranked[:SHOWN] if change[query] < 0]
    won = [query for query in ranked[: -SHOWN - 1 : -1] if change[query] > 0]
    tables = {"lost_most": lost, "won_most": won}
    return {
        name: [
            {
                "query": query,
                "ndcg": round(ours.full[query], 3),
                "live_ndcg": round(theirs.full[query], 3),
            }
            for query in queries
        ]
        for name, queries in tables.items()
        if queries
    }
