"""One request through its plan: embed beside enrichment, search, rerank, answer.

    query ──► embed ─┐
    item_ids ► seed ─┼─► search ─┐
    (neither: the surface's own start)  ├─► rerank ─► items
    sources ──► enrich ─────────────────┘

Without query and known items the search starts from the items that the surface's
seed signal weighs, else from its default query, else from its browse field.

A stage that fails, for one of these reasons, is left out where the answer can be
made without it (``degraded``: best-effort sources, unknown items, and the embedding
where known items came with the query and time is left), and otherwise gives the
surface's fallback, whose reason is ``stage:reason``:

timeout        no answer within the deadline, or within the stage's own time
throttled      the store or endpoint refuses load
unavailable    it cannot be reached, or failed
overloaded     this process has no free thread for it
rejected       it refuses the request: configuration is wrong
bad_response   an embedding answer that cannot be read as a vector
index_missing  the physical index is gone
other_model    the endpoint answers other vectors than when the index was built
error          a fault in the platform, which the log tells
unknown_items  (seed) none of the item ids is in the index
no_signal      (seed) the seed signal weighs no item for this request
no_live_build, does_not_compile  (index) the surface has nothing to search
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from time import perf_counter
from typing import TypeVar

import numpy as np

from indexes.errors import IndexesError
from indexes.schema import LiveIndex
from indexes.search import Found, similarity
from surfaces.answer import items_of
from surfaces.binding import Question, bind
from surfaces.contracts import Debug, RecommendRequest, RecommendResponse
from surfaces.deadline import Deadline
from surfaces.enriching import Enrichment
from surfaces.errors import StageFailed
from surfaces.fallback import fall_back
from surfaces.plan import Plan
from surfaces.pool import Call, Outcome
from surfaces.rerank.base import Candidate, Ranked
from surfaces.stages import Stages, Vector
from surfaces.trace import Trace

T = TypeVar("T")

# The most items that a seed signal starts a search from.
MAX_SEEDS = 50


def recommend(
    plan: Plan, request: RecommendRequest, stages: Stages, *, request_id: str
) -> RecommendResponse:
    """Answer a request within the surface's deadline.

    Raises BadRequest, and ServiceUnavailable where the surface is set to fail fast.
    """
    deadline = Deadline(plan.budget_s)
    question = bind(plan, request)
    run = Run(plan, question, stages, deadline)
    response = RecommendResponse(
        request_id=request_id,
        surface=plan.slug,
        revision=plan.revision,
        build=plan.build,
        variant=plan.variant,
        items=[],
        timings_ms={},
    )
    try:
        response.items = items_of(run.ranked(), plan.fields, explain=request.explain)
    except StageFailed as failure:
        response.items, response.fallback = fall_back(plan, question, failure)
    response.degraded = run.trace.degraded
    response.timings_ms = run.trace.timings_ms()
    if request.explain:
        response.debug = run.debug()
    return response


class Run:
    """The state of one request; used by its own thread only."""

    def __init__(self, plan: Plan, question: Question, stages: Stages, deadline: Deadline) -> None:
        self.plan = plan
        self.question = question
        self.stages = stages
        self.deadline = deadline
        self.trace = Trace(deadline)
        self.enrichment = Enrichment(stages, deadline, self.trace)
        self.excluded = question.excluded
        self.retrieval = ""
        self.found = Found([], "")

    def ranked(self) -> list[Ranked]:
        """Run the stages and return the items to answer with; raise StageFailed."""
        if self.plan.index is None:
            raise StageFailed("index", self.plan.unavailable)
        if self.question.matches_nothing:
            return []
        self.enrichment.start(self.question.sources, self.question.values)
        self.found = self._retrieve(self.plan.index)
        signals = self.enrichment.collect()
        started = perf_counter()
        ranked = self.plan.reranker.rank(
            self._candidates(self.plan.index), signals, limit=self.question.limit
        )
        self.trace.add("rerank", started, perf_counter())
        return ranked

    def debug(self) -> Debug:
        return Debug(
            search=self.found.command or None,
            retrieval=self.retrieval or None,
            candidates=len(self.found.hits),
            signals=dict(self.enrichment.signals),
            spans=self.trace.spans(),
        )

    def _retrieve(self, index: LiveIndex) -> Found:
        text, seeds = self.question.text, self.question.seeds
        embedding = self._embed(text) if text else None
        asked = self._seed_vector(index, seeds) if seeds else None
        if embedding is None:
            if asked is None:
                return self._start_without_question(index)
            return self._knn(index, asked, "items")
        if asked is None:
            return self._knn(index, self._unit(self._vector(embedding)), "query")
        outcome = self._embedded(embedding)
        if outcome.value is not None:
            return self._knn(index, self._mean([self._unit(outcome.value), asked]), "query+items")
        if not self.deadline.remaining():
            raise StageFailed("embed", outcome.reason)
        self.trace.degrade("embed", outcome.reason, outcome.ended - outcome.started)
        return self._knn(index, asked, "items")

    def _seed_vector(self, index: LiveIndex, seeds: Sequence[str]) -> Vector | None:
        started = perf_counter()
        vectors = self._vectors(index, seeds)
        if not vectors:
            self.trace.degrade("seed", "unknown_items", perf_counter() - started)
            return None
        return self._mean([self._unit(vector) for vector in vectors.values()])

    def _start_without_question(self, index: LiveIndex) -> Found:
        document = self.plan.document
        if document.seed_signal and (vector := self._signal_vector(index)) is not None:
            return self._knn(index, vector, "signal")
        if document.default_query:
            vector = self._unit(self._vector(self._embed(document.default_query)))
            return self._knn(index, vector, "default_query")
        if document.browse_field:
            return self._browse(index)
        raise StageFailed("seed", "unknown_items" if self.question.seeds else "no_signal")

    def _signal_vector(self, index: LiveIndex) -> Vector | None:
        weights = self.enrichment.signal(self.plan.document.seed_signal)
        if not isinstance(weights, Mapping):
            return None
        liked = sorted(
            ((weight, item_id) for item_id, weight in weights.items() if 0 < weight < float("inf")),
            key=lambda pair: (-pair[0], pair[1]),
        )[:MAX_SEEDS]
        if not liked:
            return None
        vectors = self._vectors(index, [item_id for _, item_id in liked])
        self.excluded = self.excluded.union(vectors)
        # Scaled by the largest, so that no sum of weights can leave the range of a float.
        parts = [
            self._unit(vectors[item_id]) * np.float32(weight / liked[0][0])
            for weight, item_id in liked
            if item_id in vectors
        ]
        return self._mean(parts) if parts else None

    def _embed(self, text: str) -> Call[Vector]:
        refusal = self.stages.refused.get(self.plan.model)
        if refusal is not None:
            # Vectors of another model would find items, and none that are meant.
            return Call.refused("embed", refusal.reason)
        return self.stages.pool.start("embed", self.stages.embed, self.plan.endpoint, text)

    def _vector(self, call: Call[Vector]) -> Vector:
        outcome = self._embedded(call)
        if outcome.value is None:
            raise StageFailed("embed", outcome.reason)
        return outcome.value

    def _embedded(self, call: Call[Vector]) -> Outcome[Vector]:
        outcome = call.outcome(self.deadline.remaining())
        self.trace.add("embed", outcome.started, outcome.ended, outcome.reason)
        return outcome

    def _vectors(self, index: LiveIndex, ids: Sequence[str]) -> Mapping[str, Vector]:
        return self._timed(
            "seed", lambda timeout_s: self.stages.vectors(index, ids, timeout_s=timeout_s)
        )

    def _knn(self, index: LiveIndex, vector: Vector, retrieval: str) -> Found:
        self.retrieval = retrieval
        return self._timed(
            "search",
            lambda timeout_s: self.stages.knn(
                index,
                vector,
                k=self._k(),
                clauses=self.question.clauses,
                fields=self.plan.fetched,
                timeout_s=timeout_s,
            ),
        )

    def _browse(self, index: LiveIndex) -> Found:
        self.retrieval = "browse"
        document = self.plan.document
        return self._timed(
            "search",
            lambda timeout_s: self.stages.browse(
                index,
                sort_by=document.browse_field,
                descending=document.browse_descending,
                k=self._k(),
                clauses=self.question.clauses,
                fields=self.plan.fetched,
                timeout_s=timeout_s,
            ),
        )

    def _k(self) -> int:
        return self.plan.document.candidates + len(self.excluded)

    def _timed(self, stage: str, call: Callable[[float], T]) -> T:
        started = perf_counter()
        timeout_s = self.deadline.remaining()
        if not timeout_s:
            raise StageFailed(stage, "timeout")
        try:
            value = call(timeout_s)
        except IndexesError as error:
            self.trace.add(stage, started, perf_counter(), error.reason)
            raise StageFailed(stage, error.reason) from error
        self.trace.add(stage, started, perf_counter())
        return value

    def _candidates(self, index: LiveIndex) -> list[Candidate]:
        candidates: list[Candidate] = []
        for hit in self.found.hits:
            if hit.id in self.excluded:
                continue
            near = None
            # The distance of a zero vector is not a number.
            if hit.distance is not None and isfinite(hit.distance):
                near = similarity(hit.distance, index.spec.metric)
            candidates.append(Candidate(hit, len(candidates) + 1, near))
        return candidates[: self.plan.document.candidates]

    def _unit(self, vector: Vector) -> Vector:
        length = float(np.linalg.norm(vector))
        return vector / np.float32(length) if self.plan.normalize and length else vector

    def _mean(self, parts: Sequence[Vector]) -> Vector:
        mean: Vector = np.mean(parts, axis=0, dtype=np.float32)
        # Opposite vectors cancel out, and no direction is nearest to zero.
        return self._unit(mean) if float(np.linalg.norm(mean)) > 1e-6 else parts[0]
