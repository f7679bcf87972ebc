"""Small builds over an embedding container that answers at once."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.indexes.containers import Container
from tests.indexes.validation.words import ENDPOINT, FIELDS, embedder, rows


@pytest.fixture
def words(container: Container) -> Container:
    """A container that embeds texts by their words."""
    container.respond = embedder()
    return container


@pytest.fixture
def index(words: Container, new_definition: Callable[..., Any]) -> Any:
    """A factory of definitions over the container's endpoint."""

    def make(items: Any = 60, **changes: Any) -> Any:
        changes = {"endpoint": ENDPOINT, "fields": FIELDS, "text_template": "{title}", **changes}
        return new_definition(rows(items) if isinstance(items, int) else items, **changes)

    return make
