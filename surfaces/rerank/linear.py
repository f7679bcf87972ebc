"""A weighted sum of similarity, item fields and signals. ``document.TermSpec`` says what each counts."""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from math import isfinite
from typing import Any, TypeGuard

from enrichment.signals import Signals
from surfaces.document import TermKind, TermSpec
from surfaces.rerank.base import Candidate, Ranked

# Bounded so that no sum of terms can leave the range of a float.
MAX_SIGNAL = 1_000_000_000.0


class Linear:
    """Adds up ``weight × value`` over the terms; a value that is missing or not finite counts 0.

    ``unbounded`` says that similarities may leave [0, 1], as inner products of vectors
    of any length do: they are then scaled over the candidates, otherwise cut to it.
    """

    def __init__(self, terms: Sequence[TermSpec], *, unbounded: bool = False) -> None:
        self._terms = tuple((term, label(term)) for term in terms)
        self._unbounded = unbounded
        self.fields = tuple(dict.fromkeys(term.field for term in terms if term.field))

    def rank(
        self, candidates: Sequence[Candidate], signals: Signals, *, limit: int
    ) -> list[Ranked]:
        """Return the best by score; equal scores keep the order of retrieval."""
        columns = [
            [term.weight * value for value in self._values(term, candidates, signals)]
            for term, _ in self._terms
        ]
        scores = [sum(parts) for parts in zip(*columns, strict=True)] or [0.0] * len(candidates)
        best = nsmallest(
            limit,
            range(len(candidates)),
            key=lambda n: (-scores[n], candidates[n].rank, candidates[n].hit.id),
        )
        return [
            Ranked(candidates[n], scores[n], self._parts([column[n] for column in columns]))
            for n in best
        ]

    def _parts(self, values: Sequence[float]) -> Mapping[str, float]:
        parts: dict[str, float] = {}
        for (_, name), value in zip(self._terms, values, strict=True):
            parts[name] = parts.get(name, 0.0) + value
        return parts

    def _values(
        self, term: TermSpec, candidates: Sequence[Candidate], signals: Signals
    ) -> Sequence[float]:
        if term.kind is TermKind.SIMILARITY:
            similarities = [candidate.similarity for candidate in candidates]
            return scaled(similarities) if self._unbounded else [cut(s) for s in similarities]
        if term.kind is TermKind.FIELD:
            return scaled([candidate.hit.fields.get(term.field) for candidate in candidates])
        signal = signals.get(term.name)
        if isinstance(signal, Mapping):
            return [looked_up(signal, candidate, term.field) for candidate in candidates]
        number = bounded(signal)
        if not term.field:
            return [number] * len(candidates)
        fields = scaled([candidate.hit.fields.get(term.field) for candidate in candidates])
        return [number * value for value in fields]


def label(term: TermSpec) -> str:
    """Return the name of the term's part of a score, such as ``signal:brand_affinity:brand``."""
    return ":".join(filter(None, (term.kind.value, term.name, term.field)))


def scaled(values: Sequence[Any]) -> list[float]:
    """Scale numbers from lowest 0 to highest 1; all equal, or no number: 0."""
    numbers = [value for value in values if is_number(value)]
    if not numbers:
        return [0.0] * len(values)
    # Halved, so that the span of the largest floats is still one.
    low, high = min(numbers) / 2, max(numbers) / 2
    if (span := high - low) <= 0:
        return [0.0] * len(values)
    return [cut((value / 2 - low) / span) if is_number(value) else 0.0 for value in values]


def looked_up(weights: Mapping[str, float], candidate: Candidate, field: str) -> float:
    """Return the weight of the item's id or of its field's value; of several values, the strongest."""
    if not field:
        return bounded(weights.get(candidate.hit.id))
    value = candidate.hit.fields.get(field)
    values = value if isinstance(value, list) else [value]
    found = [bounded(weights.get(str(entry))) for entry in values if entry is not None]
    return max(found, key=lambda weight: (abs(weight), weight), default=0.0)


def bounded(value: Any) -> float:
    return max(-MAX_SIGNAL, min(MAX_SIGNAL, float(value))) if is_number(value) else 0.0


def cut(value: float | None) -> float:
    return max(0.0, min(1.0, value)) if is_number(value) else 0.0


def is_number(value: Any) -> TypeGuard[float]:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= 1.7e308
        and isfinite(value)
    )
