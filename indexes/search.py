"""Search: the read door of surfaces. Vectors and filters in, hits out, within a time limit.

valkey-search may leave TEXT out of a KNN filter, so hits are checked again where
words are asked for, and found by an exact scan when too few pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexes import valkey
from indexes.commands import RawHit, SearchCommand
from indexes.errors import SearchRejected, SearchTimeout
from indexes.filters import EVERYTHING, NOTHING, Clause, Range, Words, compile_filter, matches
from indexes.naming import DISTANCE_ALIAS, VECTOR_FIELD
from indexes.schema import LiveIndex
from indexes.values import decoder

Vector = npt.NDArray[np.float32]

# valkey-search allows no more neighbours in one search.
MAX_K: Final = 10_000
# More items than this with the words asked for are not ranked one by one.
MAX_EXACT: Final = 10_000
NO_SEARCH: Final = "No search was made: no item can pass these filters."


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that was found: its distance to the vector (lower is nearer) and its decoded fields."""

    id: str
    distance: float | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, nearest or first in order first, and the command that found them."""

    hits: list[Hit]
    command: str


def knn(
    index: LiveIndex,
    vector: Vector,
    *,
    k: int,
    clauses: Sequence[Clause] = (),
    fields: Sequence[str],
    timeout_s: float,
) -> Found:
    """Return the k items nearest to a vector of shape (dimension,), among those that pass the clauses."""
    blob = _blob(index, vector)
    query = compile_filter(clauses, index.spec)
    if query == NOTHING or k < 1:
        return Found([], NO_SEARCH)
    deadline = monotonic() + timeout_s
    texts = _text_fields(clauses)
    wanted = min(k * 2 + 50 if texts else k, MAX_K)
    command = SearchCommand(
        index=index.index_name,
        query=f"{query}=>[KNN {wanted} @{VECTOR_FIELD} $vector{_ef(index, wanted)} AS {DISTANCE_ALIAS}]",
        limit=wanted,
        return_fields=(DISTANCE_ALIAS, *fields, *texts),
        params={"vector": blob},
    )
    _, raw = valkey.search(command, timeout_s=timeout_s)
    hits = list(map(_Reader(index).hit, raw))
    passing = [hit for hit in hits if matches(_words_of(clauses), hit.fields)] if texts else hits
    if len(passing) < min(k, len(hits)):
        passing = _exact(index, vector, query, clauses, (*fields, *texts), deadline)
    passing.sort(key=lambda hit: (math.inf if hit.distance is None else hit.distance, hit.id))
    return Found([_only(hit, fields) for hit in passing[:k]], str(command))


def browse(
    index: LiveIndex,
    *,
    sort_by: str,
    descending: bool,
    k: int,
    clauses: Sequence[Clause] = (),
    fields: Sequence[str],
    timeout_s: float,
) -> Found:
    """Return the first k items in the order of a number field; items without the number are left out."""
    query = compile_filter(clauses, index.spec)
    if query == NOTHING or k < 1:
        return Found([], NO_SEARCH)
    # Joined here, so that a filter as long as filters may be stays within the engine's limit.
    having = compile_filter([Range(sort_by)], index.spec)
    query = having if query == EVERYTHING else f"({having} {query})"
    command = SearchCommand(
        index=index.index_name,
        query=query,
        limit=min(k, MAX_K),
        return_fields=(sort_by, *fields),
        sort_by=sort_by,
        descending=descending,
    )
    _, raw = valkey.search(command, timeout_s=timeout_s)
    hits = map(_Reader(index).hit, raw)
    return Found([_only(hit, fields) for hit in hits], str(command))


def vectors(index: LiveIndex, ids: Iterable[str], *, timeout_s: float) -> dict[str, Vector]:
    """Return the vectors of those of the ids that exist."""
    unique = list(dict.fromkeys(ids))
    rows = valkey.hash_fields(_keys(index, unique), [VECTOR_FIELD], timeout_s=timeout_s)
    found = {}
    for item_id, [blob] in zip(unique, rows, strict=True):
        if blob is not None and len(blob) == 4 * index.spec.endpoint.dimension:
            found[item_id] = _vector(blob)
    return found


def items(
    index: LiveIndex, ids: Iterable[str], *, fields: Sequence[str], timeout_s: float
) -> list[Hit]:
    """Return those of the items that exist, in the order asked."""
    unique = list(dict.fromkeys(ids))
    # The vector's presence tells that the item exists: any field may be missing.
    names = [VECTOR_FIELD, *fields]
    rows = valkey.hash_fields(_keys(index, unique), names, timeout_s=timeout_s)
    reader = _Reader(index)
    return [
        Hit(item_id, None, reader.fields(dict(zip(fields, row[1:], strict=True))))
        for item_id, row in zip(unique, rows, strict=True)
        if row[0] is not None
    ]


def similarity(distance: float, metric: str) -> float:
    """Return how alike two vectors are: 1 for the same direction (COSINE, IP) or place (L2)."""
    return 1 / (1 + distance) if metric == "L2" else 1 - distance


def _blob(index: LiveIndex, vector: Vector) -> bytes:
    flat = np.ascontiguousarray(vector, dtype="<f4")
    if flat.shape != (index.spec.endpoint.dimension,) or not np.isfinite(flat).all():
        raise SearchRejected(
            f'The index "{index.label}" is searched by {index.spec.endpoint.dimension} finite '
            f"numbers; the vector has the shape {flat.shape}."
        )
    return flat.tobytes()


def _vector(blob: bytes) -> Vector:
    return np.frombuffer(blob, dtype="<f4").astype(np.float32)


def _ef(index: LiveIndex, k: int) -> str:
    return f" EF_RUNTIME {max(index.spec.ef_runtime, k)}" if index.spec.algorithm == "HNSW" else ""


def _text_fields(clauses: Iterable[Clause]) -> tuple[str, ...]:
    return tuple(clause.field for clause in _words_of(clauses))


def _words_of(clauses: Iterable[Clause]) -> list[Words]:
    return [clause for clause in clauses if isinstance(clause, Words)]


def _exact(
    index: LiveIndex,
    vector: Vector,
    query: str,
    clauses: Sequence[Clause],
    fields: Sequence[str],
    deadline: float,
) -> list[Hit]:
    """Find the items by the filter alone and measure each one's distance."""
    left = deadline - monotonic()
    if left <= 0:
        raise SearchTimeout("No time is left to look up the words.")
    command = SearchCommand(
        index=index.index_name,
        query=query,
        limit=MAX_EXACT,
        return_fields=(VECTOR_FIELD, *fields),
    )
    _, raw = valkey.search(command, timeout_s=left)
    size = 4 * index.spec.endpoint.dimension
    reader = _Reader(index)
    blobs, hits = [], []
    for item in raw:
        blob = item[1].pop(VECTOR_FIELD, b"")
        hit = reader.hit(item)
        if len(blob) == size and matches(_words_of(clauses), hit.fields):
            blobs.append(blob)
            hits.append(hit)
    if not hits:
        return []
    matrix = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(hits), -1)
    distances = _distances(matrix, vector, index.spec.metric)
    return [
        Hit(hit.id, float(distance), hit.fields)
        for hit, distance in zip(hits, distances, strict=True)
    ]


