"""A published surface without a search engine behind it, and a client that holds its key."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from django.test import Client

from indexes.schema import CatalogSpec, FieldSpec, FieldType, IndexSpec, LiveIndex
from indexes.valkey import VersionedDocument
from surfaces.digest import digest
from surfaces.document import (
    Canary,
    DefaultItem,
    FallbackMode,
    FilterSpec,
    KeyScope,
    PublishedSurface,
    Snapshot,
    SurfaceDocument,
    ValueFrom,
)
from surfaces.registry import document_key, registry

KEY = "rp_a-key-for-every-surface"
SCOPED_KEY = "rp_a-key-for-shelf-only"

Publish = Callable[..., None]


@dataclass
class Api:
    """Calls the API as a storefront does."""

    key: str | None = KEY
    client: Client = field(default_factory=Client)

    def post(self, slug: str, body: Any, **headers: str) -> Any:
        return self.send(f"/api/v1/surfaces/{slug}/recommendations", orjson.dumps(body), **headers)

    def page(self, body: Any, **headers: str) -> Any:
        return self.send("/api/v1/recommendations", orjson.dumps(body), **headers)

    def send(
        self, path: str, body: bytes, content_type: str = "application/json", **headers: str
    ) -> Any:
        return self.client.post(
            path, body, content_type=content_type, headers=self._headers(headers)
        )

    def get(self, slug: str, query: str = "", **headers: str) -> Any:
        return self.client.get(
            f"/api/v1/surfaces/{slug}/recommendations",
            headers=self._headers(headers),
            QUERY_STRING=query,
        )

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        own = {} if self.key is None else {"Authorization": f"Api-Key {self.key}"}
        return own | {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def api() -> Api:
    return Api()


def publish_snapshot(
    *surfaces: PublishedSurface,
    indexes: Mapping[str, LiveIndex] | None = None,
    canaries: Mapping[str, Canary] | None = None,
    keys: Mapping[str, KeyScope] | None = None,
) -> None:
    """Replace all that is published in this worker, by the way every process takes it."""
    stored = VersionedDocument(document_key())
    version = 1 + max(stored.version() or 0, registry.version, time.time_ns() // 1_000_000)
    snapshot = Snapshot(
        version=version,
        surfaces={surface.document.slug: surface for surface in surfaces},
        indexes=dict(indexes or {}),
        canaries=dict(canaries or {}),
        keys=dict(keys if keys is not None else KEYS),
    )
    assert stored.publish(version, snapshot.model_dump_json().encode())
    until = time.monotonic() + 5
    while registry.version != version and time.monotonic() < until:
        registry.refresh()
    assert registry.version == version


@pytest.fixture
def publish() -> Publish:
    return publish_snapshot


KEYS = {
    digest(KEY): KeyScope(name="everything"),
    digest(SCOPED_KEY): KeyScope(name="shelf only", surfaces=("shelf",)),
}


def surface(slug: str = "shelf", **document: Any) -> PublishedSurface:
    """A surface of an index that has no live build: it serves its default list."""
    values = {
        "slug": slug,
        "name": slug.title(),
        "index": "things",
        "candidates": 20,
        "limit": 3,
        "max_limit": 5,
        "deadline_ms": 500,
        "fields": ("title", "price"),
        "browse_field": "price",
    }
    return PublishedSurface(
        revision=7,
        document=SurfaceDocument.model_validate(values | document),
        default_items=tuple(
            DefaultItem(id=f"d{n}", fields={"title": f"Default {n}", "price": n, "category": "a"})
            for n in range(1, 7)
        ),
    )


def failing(slug: str = "strict") -> PublishedSurface:
    """A surface that answers 503 instead of a default list."""
    return surface(slug, fallback=FallbackMode.FAIL)


def open_to_callers(*fields: str) -> tuple[FilterSpec, ...]:
    return tuple(FilterSpec(field=name, value_from=ValueFrom.CALLER) for name in fields)


@pytest.fixture
def gone_index(namespace: str, endpoint_spec: Any) -> LiveIndex:
    """An index whose spec is known and which the engine has lost."""
    return LiveIndex(
        label="things-v3",
        index_name=f"{namespace}_gone",
        key_prefix=f"{namespace}:gone:",
        spec=IndexSpec(
            slug="things",
            endpoint=endpoint_spec,
            catalog=CatalogSpec(uri="/nowhere.jsonl", text_template="{title}"),
            fields=(
                FieldSpec(name="title", type=FieldType.TEXT, source="title"),
                FieldSpec(name="category", type=FieldType.TAG, source="category"),
                FieldSpec(name="price", type=FieldType.NUMERIC, source="price"),
            ),
        ),
    )


@pytest.fixture
def shelf(publish: Publish) -> str:
    """The slug of a published surface that serves its default list."""
    publish(surface("shelf"), surface("other"), failing())
    return "shelf"


def assert_problem(response: Any, status: int, code: str, *fields: str) -> dict[str, Any]:
    """Check that the answer is a problem in the one shape there is, and return it."""
    assert response["Content-Type"] == "application/problem+json", response.content
    problem: dict[str, Any] = orjson.loads(response.content)
    assert (response.status_code, problem["code"]) == (status, code), problem
    check_problem(problem)
    assert response["X-Request-Id"] == problem["request_id"]
    assert tuple(error["field"] for error in problem["errors"]) == fields, problem
    return problem


def check_problem(problem: dict[str, Any]) -> None:
    """Check the shape of a problem object."""
    assert set(problem) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
    assert problem["type"] == f"urn:recplatform:problem:{problem['code']}"
    assert isinstance(problem["status"], int)
    assert problem["title"]
    assert problem["detail"]
    for error in problem["errors"]:
        assert set(error) == {"field", "code", "message"}
        assert error["code"] in {"required", "unknown", "invalid", "too_large", "not_open"}
        assert error["message"]
