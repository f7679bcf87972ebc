"""Gate: how much of what shoppers see changes: the first items beside an item, against live.

Rank-biased overlap weighs the first places most: Webber, Moffat, Zobel, "A similarity measure
for indefinite rankings", ACM TOIS 28(4), 2010, equation 32, with p = 0.9, of which the first ten
places make 86 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from indexes.given import Vector
from indexes.schema import LiveIndex
from indexes.validation.bench import Bench, nearest, stored_vectors
from indexes.validation.result import Outcome, Result, percent, skipped

K: Final = 10
QUERIES: Final = 50
# Looked through for items that are in both builds.
SAMPLED: Final = 500
P: Final = 0.9
SHOWN: Final = 5


@dataclass(frozen=True)
class Compared:
    """The items nearest to one item in the live build and in this one, without itself."""

    item_id: str
    live: list[str]
    own: list[str]

    @property
    def overlap(self) -> float:
        return overlap(self.live, self.own)


def measure(bench: Bench) -> Result:
    """FAILED below the index's least overlap; without one it is told and holds nothing back.

    Each sampled item is looked up by its own vector in either build. So two models are compared
    by what each makes of the same item, and no endpoint is called, not even one that is gone.
    """
    if bench.rival is None:
        return skipped("No build is live to compare with.")
    ids = bench.sample[:SAMPLED]
    live = bench.rival.to_live()
    before, now = stored_vectors(live, ids), stored_vectors(bench.own, ids)
    both = [item_id for item_id in ids if item_id in before and item_id in now][:QUERIES]
    if not both:
        return skipped(f"None of {len(ids)} sampled items is in {bench.rival.label} as well.")
    found = []
    for item_id in both:
        bench.stay()
        beside = _beside(live, item_id, before[item_id])
        found.append(Compared(item_id, beside, _beside(bench.own, item_id, now[item_id])))
    figure = sum(one.overlap for one in found) / len(found)
    biased = sum(rank_biased(one.live, one.own) for one in found) / len(found)
    least = bench.definition.min_overlap
    lowest = sorted(found, key=lambda one: one.overlap)[:SHOWN]
    detail, named = _detail(bench, found, lowest)
    message = (
        f"Beside an item, {figure * K:.1f} of the first {K} are those of {bench.rival.label} "
        f"(rank-biased overlap {biased:.2f})."
    )
    if lowest[0].overlap < 1:
        message += f" Most changed: “{named}” keeps {percent(lowest[0].overlap)}."
    detail = {"queries": len(found), "rank_biased_overlap": round(biased, 4), **detail}
    if not least:
        return Result(Outcome.REPORTED, message, figure, None, detail)
    if figure >= least:
        return Result(Outcome.PASSED, message, figure, least, detail)
    message += (
        f" At least {percent(least)} is asked for: look at the items named below, and override "
        "if the change is meant."
    )
    return Result(Outcome.FAILED, message, figure, least, detail)


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the share of items that two lists have in common, of the longer one; 1 of nothing."""
    longest = max(len(one), len(other))
    return len(set(one) & set(other)) / longest if longest else 1.0


def rank_biased(one: Sequence[str], other: Sequence[str], p: float = P) -> float:
    """Return the extrapolated rank-biased overlap of two rankings, from 0 to 1.

    Agreement at the last place is taken to go on for ever, so that equal lists give 1.
    """
    depth = max(len(one), len(other))
    if not depth:
        return 1.0
    agreed = [overlap_at(one, other, place) for place in range(1, depth + 1)]
    weighed = sum(share * p**place for place, share in enumerate(agreed, 1))
    return agreed[-1] * p**depth + (1 - p) / p * weighed


def overlap_at(one: Sequence[str], other: Sequence[str], depth: int) -> float:
    """Return the share of the first ``depth`` places that two rankings have in common."""
    return len(set(one[:depth]) & set(other[:depth])) / depth


def moves(found: Sequence[Compared]) -> Counter[str]:
    """Return by how many places each item rose over all queries; below 0 it fell."""
    places: Counter[str] = Counter()
    for one in found:
        for item_id in {*one.live, *one.own}:
            places[item_id] += _place(one.live, item_id) - _place(one.own, item_id)
    return places


def _place(ranking: Sequence[str], item_id: str) -> int:
    return ranking.index(item_id) if item_id in ranking else max(len(ranking), K)


def _beside(index: LiveIndex, item_id: str, vector: Vector) -> list[str]:
    # One more, as the item itself is the nearest in any build.
    return [hit.id for hit in nearest(index, vector, K + 1) if hit.id != item_id][:K]


def _detail(
    bench: Bench, found: Sequence[Compared], lowest: Sequence[Compared]
) -> tuple[dict[str, Any], str]:
    """Return the biggest movers by their titles, and the title of the most changed query."""
    ranked = moves(found).most_common()
    risen = [(item_id, by) for item_id, by in ranked[:SHOWN] if by > 0]
    fallen = [(item_id, by) for item_id, by in ranked[: -SHOWN - 1 : -1] if by < 0]
    named = {item_id for item_id, _ in (*risen, *fallen)}
    for one in lowest:
        named |= {one.item_id, *one.live, *one.own}
    titles = bench.titles(sorted(named))
    changed = [
        {
            "item": titles[one.item_id],
            "id": one.item_id,
            "overlap": round(one.overlap, 2),
            "gone": [titles[item] for item in one.live if item not in one.own],
            "new": [titles[item] for item in one.own if item not in one.live],
        }
        for one in lowest
        if one.overlap < 1
    ]
    detail = {
        "most_changed": changed,
        "risen": [{"item": titles[one], "id": one, "places": by} for one, by in risen],
        "fallen": [{"item": titles[one], "id": one, "places": -by} for one, by in fallen],
    }
    return {name: rows for name, rows in detail.items() if rows}, titles[lowest[0].item_id]
