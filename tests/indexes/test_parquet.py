"""Vectors in Parquet: taken from Arrow's memory, whatever kind of list holds them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexes.catalog import read_rows
from indexes.formats import parquet
from indexes.schema import CatalogSpec

pytestmark = pytest.mark.unit

VECTORS = [[1.5, 2], None, [3, 4], [5, None]]


def rows(path, table, *, start=0, **options):
    pq.write_table(table, path, **options)
    catalog = CatalogSpec(uri=str(path), text_template="{id}", vector_field="v")
    return list(read_rows(catalog, start=start))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.int16()),
    ],
    ids=str,
)
def test_a_column_of_vectors_comes_as_arrays(tmp_path, kind):
    whole = pa.types.is_integer(kind.value_type)
    vectors = [[1, 2], None, [3, 4], [5, None]] if whole else VECTORS
    table = pa.table({"id": ["a", "b", "c", "d"], "v": pa.array(vectors, kind)})
    found = [row.values["v"] for row in rows(tmp_path / "c.parquet", table)]
    assert found[1] is None
    assert all(isinstance(vector, np.ndarray) for vector in (found[0], found[2], found[3]))
    assert (found[0].tolist(), found[2].tolist()) == (vectors[0], vectors[2])
    assert np.isnan(found[3][1])


def test_lists_of_any_length_and_none_at_all(tmp_path):
    table = pa.table({"v": pa.array([[1.0], [], [2.0, 3.0], []], pa.list_(pa.float32()))})
    assert [row.values["v"].tolist() for row in rows(tmp_path / "c.parquet", table)] == [
        [1],
        [],
        [2, 3],
        [],
    ]


def test_other_columns_and_other_lists_stay_lists(tmp_path):
    table = pa.table({"v": [["a"], ["b"]], "w": [[1.0], [2.0]]})
    assert [row.values for row in rows(tmp_path / "c.parquet", table)] == [
        {"v": ["a"], "w": [1.0]},
        {"v": ["b"], "w": [2.0]},
    ]


@pytest.mark.parametrize("start", [0, 1, 7, 10, 14, 20, 29, 30])
def test_reading_goes_on_in_the_middle_of_batches_and_groups(tmp_path, monkeypatch, start):
    monkeypatch.setattr(parquet, "BATCH_ROWS", 4)
    table = pa.table({"id": list(range(1, 31)), "v": [[float(n), 0.0] for n in range(1, 31)]})
    found = rows(tmp_path / "c.parquet", table, start=start, row_group_size=10)
    assert [(row.number, row.values["id"], row.values["v"][0]) for row in found] == [
        (n, n, n) for n in range(start + 1, 31)
    ]
