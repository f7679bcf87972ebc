"""The demo's rows: endpoint, catalog, index, enrichment sources, rerankers, surfaces.

``ensure`` makes what is missing and leaves the rest alone, so that what somebody
tries out in the admin survives the next start; with ``reset`` every demo row is
put back to what is written here.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from django.conf import settings
from django.db import models, transaction

from enrichment.dynamodb import create_table, put_items
from enrichment.models import EnrichmentSource, Signal
from enrichment.spec import SignalKind
from indexes.models import CatalogSource, EmbeddingEndpoint, IndexDefinition, IndexField
from indexes.schema import FieldType
from recplatform.demo import catalog, users
from surfaces.document import Operator, TermKind, ValueFrom
from surfaces.models import Reranker, RerankTerm, Surface, SurfaceFilter

INDEX = "products"
CATALOG_PATH = settings.BASE_DIR / ".local" / "demo-products.jsonl.gz"
TEXT_TEMPLATE = "{title}. {brand}, {category}. {description}"

# The demo's servers share a machine of perhaps two cores with the builds and the
# browser: the defaults, of 100 ms and 50 ms, are for a storefront's own machines.
DEADLINE_MS = 300
SOURCE_TIMEOUT_MS = 150

INDEX_FIELDS: dict[str, tuple[FieldType, dict[str, Any]]] = {
    "title": (FieldType.TEXT, {}),
    "description": (FieldType.STORED, {}),
    "brand": (FieldType.TAG, {}),
    "category": (FieldType.TAG, {}),
    "price": (FieldType.NUMERIC, {}),
    "list_price": (FieldType.NUMERIC, {}),
    "discount": (FieldType.NUMERIC, {}),
    "rating": (FieldType.NUMERIC, {}),
    "popularity": (FieldType.NUMERIC, {}),
    "stock": (FieldType.NUMERIC, {}),
    "in_stock": (FieldType.TAG, {}),
    "region": (FieldType.TAG, {"multiple": True, "source_path": "regions"}),
    "image": (FieldType.STORED, {}),
}

# Slug of a source: its table, its key and its signals, each with the attribute it is read from.
SOURCES: dict[str, tuple[str, str, dict[str, str]]] = {
    "shoppers": (
        users.USERS_TABLE,
        "USER#{user_id}",
        {
            "brand_affinity": "affinities.brand",
            "category_affinity": "affinities.category",
            "recent_items": "recent",
        },
    ),
    "trending": (users.TRENDS_TABLE, "TRENDING#{region}", {"trending": "items"}),
    "deals": (users.TRENDS_TABLE, "DEALS#{region}", {"deals": "items"}),
}

# Each term: kind, signal, field, weight.
RERANKERS: dict[str, tuple[str, tuple[tuple[TermKind, str, str, float], ...]]] = {
    "relevance-first": (
        "Relevance first, then taste",
        (
            (TermKind.SIMILARITY, "", "", 1.0),
            (TermKind.SIGNAL, "brand_affinity", "brand", 0.1),
            (TermKind.SIGNAL, "category_affinity", "category", 0.08),
            (TermKind.FIELD, "", "popularity", 0.06),
            (TermKind.SIGNAL, "trending", "", 0.05),
        ),
    ),
    "alike": (
        "Most alike, well rated",
        (
            (TermKind.SIMILARITY, "", "", 1.0),
            (TermKind.FIELD, "", "rating", 0.06),
            (TermKind.SIGNAL, "brand_affinity", "brand", 0.05),
        ),
    ),
    "taste-first": (
        "Taste first",
        (
            (TermKind.SIMILARITY, "", "", 0.6),
            (TermKind.SIGNAL, "category_affinity", "category", 0.2),
            (TermKind.SIGNAL, "brand_affinity", "brand", 0.2),
            (TermKind.FIELD, "", "popularity", 0.15),
            (TermKind.SIGNAL, "trending", "", 0.15),
        ),
    ),
    "best-deals": (
        "Best deals for this shopper",
        (
            (TermKind.FIELD, "", "discount", 0.5),
            (TermKind.SIGNAL, "deals", "", 0.5),
            (TermKind.SIGNAL, "category_affinity", "category", 0.6),
            (TermKind.SIGNAL, "brand_affinity", "brand", 0.4),
            (TermKind.FIELD, "", "popularity", 0.2),
        ),
    ),
}

_IN_STOCK = {"field": "in_stock", "value_from": ValueFrom.STATIC, "values": "true"}
_IN_REGION = {"field": "region", "value_from": ValueFrom.CONTEXT, "key": "region"}
_BIG_DISCOUNT = {
    "field": "discount",
    "operator": Operator.AT_LEAST,
    "value_from": ValueFrom.STATIC,
    "values": "10",
}


def _open_to_callers(*fields: str) -> list[dict[str, Any]]:
    return [{"field": field, "value_from": ValueFrom.CALLER} for field in fields]


SURFACES: dict[str, dict[str, Any]] = {
    "search-carousel": {
        "name": "Search carousel",
        "description": "What a shopper searched for, in the order of their taste.",
        "sources": ["shoppers", "trending"],
        "reranker": "relevance-first",
        "browse_field": "popularity",
        "filters": [
            _IN_STOCK,
            _IN_REGION,
            *_open_to_callers("category", "brand", "price", "rating", "in_stock"),
        ],
    },
    "similar-items": {
        "name": "Similar items",
        "description": "Products like the one on the page.",
        "sources": ["shoppers"],
        "reranker": "alike",
        "browse_field": "popularity",
        "filters": [_IN_STOCK, _IN_REGION, *_open_to_callers("category", "brand", "price")],
    },
    "home-row": {
        "name": "Home row",
        "description": "For a shopper without a query: close to recent views, else what is popular.",
        "sources": ["shoppers", "trending"],
        "reranker": "taste-first",
        "seed_signal": "recent_items",
        "browse_field": "popularity",
        "candidates": 200,
        "filters": [_IN_STOCK, _IN_REGION, *_open_to_callers("category", "price")],
    },
    "deals-row": {
        "name": "Deals row",
        "description": "Reduced by 10 % or more, this shopper's categories and brands first.",
        "sources": ["shoppers", "deals"],
        "reranker": "best-deals",
        "browse_field": "discount",
        "candidates": 500,
        "filters": [_IN_STOCK, _IN_REGION, _BIG_DISCOUNT, *_open_to_callers("category", "price")],
    },
}

Row = TypeVar("Row", bound=models.Model)


def load_stores() -> tuple[int, int]:
    """Write the catalog file and the DynamoDB tables; return how many products and shoppers."""
    products = catalog.write(CATALOG_PATH)
    for table in (users.USERS_TABLE, users.TRENDS_TABLE):
        create_table(table)
    put_items(users.TRENDS_TABLE, users.trend_items())
    return products, put_items(users.USERS_TABLE, users.user_items())


@transaction.atomic
def ensure(*, reset: bool) -> tuple[IndexDefinition, list[Surface]]:
    """Return the demo's index, and the surfaces that this call made or put back."""
    index = _index(reset)
    sources = {slug: _source(slug, reset) for slug in SOURCES}
    rerankers = {slug: _reranker(slug, reset) for slug in RERANKERS}
    written_surfaces = []
    for slug, content in SURFACES.items():
        values = {key: content[key] for key in content.keys() - {"filters", "sources"}}
        values |= {"index": index, "reranker": rerankers[content["reranker"]]}
        surface, written = _row(Surface, slug, reset, deadline_ms=DEADLINE_MS, **values)
        if written:
            surface.sources.set(sources[source] for source in content["sources"])
            _replace(surface.filters, (SurfaceFilter(**row) for row in content["filters"]))
            written_surfaces.append(surface)
    return index, written_surfaces


