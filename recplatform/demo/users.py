"""The demo shoppers and what is trending and on offer, as DynamoDB items.

Seven named shoppers have a taste that shows in the results; a few hundred random ones
fill the table. ``NEWCOMER`` is in no table: the shopper nobody knows yet.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from recplatform.demo.catalog import REGIONS, SEED, categories, products

USERS_TABLE = "recplatform-demo-users"
TRENDS_TABLE = "recplatform-demo-trends"
NEWCOMER = "nora"
RANDOM_USERS = 200
TRENDING_ITEMS = 60
DEAL_ITEMS = 80

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shopper:
    """A shopper with a taste. ``viewed`` holds words of titles; the last viewed comes first."""

    user_id: str
    about: str
    categories: dict[str, float]
    brands: dict[str, float]
    viewed: tuple[str, ...]


SHOPPERS = (
    Shopper(
        "anna",
        "trail runner and hiker",
        {"running shoes": 1.0, "jackets": 0.7, "camping": 0.6},
        {"Peregrin": 1.0, "Nordfjell": 0.8, "Koru": 0.4},
        ("Waterproof Trail Running Shoes for Women", "Waterproof Hiking Jacket for Women"),
    ),
    Shopper(
        "ben",
        "coffee lover",
        {"coffee": 1.0, "kitchen appliances": 0.6, "cookware": 0.3},
        {"Third Bell": 1.0, "Kaveri Roasters": 0.7, "Brasso": 0.6},
        ("Espresso Blend from", "Espresso Machine", "Whole Bean Coffee from Ethiopia"),
    ),
    Shopper(
        "chloe",
        "skin care with sensitive skin",
        {"skin care": 1.0, "hair care": 0.6, "tea": 0.3},
        {"Mossa & Fern": 1.0, "Kindroot": 0.8, "Willow & Steam": 0.3},
        ("Daily Moisturizer for Dry Skin", "Gel Cleanser", "for Curly Hair"),
    ),
    Shopper(
        "dev",
        "gamer and developer",
        {"laptops": 1.0, "headphones": 0.9, "board games": 0.4},
        {"Pulsar": 1.0, "Corvid": 0.6, "Gambit House": 0.4},
        ("Gaming Laptop with 32 GB", "Over-Ear Headphones for Gaming", "Strategy Board Game"),
    ),
    Shopper(
        "emma",
        "parent of two",
        {"toys": 1.0, "books": 0.6, "bedding": 0.4},
        {"Pippin": 1.0, "Tinkerwood": 0.8, "Foxglove Books": 0.5},
        ("Wooden Train Set", "Children's Picture Book", "Science Experiment Kit"),
    ),
    Shopper(
        "finn",
        "gardener who cycles to work",
        {"garden tools": 1.0, "bikes": 0.8, "furniture": 0.3},
        {"Spade & Sons": 1.0, "Tramontane": 0.7, "Oslo Home": 0.4},
        ("Pruning Shears for Roses", "City Bike for Commuters", "Watering Can"),
    ),
    Shopper(
        "grace",
        "dog owner who loves tea",
        {"pet food": 1.0, "tea": 0.8, "books": 0.4},
        {"Barkwell": 1.0, "Jade Terrace": 0.8, "Lantern Press": 0.4},
        ("for Senior Dogs", "Green Tea for Quiet Evenings", "Memoir about Gardens"),
    ),
)


def user_items() -> Iterator[Item]:
    """Yield the users table: affinities in 0..1 by brand and category, and recent views."""
    for shopper in SHOPPERS:
        rng = random.Random(f"{SEED}:{shopper.user_id}")
        skus = [_viewed(words, rng) for words in shopper.viewed]
        yield _user(shopper.user_id, shopper.brands, shopper.categories, skus)
    rng = random.Random(f"{SEED}:users")
    for number in range(1, RANDOM_USERS + 1):
        liked = rng.sample(categories(), 3)
        shelf = [row for row in products() if row["category"] == liked[0].name]
        yield _user(
            f"user-{number:03d}",
            {rng.choice(category.brands): _weight(rng) for category in liked},
            {category.name: _weight(rng) for category in liked},
            [row["sku"] for row in rng.sample(shelf, 4)],
        )


def trend_items() -> Iterator[Item]:
    """Yield, for each region, what is trending and today's deals, each item scored in 0..1."""
    for region in REGIONS:
        rng = random.Random(f"{SEED}:{region}")
        shelf = [row for row in products() if region in row["regions"] and row["in_stock"]]
        hot = sorted(shelf, key=lambda row: -row["popularity"] * rng.random())[:TRENDING_ITEMS]
        yield {
            "pk": f"TRENDING#{region}",
            "items": {row["sku"]: round(1 - place / 100, 2) for place, row in enumerate(hot)},
        }
        reduced = [row for row in shelf if row["discount"] >= 20]
        yield {
            "pk": f"DEALS#{region}",
            "items": {row["sku"]: row["discount"] / 100 for row in rng.sample(reduced, DEAL_ITEMS)},
        }


def _user(user_id: str, brands: dict[str, float], liked: dict[str, float], skus: list[str]) -> Item:
    return {
        "pk": f"USER#{user_id}",
        "affinities": {"brand": brands, "category": liked},
        "recent": {sku: round(1 - 0.2 * place, 1) for place, sku in enumerate(skus)},
    }


def _viewed(words: str, rng: random.Random) -> str:
    sku: str = rng.choice([row["sku"] for row in products() if words in row["title"]])
    return sku


def _weight(rng: random.Random) -> float:
    return round(rng.uniform(0.2, 1.0), 2)
