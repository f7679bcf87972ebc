"""Rows as people are shown them, whatever they hold."""

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexes.formats.rows import MAX_CONTENT, as_json
from indexes.sampling import sample
from indexes.schema import CatalogSpec


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"name": "Lampe à lire", "n": 2**70}, '{"name":"Lampe à lire","n":1180591620717411303424}'),
        ([1.5, None, {"a": b"x"}], '[1.5,null,{"a":"b\'x\'"}]'),
        ("a\0b", '"a\\u0000b"'),
        ("x" * 5000, '"' + "x" * (MAX_CONTENT - 1)),
    ],
)  # fmt: skip
def test_any_value_has_a_text(value: object, text: str):
    assert as_json(value) == text


def test_a_rejected_row_with_a_large_decimal_is_shown(tmp_path):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": [None], "stamp": [Decimal(2**70)]}), path)
    found = sample(CatalogSpec(uri=str(path), text_template="{stamp}"))
    assert found.error == ""
    [row] = found.rows
    assert "missing" in row.error
    assert str(2**70) in row.content
