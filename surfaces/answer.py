"""Ranked candidates as the items of an answer."""

from collections.abc import Sequence

from surfaces.contracts import Explanation, Item
from surfaces.rerank.base import Ranked


def items_of(ranked: Sequence[Ranked], fields: Sequence[str], *, explain: bool) -> list[Item]:
    """Return the items with the fields that the surface answers with, ranked from 1."""
    return [
        Item(
            id=entry.candidate.hit.id,
            rank=rank,
            score=entry.score,
            fields={
                name: entry.candidate.hit.fields[name]
                for name in fields
                if name in entry.candidate.hit.fields
            },
            explanation=explanation(entry) if explain else None,
        )
        for rank, entry in enumerate(ranked, 1)
    ]


def explanation(entry: Ranked) -> Explanation:
    candidate = entry.candidate
    return Explanation(
        similarity=candidate.similarity,
        distance=candidate.hit.distance if candidate.similarity is not None else None,
        retrieved_rank=candidate.rank,
        parts=dict(entry.parts),
    )
