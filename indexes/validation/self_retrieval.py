"""Gate: an item's own text, asked as a query, finds the item among the first.

It fails where queries and items do not meet: another model behind the endpoint than the one
that made ready vectors, prefixes that were forgotten, a metric that the model is not made for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import closing
from copy import deepcopy
from typing import Any, Final

import numpy as np

from indexes import valkey
from indexes.catalog import read_rows
from indexes.errors import CatalogError, EmbeddingError, RowError
from indexes.formats.rows import SourceRow
from indexes.given import Vector
from indexes.items import CatalogItem, ItemMaker, content_digest
from indexes.models import GateResult, IndexBuild
from indexes.naming import CONTENT_FIELD
from indexes.probe import MIN_COSINE, cosine
from indexes.validation import exact
from indexes.validation.asking import ask
from indexes.validation.bench import SEED, Bench, nearest, stored_vectors
from indexes.validation.result import Outcome, Result, percent, skipped

GATE: Final = "self_retrieval"
K: Final = 10
ITEMS: Final = 50
# Of an index this small, fewer items tell as much.
SMALL: Final = 2000
ITEMS_OF_SMALL: Final = 20
# Rows of a large catalog are drawn from what can be read in this time.
READING_S: Final = 10.0
SHOWN: Final = 5


def measure(bench: Bench) -> Result:
    """FAILED where fewer sampled items than the index asks for are found by their own text.

    The endpoint is asked once for each model: a later build whose vectors are those of builds
    that passed is measured with its stored vectors, without a call.
    """
    if not bench.sample:
        return skipped("The build has no items.")
    size = ITEMS if bench.count > SMALL else ITEMS_OF_SMALL
    if asks(bench):
        drawn = _draw(bench, size)
        if drawn:
            return _by_text(bench, drawn)
        because = "no row of the source could be read again"
    else:
        because = "an earlier build passed with texts embedded by the same endpoint"
    vectors = stored_vectors(bench.own, bench.sample[:size])
    return _judged(bench, vectors, vectors, because=because)


def asks(bench: Bench) -> bool:
    """Tell whether the endpoint has to be called: its vectors and these were not yet compared."""
    build = bench.build
    if build.embedded > build.reused + build.given:
        return True
    known = GateResult.objects.filter(
        build__definition=build.definition_id,
        build__fingerprint__startswith=f"{bench.own.spec.endpoint.fingerprint}-",
        gate=GATE,
        outcome=Outcome.PASSED,
        detail__calls__gt=0,
    )
    passed = known.exclude(build=build).order_by("-id").values_list("build", flat=True)
    return not passed or (build.given > 0 and not _as_before(bench, passed[0]))


def _as_before(bench: Bench, passed: int) -> bool:
    """Tell whether vectors that a source gave are still those of the model that was compared."""
    earlier = (passed, bench.build.vectors_from_id, bench.definition.live_build_id)
    kept = IndexBuild.objects.filter(removed_at=None)
    for build in kept.filter(pk__in=[pk for pk in earlier if pk is not None]):
        ids = bench.sample[:ITEMS]
        before, now = stored_vectors(build.to_live(), ids), stored_vectors(bench.own, ids)
        alike = [cosine(before[item_id], now[item_id]) for item_id in before.keys() & now.keys()]
        if alike:
            # Single items may have another text by now.
            return float(np.median(alike)) >= MIN_COSINE
    return False


def _by_text(bench: Bench, drawn: list[CatalogItem]) -> Result:
    answers = ask(bench, bench.own.spec.endpoint, [item.text for item in drawn])
    queries = {
        item.id: answer
        for item, answer in zip(drawn, answers, strict=True)
        if not isinstance(answer, EmbeddingError)
    }
    stored = stored_vectors(bench.own, [item.id for item in drawn])
    refused = next((str(answer) for answer in answers if isinstance(answer, EmbeddingError)), "")
    texts = {item.id: item.text for item in drawn}
    return _judged(bench, stored, queries, texts=texts, calls=len(answers), refused=refused)


def _judged(
    bench: Bench,
    stored: Mapping[str, Vector],
    queries: Mapping[str, Vector],
    *,
    texts: Mapping[str, str] | None = None,
    calls: int = 0,
    refused: str = "",
    because: str = "",
) -> Result:
    lost = [item_id for item_id in stored if not _finds(bench, item_id, stored, queries)]
    figure = 1 - len(lost) / len(stored)
    least = bench.definition.min_self_retrieval
    by = "stored vector" if because else "own text"
    message = (
        f"{percent(figure)} of {len(stored)} items are among the first {K} found by their {by}."
    )
    if because:
        message += f" The endpoint was not asked: {because}."
    titles = bench.titles(lost[:SHOWN])
    detail: dict[str, Any] = {"items": len(stored), "calls": calls}
    if lost:
        detail["not_found"] = [
            {"item": titles[item_id], "id": item_id, "text": (texts or {}).get(item_id, "")[:160]}
            for item_id in lost[:SHOWN]
        ]
    if figure >= least:
        return Result(Outcome.PASSED, message, figure, least, detail)
    message += f" At least {percent(least)} is asked for. " + (
        f"The endpoint refused texts: {refused}"
        if refused
        else "See whether the endpoint has the model that made the vectors, whether its query and "
        "passage prefixes are right, and whether the metric is the model's."
    )
    return Result(Outcome.FAILED, message, figure, least, detail)


def _finds(
    bench: Bench, item_id: str, stored: Mapping[str, Vector], queries: Mapping[str, Vector]
) -> bool:
    """Tell whether the query of an item finds it, or as many others that are as near to it."""
    query = queries.get(item_id)
    if query is None:
        return False
    bench.stay()
    hits = nearest(bench.own, query, K)
    if any(hit.id == item_id for hit in hits):
        return True
    metric = bench.own.spec.metric
    [[distance]] = exact.distances(query[np.newaxis], stored[item_id][np.newaxis], metric)
    tolerance = exact.TOLERANCE * (1 + float(np.square(query).sum()))
    return len(hits) == K and float(distance) <= (hits[-1].distance or 0.0) + tolerance


def _draw(bench: Bench, size: int) -> list[CatalogItem]:
    """Return items of random rows of the source that are in the build as they are in the source."""
    spec = bench.own.spec
    maker = ItemMaker.of(spec)
    items: dict[str, CatalogItem] = {}
    try:
        rows = _rows(bench, 2 * size)
    except CatalogError as error:
        if error.retryable:
            raise
        return []
    for row in rows:
        try:
            if not isinstance(row.values, RowError):
                item = maker.make(row.values)
                items[item.id] = item
        except RowError:
            continue
    keys = [bench.own.key_prefix + item_id for item_id in items]
    contents = valkey.hash_fields(keys, [CONTENT_FIELD], fresh=True)
    same = [
        item
        for item, [content] in zip(items.values(), contents, strict=True)
        if content == content_digest(item)
    ]
    return same[:size]


def _rows(bench: Bench, size: int) -> list[SourceRow]:
    """Return random rows of what can be read of the source in a few seconds (reservoir sampling)."""
    draw = random.Random(SEED)
    until = time.monotonic() + READING_S
    rows: list[SourceRow] = []
    with closing(read_rows(bench.own.spec.catalog)) as stream:
        for number, row in enumerate(stream):
            # Copied, as the vector of a row may be a view into a whole batch of rows.
            if number < size:
                rows.append(deepcopy(row))
            elif (place := draw.randrange(number + 1)) < size:
                rows[place] = deepcopy(row)
            if number % 1000 == 999:
                bench.stay()
                if time.monotonic() > until:
                    break
    draw.shuffle(rows)
    return rows
