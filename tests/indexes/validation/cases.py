"""Builds of a test's own, and the results of their gates."""

from indexes import builds
from indexes.models import GateResult, IndexBuild, IndexDefinition


def built(definition: IndexDefinition) -> IndexBuild:
    build = builds.start(definition, enqueue=False)
    builds.run_to_end(build.pk)
    build.refresh_from_db()
    definition.refresh_from_db()
    assert build.status in (IndexBuild.Status.LIVE, IndexBuild.Status.READY), build.error
    return build


def gate(build: IndexBuild, name: str) -> GateResult:
    return build.gates.get(gate=name)
