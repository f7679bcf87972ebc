"""Gate: how long a search takes, in turn with the live build, so that both meet the same weather."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final

import numpy as np

from indexes.schema import LiveIndex
from indexes.search import knn
from indexes.validation.bench import SEARCH_S, Bench, sample_ids, stored_vectors
from indexes.validation.result import Outcome, Result, skipped

# What a surface asks for that reranks: candidates with all they show.
K: Final = 100
SEARCHES: Final = 100
# Of an index this small every search is quick, and counting them would not.
SMALL: Final = 2000
SEARCHES_OF_SMALL: Final = 20
WARM_UP: Final = 3
# Quicker than one of these, no shopper notices whatever the ratio; noise of the machine lies below.
QUICK_P50_MS: Final = 10.0
QUICK_P99_MS: Final = 50.0
# A build is held back only if it is slow each time.
ROUNDS: Final = 3

Search = Callable[[int], None]


@dataclass(frozen=True)
class Times:
    """Milliseconds of a search: at the median, and of the slowest hundredth."""

    p50: float
    p99: float

    @property
    def quick(self) -> bool:
        return self.p50 <= QUICK_P50_MS or self.p99 <= QUICK_P99_MS

    def __str__(self) -> str:
        return f"{self.p50:.1f} ms (p50) and {self.p99:.1f} ms (p99)"


def measure(bench: Bench) -> Result:
    """FAILED where the build is both slow and so many times slower than live, in every round."""
    if not bench.count:
        return skipped("The build has no items.")
    own = _searches(bench.own, bench.sample)
    times = SEARCHES if bench.count > SMALL else SEARCHES_OF_SMALL
    k = min(K, bench.count)
    if bench.rival is None:
        [alone] = compare([own], times=times, on_search=bench.stay)
        message = f"A search takes {alone} for {k} items with their fields. Nothing is live to compare with."
        return Result(Outcome.REPORTED, message, alone.p50, detail=_detail(alone))
    live = bench.rival.to_live()
    other = _searches(live, sample_ids(live))
    most = bench.definition.max_latency_ratio
    for _ in range(ROUNDS):
        ours, theirs = compare([own, other], times=times, on_search=bench.stay)
        if not too_slow(ours, theirs, most):
            break
    ratio = ours.p50 / theirs.p50
    said = (
        f"A search takes {ours} for {k} items with their fields, "
        f"{ratio:.1f} times as long as in {bench.rival.label}"
    )
    detail = _detail(ours, theirs)
    if not too_slow(ours, theirs, most):
        return Result(Outcome.PASSED, f"{said}.", ratio, most, detail)
    message = (
        f"{said}; at most {most:g} times is allowed. See whether the engine is busy, and lower M "
        'or the "recall target" of the index, or give the engine more cores.'
    )
    return Result(Outcome.FAILED, message, ratio, most, detail)


def compare(
    searches: list[Search], *, times: int, on_search: Callable[[], None] = lambda: None
) -> list[Times]:
    """Run each search so many times in turn with the others, after a warm-up; return their times."""
    spent: list[list[float]] = [[] for _ in searches]
    for number in range(-WARM_UP, times):
        for search, own in zip(searches, spent, strict=True):
            began = perf_counter()
            search(number)
            if number >= 0:
                own.append(1000 * (perf_counter() - began))
        on_search()
    return [Times(*map(float, np.percentile(own, [50, 99]))) for own in spent]


def too_slow(ours: Times, theirs: Times, most: float) -> bool:
    """Tell whether a build is held back: slow enough to be noticed, and slower than live by far."""
    return not ours.quick and ours.p50 > most * theirs.p50


def _searches(index: LiveIndex, ids: list[str]) -> Search:
    vectors = list(stored_vectors(index, ids[:SEARCHES]).values())
    fields = [field.name for field in index.spec.fields if field.returned]
    find = partial(knn, index, k=K, fields=fields, timeout_s=SEARCH_S)

    def search(number: int) -> None:
        find(vectors[number % len(vectors)])

    return search


def _detail(ours: Times, theirs: Times | None = None) -> dict[str, Any]:
    detail = {"p50_ms": round(ours.p50, 2), "p99_ms": round(ours.p99, 2)}
    if theirs is not None:
        detail |= {"live_p50_ms": round(theirs.p50, 2), "live_p99_ms": round(theirs.p99, 2)}
    return detail
