"""Builds of a test's own, and the results of their gates."""

from typing import Any

from indexes import builds
from indexes.models import IndexBuild, IndexDefinition


def built(definition: IndexDefinition) -> IndexBuild:
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    definition.refresh_from_db()
    assert build.status in (IndexBuild.Status.LIVE, IndexBuild.Status.READY), build.error
    return build


def gate(build: IndexBuild, name: str) -> Any:
    """The result of one gate. Untyped, as its numbers are there wherever a test compares them."""
    return build.gates.get(gate=name)
