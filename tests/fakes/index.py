"""An index in a dictionary: exact search, filters by the same plain re-check as the real door."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexes import search
from indexes.errors import SearchError, SearchRejected, SearchTimeout
from indexes.filters import NOTHING, Clause, compile_filter, matches
from indexes.schema import LiveIndex
from indexes.search import Found, Hit
from surfaces.stages import Vector


@dataclass(repr=False)
class FakeIndex:
    """Items by id, each with its vector and decoded fields. Every door fails with ``error``."""

    items_by_id: dict[str, tuple[Vector, Mapping[str, Any]]] = field(default_factory=dict)
    error: SearchError | None = None
    calls: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def copy_of(cls, live: LiveIndex, ids: Iterable[str]) -> "FakeIndex":
        """Return a fake that holds what a real index holds."""
        names = [spec.name for spec in live.spec.fields]
        hits = search.items(live, list(ids), fields=names, timeout_s=10)
        found = search.vectors(live, [hit.id for hit in hits], timeout_s=10)
        return cls({hit.id: (found[hit.id], hit.fields) for hit in hits})

    def knn(
        self,
        index: LiveIndex,
        vector: Vector,
        *,
        k: int,
        clauses: Sequence[Clause] = (),
        fields: Sequence[str],
        timeout_s: float,
    ) -> Found:
        if vector.shape != (index.spec.endpoint.dimension,) or not np.isfinite(vector).all():
            raise SearchRejected("Not a vector of this index.")
        self._called("knn", timeout_s, k=k, clauses=clauses, fields=fields, vector=vector)
        hits = [
            Hit(item_id, _distance(vector, own, index.spec.metric), _only(held, fields))
            for item_id, (own, held) in self._passing(index, clauses)
        ]
        hits.sort(key=lambda hit: (hit.distance, hit.id))
        return Found(hits[:k], f"KNN {k}")

    def browse(
        self,
        index: LiveIndex,
        *,
        sort_by: str,
        descending: bool,
        k: int,
        clauses: Sequence[Clause] = (),
        fields: Sequence[str],
        timeout_s: float,
    ) -> Found:
        self._called("browse", timeout_s, k=k, clauses=clauses, fields=fields)
        passing = [(i, held) for i, (_, held) in self._passing(index, clauses) if sort_by in held]
        passing.sort(key=lambda pair: pair[1][sort_by], reverse=descending)
        hits = [Hit(item_id, None, _only(held, fields)) for item_id, held in passing[:k]]
        return Found(hits, f"SORTBY {sort_by}")

    def vectors(
        self, index: LiveIndex, ids: Iterable[str], *, timeout_s: float
    ) -> dict[str, Vector]:
        self._called("vectors", timeout_s, ids=list(ids))
        return {i: self.items_by_id[i][0] for i in dict.fromkeys(ids) if i in self.items_by_id}

    def items(
        self, index: LiveIndex, ids: Iterable[str], *, fields: Sequence[str], timeout_s: float
    ) -> list[Hit]:
        self._called("items", timeout_s, ids=list(ids))
        return [
            Hit(i, None, _only(self.items_by_id[i][1], fields))
            for i in dict.fromkeys(ids)
            if i in self.items_by_id
        ]

    def _called(self, door: str, timeout_s: float, **asked: Any) -> None:
        self.calls.append(door)
        self.asked.append({**asked, "timeout_s": timeout_s})
        if self.error is not None:
            raise self.error
        if timeout_s <= 0:
            raise SearchTimeout("No time is left.")

    def _passing(
        self, index: LiveIndex, clauses: Sequence[Clause]
    ) -> list[tuple[str, tuple[Vector, Mapping[str, Any]]]]:
        if compile_filter(clauses, index.spec) == NOTHING:
            return []
        return [entry for entry in self.items_by_id.items() if matches(clauses, entry[1][1])]


def _only(held: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    return {name: held[name] for name in fields if name in held}


def _distance(one: Vector, other: Vector, metric: str) -> float:
    if metric == "L2":
        return float(np.square(one - other).sum())
    product = float(one @ other)
    if metric == "COSINE":
        lengths = math.sqrt(float(one @ one) * float(other @ other))
        product = product / lengths if lengths else 0.0
    return 1 - product
