"""Small documents, indexes and plans to test serving with; every argument has a default."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from enrichment.spec import SignalKind, SignalSpec, SourceSpec
from indexes.errors import EmbeddingError
from indexes.schema import CatalogSpec, EndpointSpec, FieldSpec, FieldType, IndexSpec, LiveIndex
from indexes.search import Hit
from surfaces.contracts import RecommendRequest, RecommendResponse
from surfaces.document import (
    DefaultItem,
    FilterSpec,
    PublishedSurface,
    RerankSpec,
    SurfaceDocument,
    TermKind,
    TermSpec,
)
from surfaces.pipeline import recommend
from surfaces.plan import Plan, compile_plan
from surfaces.pool import Pool
from surfaces.rerank.base import Candidate
from surfaces.stages import Stages
from tests.fakes.embedder import FakeEmbedder, vector_of
from tests.fakes.index import FakeIndex
from tests.fakes.sources import FakeSources

DIMENSION = 32
PRODUCTS: dict[str, dict[str, Any]] = {
    "s1": {"title": "red running shoes", "brand": "acme", "category": ["shoes", "sport"], "price": 50, "rating": 4.5, "in_stock": "true", "region": ["us", "eu"]},
    "s2": {"title": "blue running shoes", "brand": "zen", "category": ["shoes"], "price": 80, "rating": 4.0, "in_stock": "true", "region": ["us"]},
    "s3": {"title": "leather walking shoes", "brand": "acme", "category": ["shoes"], "price": 120, "rating": 3.0, "in_stock": "false", "region": ["eu"]},
    "c1": {"title": "moisturizer cream for dry skin", "brand": "zen", "category": ["skin"], "price": 20, "rating": 4.8, "in_stock": "true", "region": ["us", "eu"]},
    "c2": {"title": "night cream for skin", "brand": "dew", "category": ["skin"], "price": 35, "rating": 4.1, "in_stock": "true", "region": ["us"]},
    "p1": {"title": "black toner cartridge", "brand": "inkjet", "category": ["office"], "price": 60, "in_stock": "true", "region": ["us"]},
}  # fmt: skip
FIELDS = (
    ("title", FieldType.TEXT, False),
    ("brand", FieldType.TAG, False),
    ("category", FieldType.TAG, True),
    ("price", FieldType.NUMERIC, False),
    ("rating", FieldType.NUMERIC, False),
    ("in_stock", FieldType.TAG, False),
    ("region", FieldType.TAG, True),
    ("image", FieldType.STORED, False),
)


def field(name: str) -> FieldSpec:
    return next(field for field in index_spec().fields if field.name == name)


def index_spec(**changes: Any) -> IndexSpec:
    values: dict[str, Any] = {
        "slug": "products",
        "endpoint": EndpointSpec(slug="words", endpoint_name="words", dimension=DIMENSION),
        "catalog": CatalogSpec(uri="products.jsonl", text_template="{title}"),
        "fields": tuple(
            FieldSpec(name=name, type=kind, source=name, multiple=multiple)
            for name, kind, multiple in FIELDS
        ),
    }
    return IndexSpec(**{**values, **changes})


def live_index(**changes: Any) -> LiveIndex:
    return LiveIndex(
        label="products-v1",
        index_name="x_products_v1",
        key_prefix="x:products:v1:",
        spec=index_spec(**changes),
    )


def document(**changes: Any) -> SurfaceDocument:
    values: dict[str, Any] = {
        "slug": "shelf",
        "name": "Shelf",
        "index": "products",
        "candidates": 5,
        "limit": 3,
        "max_limit": 5,
        "deadline_ms": 5000,
        "fields": ("title", "price"),
    }
    return SurfaceDocument(**{**values, **changes})


def source(slug: str = "prefs", *signals: str, **changes: Any) -> SourceSpec:
    """A source of weight maps, or of numbers for names that end in ``_n``."""
    values: dict[str, Any] = {
        "slug": slug,
        "table": slug,
        "key_template": "USER#{user_id}",
        "timeout_ms": 5000,
        "signals": tuple(
            SignalSpec(
                name=name,
                attribute=name,
                kind=SignalKind.NUMBER if name.endswith("_n") else SignalKind.WEIGHTS,
            )
            for name in signals or ("liked",)
        ),
    }
    return SourceSpec(**{**values, **changes})


def static(field: str, *values: str, operator: str = "any_of") -> FilterSpec:
    return FilterSpec(field=field, operator=operator, values=values)


def bound(field: str, key: str, *, operator: str = "any_of", missing: str = "skip") -> FilterSpec:
    return FilterSpec(
        field=field, operator=operator, value_from="context", key=key, when_missing=missing
    )


def opened(field: str, *, missing: str = "skip") -> FilterSpec:
    return FilterSpec(field=field, value_from="caller", when_missing=missing)


def linear(*terms: TermSpec) -> RerankSpec:
    return RerankSpec(kind="linear", terms=terms)


def similar(weight: float = 1.0) -> TermSpec:
    return TermSpec(kind=TermKind.SIMILARITY, weight=weight)


def by_field(name: str, weight: float = 1.0) -> TermSpec:
    return TermSpec(kind=TermKind.FIELD, weight=weight, field=name)


def by_signal(name: str, weight: float = 1.0, field: str = "") -> TermSpec:
    return TermSpec(kind=TermKind.SIGNAL, weight=weight, name=name, field=field)


def default_items(*ids: str) -> tuple[DefaultItem, ...]:
    return tuple(DefaultItem(id=item_id, fields=PRODUCTS[item_id]) for item_id in ids)


def plan(
    *, index: LiveIndex | None = None, defaults: Iterable[str] = ("c1", "s1"), **changes: Any
) -> Plan:
    published = PublishedSurface(
        revision=7,
        document=document(**changes),
        default_items=default_items(*defaults),
        default_items_at=datetime.now(UTC),
    )
    return compile_plan(published, index or live_index())


def fake_index(products: Mapping[str, Mapping[str, Any]] = PRODUCTS) -> FakeIndex:
    return FakeIndex(
        {
            item_id: (vector_of(fields["title"], DIMENSION), fields)
            for item_id, fields in products.items()
        }
    )


class Fakes:
    """A pipeline over fakes: change them, then ``ask``."""

    def __init__(self, threads: int = 8) -> None:
        self.embedder = FakeEmbedder()
        self.index = fake_index()
        self.sources = FakeSources()
        self.pool = Pool(threads)
        self.refused: Mapping[str, EmbeddingError] = {}

    @property
    def stages(self) -> Stages:
        return Stages(
            embed=self.embedder.embed,
            knn=self.index.knn,
            browse=self.index.browse,
            vectors=self.index.vectors,
            fetch=self.sources.fetch,
            pool=self.pool,
            refused=self.refused,
        )

    def ask(self, plan: Plan, **request: Any) -> RecommendResponse:
        return recommend(plan, RecommendRequest(**request), self.stages, request_id="r1")


def ids(response: RecommendResponse) -> list[str]:
    return [item.id for item in response.items]


def candidate(item_id: str, rank: int, similarity: float | None = None, **fields: Any) -> Candidate:
    return Candidate(Hit(item_id, None, fields), rank, similarity)
