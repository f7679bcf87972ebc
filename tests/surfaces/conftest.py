"""A surface to publish over the real index, and the registry that serves it.

Models are imported inside fixtures: this file is read before Django is set up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from indexes.models import IndexDefinition
    from surfaces.models import Surface, SurfaceFilter
    from surfaces.registry import Registry


@pytest.fixture
def surface(definition: IndexDefinition) -> Surface:
    """A draft that can be published."""
    from surfaces.models import Surface

    return Surface.objects.create(
        slug="shelf",
        name="Shelf",
        index=definition,
        fields=["title", "price"],
        browse_field="rating",
        deadline_ms=5000,
    )


@pytest.fixture
def add_filter(surface: Surface) -> Callable[..., SurfaceFilter]:
    """A factory of filters of the draft."""
    from surfaces.models import SurfaceFilter

    def add(field: str, *values: str, **changes: Any) -> SurfaceFilter:
        return SurfaceFilter.objects.create(
            surface=surface, field=field, values="\n".join(values), **changes
        )

    return add


@pytest.fixture
def own_snapshot(namespace: str, settings: Any) -> None:
    """What is published or revoked is pushed under a key of its own: not over that of other tests."""
    settings.VALKEY_NAMESPACE = namespace


@pytest.fixture
def serving(own_snapshot: None) -> Iterator[Registry]:
    """A registry of its own on a snapshot of its own: ``refresh`` it after a push."""
    from surfaces.registry import Registry

    registry = Registry()
    yield registry
    registry.stop()


class Outage:
    """While ``begin`` was called and ``end`` was not, nobody answers at Valkey's address."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._url = settings.VALKEY_URL

    def begin(self) -> None:
        # No service ever listens on port 1.
        self._settings.VALKEY_URL = "valkey://127.0.0.1:1/0"

    def end(self) -> None:
        self._settings.VALKEY_URL = self._url


@pytest.fixture
def outage(settings: Any) -> Outage:
    """An outage of Valkey to begin and end."""
    return Outage(settings)