def _distances(matrix: Vector, vector: Vector, metric: str) -> Vector:
    if metric == "L2":
        squared: Vector = np.square(matrix - vector).sum(axis=1)
        return squared
    products: Vector = matrix @ vector
    if metric == "COSINE":
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector)
        products = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return 1 - products


class _Reader:
    """Reads raw hits of one index; made once a search, because there are many hits."""

    def __init__(self, index: LiveIndex) -> None:
        self._prefix = len(valkey.key_bytes(index.key_prefix))
        self._decoders = {field.name: decoder(field) for field in index.spec.fields}

    def hit(self, item: RawHit) -> Hit:
        key, raw = item
        text = raw.pop(DISTANCE_ALIAS, None)
        distance = None if text is None else float(text)
        if distance is not None and math.isnan(distance):
            # A vector of zeros has no direction: RediSearch says nan, valkey-search 1.
            distance = 1.0
        return Hit(key[self._prefix :].decode("utf-8", "replace"), distance, self.fields(raw))

    def fields(self, raw: Mapping[str, bytes | None]) -> dict[str, Any]:
        decoders = self._decoders
        return {
            name: decoders[name](value)
            for name, value in raw.items()
            if value is not None and name in decoders
        }


def _only(hit: Hit, fields: Sequence[str]) -> Hit:
    if hit.fields.keys() <= set(fields):
        return hit
    return Hit(
        hit.id, hit.distance, {name: hit.fields[name] for name in fields if name in hit.fields}
    )


def _keys(index: LiveIndex, ids: Iterable[str]) -> list[bytes]:
    return [valkey.key_bytes(f"{index.key_prefix}{item_id}") for item_id in ids]