def _index(reset: bool) -> IndexDefinition:
    endpoint, _ = _row(EmbeddingEndpoint, "minilm", reset, endpoint_name=settings.DEMO_ENDPOINT)
    source, _ = _row(
        CatalogSource,
        "demo-products",
        reset,
        uri=str(CATALOG_PATH),
        id_field="sku",
        text_template=TEXT_TEMPLATE,
    )
    index, written = _row(
        IndexDefinition, INDEX, reset, name="Products", endpoint=endpoint, source=source
    )
    if written:
        fields = (
            IndexField(name=name, type=type_, **options)
            for name, (type_, options) in INDEX_FIELDS.items()
        )
        _replace(index.fields, fields)
    return index


def _source(slug: str, reset: bool) -> EnrichmentSource:
    table, key, signals = SOURCES[slug]
    source, written = _row(
        EnrichmentSource,
        slug,
        reset,
        table=table,
        key_template=key,
        timeout_ms=SOURCE_TIMEOUT_MS,
    )
    if written:
        rows = (
            Signal(name=name, attribute=attribute, kind=SignalKind.WEIGHTS)
            for name, attribute in signals.items()
        )
        _replace(source.signals, rows)
    return source


def _reranker(slug: str, reset: bool) -> Reranker:
    name, terms = RERANKERS[slug]
    reranker, written = _row(Reranker, slug, reset, name=name, kind=Reranker.Kind.LINEAR)
    if written:
        rows = (
            RerankTerm(kind=kind, signal=signal, field=field, weight=weight)
            for kind, signal, field, weight in terms
        )
        _replace(reranker.terms, rows)
    return reranker


def _row(model: type[Row], slug: str, reset: bool, **values: Any) -> tuple[Row, bool]:
    """Return the row of that slug, and whether this call wrote it."""
    rows = model._default_manager
    if reset:
        return rows.update_or_create(slug=slug, defaults={**_defaults(model), **values})[0], True
    return rows.get_or_create(slug=slug, defaults=values)


def _defaults(model: type[models.Model]) -> dict[str, Any]:
    """Return what a new row has in every field that a form could change."""
    return {
        field.name: field.get_default()
        for field in model._meta.concrete_fields
        if field.editable and not field.primary_key and field.name != "slug"
    }


def _replace(related: Any, rows: Iterable[models.Model]) -> None:
    """Put these rows, in this order, in the place of those there are."""
    related.all().delete()
    for position, row in enumerate(rows):
        row.position = position  # type: ignore[attr-defined]  # signals have no order and ignore it
        related.add(row, bulk=False)
