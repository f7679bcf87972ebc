"""Recall at 10 and search time against EF_RUNTIME, and at the value a build would be tuned to.

    .venv/bin/python benchmarks/recall.py [--quick] [--uniform]

Runs on the server that VALKEY_URL names, or on an embedded one. The index is tuned on queries
made as a build's validation makes them, and then measured with others: items that were kept out
of it. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DIMENSION = 384
ITEMS, ITEMS_QUICK = 100_000, 10_000
QUERIES, QUERIES_QUICK = 1000, 300
VALUES = (10, 20, 40, 80, 120, 160, 200, 300, 400, 800)
TARGET = 0.99
# How many topics a catalog has, and how far an item lies from the middle of its topic.
ITEMS_PER_TOPIC = 100
SPREAD = 0.8
PREFIX = "rpbench:recall:"
INDEX = "rpbench_recall"


def main() -> None:
    """Build the index, tune it, measure it, print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="10,000 items instead of 100,000")
    parser.add_argument("--uniform", action="store_true", help="directions without any topics")
    options = parser.parse_args()
    count = ITEMS_QUICK if options.quick else ITEMS
    queries = QUERIES_QUICK if options.quick else QUERIES
    vectors = made_vectors(count + queries, uniform=options.uniform)
    with valkey_server():
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "recplatform.settings")
        django.setup()
        measure(vectors[queries:], vectors[:queries], "uniform" if options.uniform else "clustered")


def made_vectors(count: int, *, uniform: bool) -> Matrix:
    """Return unit vectors of shape (count, DIMENSION), in random order and the same each time."""
    random = np.random.default_rng(7)
    vectors = random.standard_normal((count, DIMENSION), dtype=np.float32) * DIMENSION**-0.5
    if not uniform:
        # Topics differ in size, as categories do.
        topics = random.standard_normal((max(1, count // ITEMS_PER_TOPIC), DIMENSION))
        topics /= np.linalg.norm(topics, axis=1, keepdims=True)
        sizes = random.lognormal(0, 1, len(topics))
        chosen = random.choice(len(topics), size=count, p=sizes / sizes.sum())
        vectors = topics[chosen].astype(np.float32) + SPREAD * vectors
    unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@contextmanager
def valkey_server() -> Iterator[None]:
    """Use the server of the environment, or an embedded one for as long as this runs."""
    if os.environ.get("VALKEY_URL"):
        yield
        return
    from recplatform.devstack.process import Children
    from recplatform.devstack.valkey_server import Valkey

    with tempfile.TemporaryDirectory() as folder:
        children = Children(Path(folder) / "log")
        try:
            server = Valkey(Path(folder), durable=False)
            server.start(children)
            os.environ.update(server.wait())
            yield
        finally:
            children.stop()


def measure(items: Matrix, queries: Matrix, kind: str) -> None:
    """Print the table of an index over these items, and the JSON line at its tuned value."""
    from indexes import valkey
    from indexes.schema import CatalogSpec, EndpointSpec, IndexSpec, LiveIndex
    from indexes.validation import exact, recall

    spec = IndexSpec(
        slug="recall",
        endpoint=EndpointSpec(slug="none", endpoint_name="none", dimension=DIMENSION),
        catalog=CatalogSpec(uri="/none", text_template="{title}"),
    )
    live = LiveIndex(label="recall", index_name=INDEX, key_prefix=PREFIX, spec=spec)
    forget(INDEX, PREFIX)
    try:
        began = perf_counter()
        valkey.create_index(INDEX, PREFIX, spec)
        valkey.write_hashes(
            (f"{PREFIX}{number}", {"rp_vector": vector.tobytes()})
            for number, vector in enumerate(items)
        )
        while not valkey.index_info(INDEX).ready:
            time.sleep(0.1)
        engine = valkey.server_facts()
        print(
            f"{engine.name} {engine.version}, {len(items):,} {kind} vectors of {DIMENSION} numbers"
        )
        print(f"loaded in {perf_counter() - began:.0f} s, M {spec.m}, {len(queries):,} queries\n")

        began = perf_counter()
        sampled = {str(number): items[number] for number in range(recall.QUERIES)}
        sample = recall.made_queries(live, sampled)
        truth = exact.search(live, sample, k=10, seconds=600)
        compared = perf_counter() - began
        tuned, curve = recall.tune(live, sample, truth, count=len(items), target=TARGET)
        spent = perf_counter() - began

        truth = exact.search(live, queries, k=10, seconds=600)
        print("EF_RUNTIME  recall@10   p50 ms   p99 ms")
        line = {}
        for ef in sorted({*VALUES, *filter(None, [tuned])}):
            recalls, milliseconds = recall.at(live, queries, truth, ef, count=len(items))
            p50, p99 = np.percentile(milliseconds, [50, 99])
            mark = "  ← tuned" if ef == tuned else ""
            print(f"{ef:10}  {recalls.mean():9.4f}  {p50:7.2f}  {p99:7.2f}{mark}")
            if ef == (tuned or VALUES[-1]):
                line = {
                    "recall_at_10": round(float(recalls.mean()), 4),
                    "search_ms_p50": round(float(p50), 3),
                    "search_ms_p99": round(float(p99), 3),
                }
        found = f"EF_RUNTIME {tuned}" if tuned else "no value up to 4,096"
        print(
            f"\nTuned to {TARGET}: {found}, {spent:.1f} s, of which exact search {compared:.1f} s."
        )
        if tuned is None:
            best = max(float(values.mean()) for values, _ in curve.values())
            print(f"The best of its own queries was {best:.4f}.")
        print(json.dumps(line))
    finally:
        forget(INDEX, PREFIX)


def forget(name: str, prefix: str) -> None:
    """Remove what this or an earlier run has left."""
    from indexes import valkey

    valkey.drop_index(name)
    valkey.delete_prefix(prefix)


if __name__ == "__main__":
    main()
