"""No reranking: the order of retrieval. The baseline of every other reranker."""

from collections.abc import Sequence

from enrichment.signals import Signals
from surfaces.rerank.base import Candidate, Ranked


class Retrieved:
    """Keeps the order; the score is the similarity, or 0 where no vector was used."""

    fields: tuple[str, ...] = ()

    def rank(
        self, candidates: Sequence[Candidate], signals: Signals, *, limit: int
    ) -> list[Ranked]:
        """Return the first ``limit`` candidates."""
        return [_ranked(candidate) for candidate in candidates[:limit]]


def _ranked(candidate: Candidate) -> Ranked:
    if candidate.similarity is None:
        return Ranked(candidate, 0.0, {})
    return Ranked(candidate, candidate.similarity, {"similarity": candidate.similarity})
