"""The demo's shoppers and trends name what the catalog has."""

import pytest

from recplatform.demo import users
from recplatform.demo.catalog import REGIONS, categories, products

pytestmark = pytest.mark.unit

BY_SKU = {row["sku"]: row for row in products()}
BRANDS = {brand for category in categories() for brand in category.brands}


def test_tastes_name_real_brands_categories_and_products():
    items = list(users.user_items())
    assert len({item["pk"] for item in items}) == len(items) > 200
    for item in items:
        tastes = item["affinities"]
        assert tastes["brand"].keys() <= BRANDS
        assert tastes["category"].keys() <= {category.name for category in categories()}
        assert item["recent"].keys() <= BY_SKU.keys()
        weights = [
            *tastes["brand"].values(),
            *tastes["category"].values(),
            *item["recent"].values(),
        ]
        assert all(0 < weight <= 1 for weight in weights)


def test_recent_views_fit_the_taste():
    anna = next(users.user_items())
    assert anna["pk"] == "USER#anna"
    viewed = [BY_SKU[sku]["category"] for sku in anna["recent"]]
    assert set(viewed) <= anna["affinities"]["category"].keys()


def test_the_newcomer_is_unknown():
    assert f"USER#{users.NEWCOMER}" not in {item["pk"] for item in users.user_items()}


def test_trends_and_deals_can_be_bought_in_their_region():
    items = {item["pk"]: item["items"] for item in users.trend_items()}
    assert items.keys() == {
        f"{kind}#{region}" for kind in ("TRENDING", "DEALS") for region in REGIONS
    }
    for key, scores in items.items():
        kind, _, region = key.partition("#")
        for sku, score in scores.items():
            assert region in BY_SKU[sku]["regions"]
            assert BY_SKU[sku]["in_stock"]
            assert 0 < score <= 1
            if kind == "DEALS":
                assert score == BY_SKU[sku]["discount"] / 100


def test_the_same_items_are_made_each_time():
    assert list(users.user_items()) == list(users.user_items())
    assert list(users.trend_items()) == list(users.trend_items())
