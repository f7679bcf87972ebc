"""What every reranker takes and gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from enrichment.signals import Signals
from indexes.search import Hit


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved item: its place in the retrieval from 1, and its similarity where a vector was used."""

    hit: Hit
    rank: int
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Ranked:
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
