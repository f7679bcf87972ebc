"""Figures and details of gates as people read them."""

import pytest

from indexes.admin.gate_words import Part, detail_parts, number

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.0, "1"),
        (0.98765, "0.988"),
        (1.25, "1.250"),
        (12.345, "12.35"),
        (19406.0, "19,406"),
        (1234.5, "1,234"),
        (-0.02, "-0.020"),
    ],
)
def test_a_figure_is_short(value, said):
    assert number(value) == said


@pytest.mark.parametrize(
    ("detail", "parts"),
    [
        ({}, []),
        (
            {"live_p99_ms": 1.5, "p50_ms": 2, "ndcg": 0.5, "ef_runtime": 40},
            [
                Part("Live p99 (ms)", "1.500"),
                Part("p50 (ms)", "2"),
                Part("nDCG", "0.500"),
                Part("EF_RUNTIME", "40"),
            ],
        ),
        ({"sampled_items": 100}, [Part("Sampled items", "100")]),
        ({"queries": ["boots", "tent"]}, [Part("Queries", "boots · tent")]),
        ({"none": None, "empty": []}, [Part("None", "–"), Part("Empty", "–")]),
        (
            {"movers": [{"id": "a", "from": 1, "new": ["x", "y"]}, {"id": "b", "item": "B"}]},
            [
                Part(
                    "Movers",
                    columns=("Item", "Id", "New", "From"),
                    rows=(
                        (("–",), ("a",), ("x", "y"), ("1",)),
                        (("B",), ("b",), ("–",), ("–",)),
                    ),
                )
            ],
        ),
        (
            {"risen": [{"id": "a"}], "queries": 5},
            [Part("Queries", "5"), Part("Risen", columns=("Id",), rows=((("a",),),))],
        ),
        (
            {"worst": {"query": "boots", "share": 0.5}},
            [Part("Worst", "Query: boots, Share: 0.500")],
        ),
    ],
)
def test_a_detail_is_captions_values_and_tables(detail, parts):
    assert detail_parts(detail) == parts
