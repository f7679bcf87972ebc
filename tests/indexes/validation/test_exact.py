"""Exact neighbours by streaming an index, and recall counted against them."""

import math

import numpy as np
import pytest

from indexes import search, valkey
from indexes.search import Hit
from indexes.validation import exact
from indexes.validation.exact import Neighbours
from tests.indexes.conftest import direction
from tests.indexes.servers import cluster_node, form_cluster

METRICS = ["COSINE", "L2", "IP"]


def vectors(count: int, dimension: int = 8) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_it_finds_what_the_engine_finds_by_comparing_all(make_index, metric, monkeypatch):
    monkeypatch.setattr(exact, "PART_ITEMS", 70)  # several parts
    items = vectors(300)
    live = make_index(
        {str(n): (vector, {}) for n, vector in enumerate(items)}, metric=metric, algorithm="FLAT"
    )
    queries = vectors(320)[300:]
    found = exact.search(live, queries, k=10, seconds=60)
    assert found.compared == 300
    for query, neighbours in zip(queries, found.neighbours, strict=True):
        hits = search.knn(live, query, k=10, fields=(), timeout_s=5).hits
        ids = [key.decode().removeprefix(live.key_prefix) for key in neighbours.keys]
        assert ids == [hit.id for hit in hits]
        distances = [hit.distance for hit in hits]
        assert list(neighbours.distances) == pytest.approx(distances, rel=1e-4, abs=1e-4)


def test_fewer_items_than_asked_for_are_all_found(make_index):
    live = make_index({str(n): (direction(n), {}) for n in range(3)})
    [found] = exact.search(live, direction(0)[np.newaxis], k=10, seconds=60).neighbours
    assert [key[-1:] for key in found.keys] == [b"0", b"1", b"2"]


def test_a_search_without_time_compares_a_part_and_says_how_many(make_index, monkeypatch):
    monkeypatch.setattr(exact, "PART_ITEMS", 10)
    items = vectors(1200)
    live = make_index({str(n): (vector, {}) for n, vector in enumerate(items)})
    found = exact.search(live, items[:1], k=10, seconds=0)
    assert 0 < found.compared < 1200


@pytest.mark.parametrize(
    ("ids", "distances", "share", "recall"),
    [
        ("abcd", (0.1, 0.2, 0.3, 0.4), 1, 1),
        ("abcx", (0.1, 0.2, 0.3, 0.5), 1, 0.75),
        ("abxy", (0.1, 0.2, 0.5, 0.6), 1, 0.5),
        # As far away as the last of the exact ones: a tie.
        ("abcx", (0.1, 0.2, 0.3, 0.4), 1, 1),
        ("wxyz", (0.5, 0.6, 0.7, 0.8), 1, 0),
        # Fewer than there are.
        ("abc", (0.1, 0.2, 0.3), 1, 0.75),
        # Only half of the items were compared: one miss among them stands for two.
        ("abcx", (0.1, 0.2, 0.3, 0.5), 0.5, 0.5),
        ("wxyz", (0.5, 0.6, 0.7, 0.8), 0.5, 0),
    ],
)
def test_recall_counts_misses(ids, distances, share, recall):
    truth = Neighbours(
        [b"k:a", b"k:b", b"k:c", b"k:d"], np.array([0.1, 0.2, 0.3, 0.4], np.float32), 1e-5
    )
    hits = [Hit(one, distance, {}) for one, distance in zip(ids, distances, strict=True)]
    found = exact.recall(hits, truth, prefix="k:", share=share, k=4)
    assert math.isclose(found, recall)


def test_hashes_are_read_from_every_node_of_a_cluster(tmp_path, namespace):
    nodes = [cluster_node(tmp_path / str(number), search=False) for number in range(2)]
    try:
        url = form_cluster(nodes)
        with nodes[0].in_use(VALKEY_URL=url, VALKEY_CLUSTER=True):
            names = [f"{namespace}:{number}" for number in range(700)]
            valkey.write_hashes([(name, {"a": name}) for name in [*names, f"other:{namespace}"]])
            found = [one for part in valkey.scan_hashes(f"{namespace}:", ["a"]) for one in part]
            sizes = valkey.memory_usage([*names[:3], "none"])
    finally:
        for node in nodes:
            node.stop()
    assert {key.decode() for key, _ in found} == set(names)
    assert all(row == [key] for key, row in found)
    assert all(sizes[:3])
    assert sizes[3] == 0
