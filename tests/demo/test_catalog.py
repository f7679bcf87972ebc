"""The generated catalog: large, varied, sound, and the same on every machine."""

import gzip
import json
from collections import Counter

import pytest

from recplatform.demo import catalog
from recplatform.demo.catalog import categories, products

pytestmark = pytest.mark.unit


def test_it_is_large_and_varied():
    rows = products()
    assert len(rows) >= 3000
    assert len({row["category"] for row in rows}) >= 15
    assert len({row["sku"] for row in rows}) == len(rows)
    titles = Counter(row["title"] for row in rows)
    assert titles.most_common(1)[0][1] == 1
    assert len({row["brand"] for row in rows}) > 50
    assert len({row["description"] for row in rows}) > 1000


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ("skin care", ("Daily Moisturizer", "for Dry Skin")),
        ("headphones", ("Noise Cancelling", "for Travel")),
        ("coffee", ("Coffee Lover's Gift Box",)),
        ("jackets", ("Waterproof", "Hiking Jacket")),
    ],
)
def test_shoppers_find_what_they_would_search_for(category, words):
    found = [row for row in products() if all(word in row["title"] for word in words)]
    assert found
    assert {row["category"] for row in found} == {category}


def test_money_and_stock_are_consistent():
    for row in products():
        assert row["price"] == pytest.approx(
            row["list_price"] * (1 - row["discount"] / 100), abs=0.01
        )
        assert 0 <= row["discount"] <= 70
        assert row["price"] > 0
        assert row["in_stock"] == (row["stock"] > 0)
        assert 1 <= row["rating"] <= 5
        assert set(row["regions"]) <= set(catalog.REGIONS)
        assert row["regions"]
    shares = Counter(row["discount"] >= 10 for row in products())
    assert shares[True] > 500
    assert 0.02 < sum(not row["in_stock"] for row in products()) / len(products()) < 0.2


def test_descriptions_bring_the_sentences_of_the_title():
    row = next(row for row in products() if "for Dry Skin" in row["title"])
    assert "Relieves tightness and flaking" in row["description"]


def test_every_combination_of_a_category_is_another_one():
    category = min(categories(), key=lambda category: category.combinations)
    seen = {repr(category.combination(number)) for number in range(category.combinations)}
    assert len(seen) == category.combinations > catalog.PRODUCTS_PER_CATEGORY


def test_the_file_holds_every_row_and_is_the_same_each_time(tmp_path):
    first, second = tmp_path / "a" / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    assert catalog.write(first) == catalog.write(second) == len(products())
    assert first.read_bytes() == second.read_bytes()
    with gzip.open(first, "rt") as lines:
        assert [json.loads(line) for line in lines] == list(products())
    assert [path.name for path in first.parent.iterdir()] == ["one.jsonl.gz"]
