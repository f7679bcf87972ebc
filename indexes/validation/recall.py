"""Gate: how many of the true nearest items a search finds; and EF_RUNTIME tuned to the target.

The figure stands and falls with the queries, and no endpoint is called for them. Items
themselves, or items with a little noise, are flattering: each has its own place in the graph.
So a query here is an item moved part of the way to another random item, and scattered until it
is as far from the item as the nearest other one usually is. Measured on 19,406 product titles
at M 16, the smallest EF_RUNTIME for 0.99 was 14 for the items themselves, 28 for items kept out
of the index, about 100 for typed queries, and 150 to 200 for these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

import numpy as np

from indexes.given import Vector
from indexes.schema import LiveIndex
from indexes.validation import exact
from indexes.validation.bench import SEED, Bench, nearest, stored_vectors
from indexes.validation.exact import Exact, Matrix
from indexes.validation.result import Outcome, Result, percent, skipped

K: Final = 10
QUERIES: Final = 200
# How far to the other item, from 0 to 1.
TOWARDS: Final = 0.3
# Items that are no more alike than this are scattered all over; there is no nearer or farther.
LEAST_COSINE: Final = 0.1
# Reading a million items takes about this long; of a larger index a random part is compared.
EXACT_S: Final = 120.0
# Searches visit that many items; more would be no approximate search any more.
LARGEST_EF: Final = 4096

# EF_RUNTIME → recall and milliseconds of each query.
Curve = dict[int, tuple[Matrix, Matrix]]


def measure(bench: Bench) -> Result:
    """Tune EF_RUNTIME on the build; FAILED where no value reaches the index's recall target."""
    if bench.own.spec.algorithm == "FLAT":
        return skipped("FLAT compares every item: it always finds the nearest.")
    vectors = stored_vectors(bench.own, bench.sample[:QUERIES])
    if not vectors:
        return skipped("The build has no items.")
    queries = made_queries(bench.own, vectors)
    truth = exact.search(bench.own, queries, k=K, seconds=EXACT_S, on_part=bench.stay)
    if not truth.compared:
        return skipped("The items of the build are being removed.")
    target = bench.definition.recall_target
    ef, curve = tune(
        bench.own, queries, truth, count=bench.count, target=target, on_search=bench.stay
    )
    detail = _detail(queries, truth, curve)
    if ef is not None:
        figure = float(curve[ef][0].mean())
        message = (
            f"Searches find {percent(figure)} of the {K} nearest items at EF_RUNTIME {ef}, the "
            f"smallest found to reach {percent(target)}. The build is searched with it."
        )
        detail["ef_runtime"] = ef
        return Result(Outcome.PASSED, message, figure, target, detail, {"ef_runtime": ef})
    best = max(curve, key=lambda value: (curve[value][0].mean(), -value))
    figure = float(curve[best][0].mean())
    message = (
        f"Searches find {percent(figure)} of the {K} nearest items at best, at EF_RUNTIME {best}; "
        f"{percent(target)} is asked for. Raise M or EF_CONSTRUCTION of the index and build again, "
        'or lower its "recall target".'
    )
    return Result(Outcome.FAILED, message, figure, target, detail)


def made_queries(index: LiveIndex, vectors: Mapping[str, Vector]) -> Matrix:
    """Return one query for each of these items of an index, the same ones each time."""
    beside = {item_id: _beside(index, item_id, vector) for item_id, vector in vectors.items()}
    found = stored_vectors(index, {other for other in beside.values() if other})
    items = np.stack(list(vectors.values()))
    others = np.stack([found.get(beside[item_id], vector) for item_id, vector in vectors.items()])
    return between_items(items, others, index.spec.metric)


def between_items(items: Matrix, nearest_others: Matrix, metric: str) -> Matrix:
    """Return queries of the items' shape: moved towards other items, then scattered.

    As much as it takes to be as far from the item as the nearest other item is at the median:
    far where items lie apart, hardly where they are crowded.
    """
    random = np.random.default_rng(SEED)
    towards = items[random.permutation(len(items))]
    moved = (1 - TOWARDS) * items + TOWARDS * towards
    if metric == "L2":
        usual = float(np.median(np.square(items - nearest_others).sum(axis=1)))
        room = usual - np.square(moved - items).sum(axis=1)
    else:
        # Scattering by s leaves of the cosine: along / sqrt(|moved|² + s²).
        directions = exact.unit(items)
        usual = float(np.median((directions * exact.unit(nearest_others)).sum(axis=1)))
        along = (moved * directions).sum(axis=1)
        room = np.square(along / max(usual, LEAST_COSINE)) - np.square(moved).sum(axis=1)
    noise = exact.unit(random.standard_normal(items.shape).astype(np.float32))
    return np.asarray(moved + np.sqrt(np.maximum(room, 0))[:, None] * noise, dtype=np.float32)


def _beside(index: LiveIndex, item_id: str, vector: Vector) -> str:
    """Return the id of the item nearest to another one, or nothing where there is no other."""
    return next((hit.id for hit in nearest(index, vector, 2) if hit.id != item_id), "")


def tune(
    index: LiveIndex,
    queries: Matrix,
    truth: Exact,
    *,
    count: int,
    target: float,
    on_search: Callable[[], None] = lambda: None,
) -> tuple[int | None, Curve]:
    """Return the smallest EF_RUNTIME that reaches the target, to a tenth, and all that was measured.

    Doubles the value until it is enough, then halves the gap. Each half of the queries has to
    reach the target, lest a lucky sample chooses. None where the largest value is not enough.
    """
    curve: Curve = {}
    largest = min(LARGEST_EF, max(count, K))

    def enough(ef: int) -> bool:
        curve[ef] = at(index, queries, truth, ef, count=count, on_search=on_search)
        values = curve[ef][0]
        halves = (values[::2], values[1::2]) if len(values) > 1 else (values,)
        return min(float(half.mean()) for half in halves) >= target - 1e-9

    low, high = K - 1, K
    while not enough(high):
        if high >= largest:
            return None, curve
        low, high = high, min(2 * high, largest)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high, curve


def at(
    index: LiveIndex,
    queries: Matrix,
    truth: Exact,
    ef: int,
    *,
    count: int,
    on_search: Callable[[], None] = lambda: None,
) -> tuple[Matrix, Matrix]:
    """Return the recall and the milliseconds of each query at this EF_RUNTIME (10 or more)."""
    tuned = index.model_copy(
        update={"spec": index.spec.model_copy(update={"ef_runtime": ef})},
    )
    k = min(K, count)
    share = min(1.0, truth.compared / count)
    recalls, spent = [], []
    for query, neighbours in zip(queries, truth.neighbours, strict=True):
        began = perf_counter()
        hits = nearest(tuned, query, K)
        spent.append(perf_counter() - began)
        recalls.append(exact.recall(hits, neighbours, prefix=index.key_prefix, share=share, k=k))
        on_search()
    return np.array(recalls, dtype=np.float32), np.array(spent, dtype=np.float32) * 1000


def _detail(queries: Matrix, truth: Exact, curve: Curve) -> dict[str, Any]:
    return {
        "queries": len(queries),
        "items_compared": truth.compared,
        "by_ef_runtime": [
            {
                "ef_runtime": ef,
                "recall": round(float(curve[ef][0].mean()), 4),
                "milliseconds": round(float(np.median(curve[ef][1])), 2),
            }
            for ef in sorted(curve)
        ],
    }
