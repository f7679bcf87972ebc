"""The demo catalog: a few thousand plausible products, the same ones on every machine.

A product is one combination of its category's parts (``categories.toml``), so that
titles and descriptions differ in meaning: use, material, audience, colour, size.
"""

import gzip
import json
import math
import os
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

SEED = 7
PRODUCTS_PER_CATEGORY = 150
REGIONS = ("us", "eu", "uk", "apac")
NEWEST = date(2026, 6, 30)
# What pictures are tinted with where a title names no colour: one per brand, as on a shelf.
COLOURS = (
    "navy", "teal", "green", "orange", "red", "pink", "blue", "yellow", "brown", "grey",
)  # fmt: skip

Product = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of product: its price range and the sentence that says what it is for."""

    name: str
    price: tuple[float, float]
    sentence: str


@dataclass(frozen=True, slots=True)
class Category:
    """The parts that the products of a category are combined from."""

    name: str
    image: str
    title: str
    brands: tuple[str, ...]
    kinds: tuple[Kind, ...]
    # Each axis maps its phrases to a sentence, empty where the phrase says it all.
    axes: dict[str, dict[str, str]]

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")

    def combination(self, number: int) -> tuple[Kind, dict[str, str]]:
        """Return the kind and the phrase of each axis that this number stands for."""
        number, place = divmod(number, len(self.kinds))
        phrases = {}
        for axis, choices in self.axes.items():
            number, index = divmod(number, len(choices))
            phrases[axis] = list(choices)[index]
        return self.kinds[place], phrases

    @property
    def combinations(self) -> int:
        return len(self.kinds) * math.prod(len(choices) for choices in self.axes.values())


@cache
def categories() -> tuple[Category, ...]:
    """Return what the demo shop sells, read from ``categories.toml``."""
    text = Path(__file__).with_name("categories.toml").read_text(encoding="utf-8")
    return tuple(_category(row) for row in tomllib.loads(text)["category"])


@cache
def products() -> tuple[Product, ...]:
    """Return every product as a row of the catalog file."""
    return tuple(product for category in categories() for product in _products(category))


def write(path: Path) -> int:
    """Write the catalog as gzipped JSON lines and return how many. The file appears at once, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # Without a name and a time stamp, the same catalog is the same bytes.
    with partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        for product in products():
            packed.write(json.dumps(product, ensure_ascii=False).encode() + b"\n")
    os.replace(partial, path)
    return len(products())


def _category(row: dict[str, Any]) -> Category:
    axes: dict[str, dict[str, str]] = dict(row.get("axis", {}))
    for axis in ("colour", "size"):
        if axis in row:
            axes[axis] = dict.fromkeys(row[axis], "")
    return Category(
        name=row["name"],
        image=row["image"],
        title=row["title"],
        brands=tuple(row["brands"]),
        kinds=tuple(
            Kind(name, (low, high), sentence)
            for name, (low, high, sentence) in row["kinds"].items()
        ),
        axes=axes,
    )


def _products(category: Category) -> Iterator[Product]:
    # Seeded by the name, so that a new category changes no product of the others.
    rng = random.Random(f"{SEED}:{category.name}")
    tints = {brand: COLOURS[rng.randrange(len(COLOURS))] for brand in category.brands}
    numbers = rng.sample(range(category.combinations), PRODUCTS_PER_CATEGORY)
    for position, number in enumerate(numbers, start=1):
        kind, phrases = category.combination(number)
        brand = rng.choice(category.brands)
        sentences = [kind.sentence]
        sentences += [
            text for axis, phrase in phrases.items() if (text := category.axes[axis][phrase])
        ]
        tint = phrases.get("colour", tints[brand])
        yield {
            "sku": f"{category.slug}-{position:03d}",
            "title": category.title.format(kind=kind.name, **phrases),
            "description": " ".join(sentences),
            "brand": brand,
            "category": category.name,
            "image": f"/demo/images/{category.image}-{tint}.svg",
            **_commerce(rng, kind, category.brands.index(brand) / len(category.brands)),
        }


def _commerce(rng: random.Random, kind: Kind, tier: float) -> Product:
    """Return price, stock and standing. ``tier`` places the brand, 0 the dearest."""
    low, high = kind.price
    # Most of a shelf is in the cheaper half of its range.
    place = min(1.0, rng.betavariate(2, 3.5) * 0.8 + (1 - tier) * 0.25)
    list_price = _shelf_price(low + (high - low) * place)
    discount = rng.choice(range(5, 75, 5)) if rng.random() < 0.35 else 0
    stock = 0 if rng.random() < 0.1 else rng.randint(1, 240)
    rating = round(min(5.0, max(2.4, rng.gauss(4.15, 0.45))), 1)
    # Liked products sell better, with much luck in between.
    popularity = round(100 * rng.betavariate(1.3, 4.5 - 0.5 * rating), 1)
    return {
        "price": round(list_price * (1 - discount / 100), 2),
        "list_price": list_price,
        "discount": discount,
        "stock": stock,
        "in_stock": stock > 0,
        "rating": rating,
        "reviews": int(popularity * rng.uniform(2, 18)),
        "popularity": popularity,
        "regions": [region for region in REGIONS if rng.random() < 0.85] or ["us"],
        "released": (NEWEST - timedelta(days=rng.randrange(1400))).isoformat(),
    }


def _shelf_price(value: float) -> float:
    if value < 100:
        return round(value) - 0.01
    return round(value / 5) * 5 - 1.0
