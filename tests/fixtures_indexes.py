"""A small live index for every package's tests, and a factory of definitions to build."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from indexes import builds
from indexes.models import (
    CatalogSource,
    EmbeddingEndpoint,
    IndexBuild,
    IndexDefinition,
    IndexField,
)
from indexes.schema import EndpointSpec, LiveIndex

SLUG = "products"
TEMPLATE = "{title} {brand} {category}"
FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "title", "type": "text"},
    {"name": "brand", "type": "tag"},
    {"name": "category", "type": "tag", "multiple": True},
    {"name": "price", "type": "numeric"},
    {"name": "rating", "type": "numeric"},
    {"name": "in_stock", "type": "tag"},
    {"name": "region", "type": "tag", "multiple": True},
    {"name": "image", "type": "stored"},
)

AWKWARD_BRAND = "O'Neill & Co. {x}|@*"
_QUOTED_BRAND = 'Say "Cheese" (50%)'
_BACKSLASH_BRAND = "back\\slash-brand, inc"
_ACCENT_BRAND = "Café Zoë"

# (title, brand, categories, price, rating, in stock, regions)
_ROWS: tuple[tuple[str, str, list[str], float, float, bool, list[str]], ...] = (
    ("Hydrating face cream for dry skin", "Lumea", ["beauty", "skin care"], 24.5, 4.6, True, ["us", "eu"]),
    ("Rich night moisturizer with shea butter", "Lumea", ["beauty", "skin care"], 31, 4.8, True, ["us"]),
    ("Light day lotion SPF 30 for oily skin", _ACCENT_BRAND, ["beauty", "skin care"], 18.9, 4.1, True, ["eu"]),
    ("Vitamin C brightening serum", "Lumea", ["beauty", "skin care"], 42, 4.4, False, ["us", "eu"]),
    ("Exfoliating face scrub with apricot", _ACCENT_BRAND, ["beauty", "skin care"], 9.5, 3.9, True, ["us", "eu"]),
    ("Matte red lipstick", AWKWARD_BRAND, ["beauty", "make-up"], 14, 4.2, True, ["us"]),
    ("Volume mascara, waterproof black", AWKWARD_BRAND, ["beauty", "make-up"], 16.5, 4, True, ["us", "eu"]),
    ("Nourishing shampoo for curly hair", "Botanic Lab", ["beauty", "hair"], 11.2, 4.3, True, ["us", "eu", "uk"]),
    ("Trail running shoes with grippy sole", "Fellrunner", ["sport", "shoes"], 119, 4.7, True, ["us", "eu"]),
    ("Road running shoes, cushioned", "Fellrunner", ["sport", "shoes"], 129.99, 4.5, True, ["us"]),
    ("Waterproof hiking boots", "Fellrunner", ["outdoor", "shoes"], 159, 4.6, False, ["eu", "uk"]),
    ("White leather sneakers", "Strada", ["fashion", "shoes"], 89, 4.2, True, ["us", "eu"]),
    ("Suede ankle boots for women", "Strada", ["fashion", "shoes"], 139, 4.1, True, ["eu"]),
    ("Canvas slip-on shoes", AWKWARD_BRAND, ["fashion", "shoes"], 39.9, 3.8, True, ["us"]),
    ("Merino wool base layer shirt", "Northpeak", ["outdoor", "clothing"], 69, 4.7, True, ["us", "eu"]),
    ("Insulated down jacket", "Northpeak", ["outdoor", "clothing"], 219, 4.8, True, ["us", "eu", "uk"]),
    ("Rain jacket, packable and breathable", "Northpeak", ["outdoor", "clothing"], 149, 4.4, True, ["us"]),
    ("Organic cotton T-shirt", "Strada", ["fashion", "clothing"], 25, 4, True, ["us", "eu"]),
    ("Slim fit blue denim jeans", "Strada", ["fashion", "clothing"], 79, 4.1, True, ["eu"]),
    ("Summer dress with floral print", _ACCENT_BRAND, ["fashion", "clothing"], 59.5, 4.3, False, ["us"]),
    ("Two person lightweight tent", "Northpeak", ["outdoor", "camping"], 289, 4.5, True, ["us", "eu"]),
    ("Sleeping bag for cold nights", "Northpeak", ["outdoor", "camping"], 179, 4.6, True, ["eu"]),
    ("Gas camping stove", "Kettleworks", ["outdoor", "camping"], 45, 4.2, True, ["us"]),
    ("Headlamp, 400 lumen, rechargeable", "Kettleworks", ["outdoor", "camping"], 38, 4.4, True, ["us", "eu"]),
    ("GPS sports watch with heart rate monitor", "Pulsar", ["electronics", "wearables"], 249, 4.6, True, ["us", "eu"]),
    ("Fitness tracker band", "Pulsar", ["electronics", "wearables"], 59, 3.9, True, ["us"]),
    ("Smart watch with phone calls", "Orbit", ["electronics", "wearables"], 329, 4.3, False, ["us", "eu"]),
    ("Noise cancelling wireless headphones", "Orbit", ["electronics", "audio"], 279, 4.8, True, ["us", "eu", "uk"]),
    ("In-ear sports earbuds", "Pulsar", ["electronics", "audio"], 89, 4.1, True, ["us"]),
    ("Portable bluetooth speaker", "Orbit", ["electronics", "audio"], 69, 4.2, True, ["eu"]),
    ("Gaming laptop 15 inch, 16 GB RAM", "Volt", ["electronics", "computers"], 1399, 4.5, True, ["us", "eu"]),
    ("Ultrabook 13 inch, 1 kg", "Volt", ["electronics", "computers"], 1199, 4.6, True, ["us"]),
    ("Mechanical gaming keyboard", "Volt", ["electronics", "computers"], 119, 4.4, True, ["us", "eu"]),
    ("Ergonomic wireless mouse", _BACKSLASH_BRAND, ["electronics", "computers"], 49, 4.3, True, ["us", "eu"]),
    ("27 inch 4K monitor", "Volt", ["electronics", "computers"], 399, 4.5, False, ["eu"]),
    ("Black toner cartridge for laser printers", "Inkwell", ["office", "printing"], 64.99, 4, True, ["us", "eu"]),
    ("Colour ink cartridges, pack of four", "Inkwell", ["office", "printing"], 32.5, 3.7, True, ["us"]),
    ("Recycled copy paper, 500 sheets", "Inkwell", ["office", "paper"], 7.9, 4.2, True, ["us", "eu", "uk"]),
    ("Hardcover notebook, dotted", _BACKSLASH_BRAND, ["office", "paper"], 14.9, 4.7, True, ["eu"]),
    ("Standing desk, electric", "Oakline", ["office", "furniture"], 549, 4.4, True, ["us", "eu"]),
    ("Office chair with lumbar support", "Oakline", ["office", "furniture"], 319, 4.3, True, ["us"]),
    ("Solid oak dining table", "Oakline", ["home", "furniture"], 899, 4.6, False, ["eu"]),
    ("Three seat fabric sofa", "Oakline", ["home", "furniture"], 1099, 4.2, True, ["us", "eu"]),
    ("Linen bed sheets, king size", "Softnest", ["home", "bedroom"], 119, 4.5, True, ["us", "eu"]),
    ("Memory foam pillow", "Softnest", ["home", "bedroom"], 45, 4.1, True, ["us"]),
    ("Cast iron frying pan", "Kettleworks", ["home", "kitchen"], 39, 4.8, True, ["us", "eu"]),
    ("Stainless steel kettle", "Kettleworks", ["home", "kitchen"], 49.9, 4.3, True, ["eu", "uk"]),
    ("Espresso machine with milk frother", _ACCENT_BRAND, ["home", "kitchen"], 449, 4.6, True, ["us", "eu"]),
    ("Chef's knife, 20 cm", _QUOTED_BRAND, ["home", "kitchen"], 79, 4.7, True, ["us"]),
    ("Cheese board with slicer", _QUOTED_BRAND, ["home", "kitchen"], 34, 4, True, ["us", "eu"]),
    ("Instant camera with film", _QUOTED_BRAND, ["electronics", "photo"], 99, 4.1, True, ["us"]),
    ("Mirrorless camera, 24 megapixels", "Orbit", ["electronics", "photo"], 899, 4.7, True, ["us", "eu"]),
    ("Wooden building blocks for toddlers", "Tinyhands", ["toys", "baby"], 29, 4.8, True, ["us", "eu"]),
    ("Plush rabbit, washable", "Tinyhands", ["toys", "baby"], 19, 4.6, True, ["eu"]),
    ("Board game for the whole family", "Tinyhands", ["toys", "games"], 35, 4.5, True, ["us"]),
    ("Remote control racing car", "Volt", ["toys", "games"], 59, 3.6, False, ["us", "eu"]),
    ("Dry dog food with lamb, 12 kg", "Pawfield", ["pets", "food"], 54, 4.4, True, ["us"]),
    ("Cat scratching tree", "Pawfield", ["pets", "furniture"], 74, 4.2, True, ["us", "eu"]),
    ("Dark chocolate, 70 % cocoa", _ACCENT_BRAND, ["food", "sweets"], 3.5, 4.9, True, ["eu", "uk"]),
    ("Green tea, loose leaf", "Botanic Lab", ["food", "drinks"], 8.2, 4.5, True, ["us", "eu"]),
)  # fmt: skip

PRODUCTS: tuple[dict[str, Any], ...] = tuple(
    {
        "id": f"sku-{number}",
        "title": title,
        "brand": brand,
        "category": categories,
        "price": price,
        "rating": rating,
        "in_stock": in_stock,
        "region": regions,
        "image": {"src": f"/images/sku-{number}.svg", "alt": title},
    }
    for number, (title, brand, categories, price, rating, in_stock, regions) in enumerate(_ROWS, 1)
)


@dataclass(frozen=True)
class BuiltIndex:
    """The live index over PRODUCTS, for tests that need no database."""

    live: LiveIndex
    catalog: Path
    products: tuple[dict[str, Any], ...] = PRODUCTS


def insert_definition(
    endpoint: EndpointSpec,
    uri: str | Path,
    *,
    slug: str = SLUG,
    fields: Iterable[Mapping[str, Any]] = FIELDS,
    text_template: str = TEMPLATE,
    id_field: str = "id",
    **changes: Any,
) -> IndexDefinition:
    """Insert an endpoint, a source and a definition of that slug; ``changes`` go to the definition."""
    definition = IndexDefinition.objects.create(
        slug=slug,
        name=slug.capitalize(),
        endpoint=EmbeddingEndpoint.objects.create(
            **endpoint.model_dump(exclude={"slug"}), slug=f"{slug}-endpoint"
        ),
        source=CatalogSource.objects.create(
            slug=f"{slug}-catalog", uri=str(uri), text_template=text_template, id_field=id_field
        ),
        **changes,
    )
    for position, field in enumerate(fields):
        IndexField.objects.create(definition=definition, position=position, **field)
    return definition


@pytest.fixture(scope="session")
def built_index(
    django_db_setup: None,
    django_db_blocker: Any,
    endpoint_spec: EndpointSpec,
    tmp_path_factory: pytest.TempPathFactory,
) -> BuiltIndex:
    """An index over PRODUCTS, made by a real build. Only its rows in the database are gone again."""
    path = tmp_path_factory.mktemp("catalog") / "products.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in PRODUCTS), encoding="utf-8")
    with django_db_blocker.unblock(), transaction.atomic():
        build = builds.start(insert_definition(endpoint_spec, path))
        builds.run_to_end(build.pk)
        build.refresh_from_db()
        assert build.status == IndexBuild.Status.LIVE, build.error
        live = build.to_live()
        transaction.set_rollback(True)
    return BuiltIndex(live, path)


@pytest.fixture
def definition(db: None, built_index: BuiltIndex, endpoint_spec: EndpointSpec) -> IndexDefinition:
    """The rows of ``built_index``: a definition with a live build of the same physical index."""
    definition = insert_definition(endpoint_spec, built_index.catalog)
    items = len(PRODUCTS)
    definition.live_build = IndexBuild.objects.create(
        definition=definition,
        number=1,
        status=IndexBuild.Status.LIVE,
        spec=built_index.live.spec.model_dump(mode="json"),
        fingerprint=built_index.live.spec.fingerprint,
        probe=b64decode(built_index.live.probe),
        index_name=built_index.live.index_name,
        key_prefix=built_index.live.key_prefix,
        cursor=items,
        total_rows=items,
        written=items,
        embedded=items,
        indexed=items,
        finished_at=timezone.now(),
    )
    definition.save(update_fields=["live_build"])
    return definition


@pytest.fixture
def new_definition(
    db: None,
    namespace: str,
    settings: Any,
    endpoint_spec: EndpointSpec,
    catalog_file: Callable[[Iterable[Mapping[str, Any]]], Path],
) -> Callable[..., IndexDefinition]:
    """A factory of definitions to build under a namespace of the test's own.

    Takes rows or a path, and what ``insert_definition`` takes.
    """
    settings.VALKEY_NAMESPACE = namespace

    def make(
        rows: Iterable[Mapping[str, Any]] | Path | str = PRODUCTS, **changes: Any
    ) -> IndexDefinition:
        uri = rows if isinstance(rows, Path | str) else catalog_file(rows)
        endpoint = changes.pop("endpoint", endpoint_spec)
        return insert_definition(endpoint, uri, **changes)

    return make
