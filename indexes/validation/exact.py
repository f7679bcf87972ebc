"""Exact nearest neighbours of a few vectors, by comparing them with every item of an index.

Items are streamed from the engine, so that memory stays flat. A very large index is
compared for a limited time: keys come in the order of their hashes, so what was compared
by then is a random part of the items.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from indexes import valkey
from indexes.naming import VECTOR_FIELD
from indexes.schema import LiveIndex
from indexes.search import Hit

Matrix = npt.NDArray[np.float32]

# Compared at once: enough for the matrix product to be worth it.
PART_ITEMS: Final = 2000
# Two distances that differ by less are one: engines compute in another order.
TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Neighbours:
    """The items nearest to one vector, among those compared, nearest first."""

    keys: list[bytes]
    distances: Matrix
    # Two distances from this vector that differ by less are one.
    tolerance: float


@dataclass(frozen=True)
class Exact:
    """Exact neighbours of each query; ``compared`` items, which may be fewer than there are."""

    neighbours: list[Neighbours]
    compared: int


def search(
    index: LiveIndex,
    queries: Matrix,
    *,
    k: int,
    seconds: float,
    on_part: Callable[[], None] = lambda: None,
) -> Exact:
    """Return the k items nearest to each query of shape (queries, dimension), for at most ``seconds``."""
    until = time.monotonic() + seconds
    nearest = np.empty((len(queries), 0), dtype=np.float32)
    places = np.empty((len(queries), 0), dtype=np.int64)
    kept: list[bytes] = []
    compared = 0
    for keys, matrix in _parts(index):
        # A scan may give a key twice. One among the nearest was compared with every query.
        known = set(kept)
        fresh = [place for place, key in enumerate(keys) if key not in known]
        found = distances(queries, matrix[fresh], index.spec.metric)
        candidates = [*kept, *(keys[place] for place in fresh)]
        ours = np.broadcast_to(np.arange(len(kept), len(candidates)), found.shape)
        nearest = np.concatenate([nearest, found], axis=1)
        places = np.concatenate([places, ours], axis=1)
        order = _smallest(nearest, k)
        nearest = np.take_along_axis(nearest, order, axis=1)
        places = np.take_along_axis(places, order, axis=1)
        # Only what is among the nearest of some query is kept by name.
        used, inverse = np.unique(places, return_inverse=True)
        kept = [candidates[place] for place in used]
        places = inverse.reshape(places.shape)
        compared += len(fresh)
        on_part()
        if time.monotonic() > until:
            break
    tolerances = TOLERANCE * (1 + np.square(queries).sum(axis=1))
    return Exact(
        [
            Neighbours([kept[place] for place in row], values, float(tolerance))
            for row, values, tolerance in zip(places, nearest, tolerances, strict=True)
        ],
        compared,
    )


def recall(found: list[Hit], truth: Neighbours, *, prefix: str, share: float, k: int) -> float:
    """Return the share of the k nearest items that a search found, from 0 to 1.

    An item as far away as the last one found could as well have been found: no miss. Where
    only a ``share`` of the items was compared, each miss among them stands for 1 / share.
    """
    keys = {valkey.key_bytes(prefix + hit.id) for hit in found}
    full = len(found) >= k
    last = max(hit.distance or 0.0 for hit in found) if full else math.inf
    missed = sum(
        key not in keys and float(distance) < last - truth.tolerance
        for key, distance in zip(truth.keys, truth.distances, strict=True)
    )
    return max(0.0, 1 - missed / (share * k))


def distances(queries: Matrix, matrix: Matrix, metric: str) -> Matrix:
    """Return the distances of shape (queries, items) as the engines count them."""
    if metric == "L2":
        squares = np.square(queries).sum(axis=1)[:, None] + np.square(matrix).sum(axis=1)[None]
        differences: Matrix = np.maximum(squares - 2 * (queries @ matrix.T), 0)
        return differences
    if metric == "COSINE":
        queries, matrix = unit(queries), unit(matrix)
    return np.asarray(1 - queries @ matrix.T, dtype=np.float32)


def unit(vectors: Matrix) -> Matrix:
    """Return the directions of vectors; zeros keep none."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Matrix = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return directions


def _smallest(values: Matrix, k: int) -> npt.NDArray[np.int64]:
    """Return the places of the k smallest values of each row, in their order."""
    if values.shape[1] <= k:
        return np.argsort(values, axis=1)
    # Sorting whole rows would take longer than everything else.
    places = np.argpartition(values, k, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(values, places, axis=1), axis=1)
    return np.take_along_axis(places, order, axis=1)


def _parts(index: LiveIndex) -> Iterator[tuple[list[bytes], Matrix]]:
    """Yield keys with a matrix of their vectors, some thousand at a time, none twice in a part."""
    size = 4 * index.spec.endpoint.dimension
    part: dict[bytes, bytes] = {}
    for hashes in valkey.scan_hashes(index.key_prefix, [VECTOR_FIELD]):
        part |= {key: blob for key, [blob] in hashes if blob is not None and len(blob) == size}
        if len(part) >= PART_ITEMS:
            yield list(part), _matrix(part)
            part = {}
    if part:
        yield list(part), _matrix(part)


def _matrix(part: dict[bytes, bytes]) -> Matrix:
    return np.frombuffer(b"".join(part.values()), dtype="<f4").reshape(len(part), -1)
