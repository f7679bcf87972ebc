"""What every reranker takes and gives."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from enrichment.signals import Signals
from indexes.search import Hit


class Candidate(NamedTuple):
    """A retrieved item: its place in the retrieval, unique and from 1, and its similarity where a vector was used."""

    hit: Hit
    rank: int
    similarity: float | None


class Ranked(NamedTuple):
    """A candidate with its score, and the named parts that add up to it."""

    candidate: Candidate
    score: float
    parts: Mapping[str, float]


class Reranker(Protocol):
    """Orders candidates; ``fields`` names the item fields it reads, which retrieval must fetch."""

    @property
    def fields(self) -> tuple[str, ...]: ...

    def rank(
        self, candidates: Sequence[Candidate], signals: Signals, *, limit: int
    ) -> list[Ranked]:
        """Return the best candidates, best first, at most ``limit``. Scores are finite."""
        ...
