"""A weighted sum of similarity, item fields and signals. ``document.TermSpec`` says what each counts.

It runs over every candidate of every request, so it goes column by column: a term
gives one list of numbers, and only the candidates that are answered get parts.
"""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

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
        self._terms = tuple(terms)
        self._labels = tuple(label(term) for term in terms)
        self._unbounded = unbounded
        self.fields = tuple(dict.fromkeys(term.field for term in terms if term.field))

    def rank(
        self, candidates: Sequence[Candidate], signals: Signals, *, limit: int
    ) -> list[Ranked]:
        """Return the best by score; equal scores keep the order of retrieval."""
        columns = [
            [term.weight * value for value in self._values(term, candidates, signals)]
            for term in self._terms
        ]
        scores = [sum(parts) for parts in zip(*columns, strict=True)]
        order = sorted(range(len(scores)), key=[one.rank for one in candidates].__getitem__)
        # A stable sort: equal scores stay in the order of the line above.
        order.sort(key=scores.__getitem__, reverse=True)
        return [
            Ranked(candidates[n], scores[n], self._parts([column[n] for column in columns]))
            for n in order[:limit]
        ]

    def _parts(self, values: Sequence[float]) -> Mapping[str, float]:
        parts: dict[str, float] = {}
        for name, value in zip(self._labels, values, strict=True):
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
            if not term.field:
                return [bounded(signal.get(candidate.hit.id)) for candidate in candidates]
            return [looked_up(signal, c.hit.fields.get(term.field)) for c in candidates]
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
    read = [number(value) for value in values]
    numbers = [value for value in read if value is not None]
    if not numbers:
        return [0.0] * len(values)
    low = min(numbers)
    span = max(numbers) - low
    if span == inf:
        # Halved, the span of the largest floats is still one.
        return scaled([None if value is None else value / 2 for value in read])
    if span == 0:
        return [0.0] * len(values)
    return [0.0 if value is None else (value - low) / span for value in read]


def looked_up(weights: Mapping[str, float], value: Any) -> float:
    """Return the weight of a field's value; of several values, that of the strongest."""
    if value.__class__ is str:
        return bounded(weights.get(value))
    values = value if isinstance(value, list) else [value]
    found = [bounded(weights.get(str(entry))) for entry in values if entry is not None]
    return max(found, key=lambda weight: (abs(weight), weight), default=0.0)


def bounded(value: Any) -> float:
    """Return a signal's number within its bounds, 0 for what is none."""
    if value is None or (read := number(value)) is None:
        return 0.0
    return max(-MAX_SIGNAL, min(MAX_SIGNAL, read))


def cut(value: float | None) -> float:
    """Return a similarity within [0, 1]."""
    if value is None or not 0.0 < value < inf:
        return 0.0
    return value if value < 1.0 else 1.0


def number(value: Any) -> float | None:
    """Return a finite number as a float, None for anything else."""
    if value.__class__ is float:
        return value if isfinite(value) else None
    # Beyond that an integer has no float.
    if value.__class__ is int and -1e308 <= value <= 1e308:
        return float(value)
    return None
