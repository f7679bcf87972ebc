"""The doctor: what the engine holds against what the database says, and a repair for each difference.

``examine`` only looks. ``repair`` mends one finding after looking at it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from indexes import capacity, limits
from indexes.errors import SearchError
from indexes.fleet import holdings, surroundings
from indexes.fleet.costs import Engine
from indexes.fleet.findings import Finding, Kind, Severity
from indexes.fleet.holdings import Holdings
from indexes.fleet.repairs import REPAIRABLE, repair
from indexes.fleet.server import ServerFacts
from indexes.models import IndexBuild, IndexDefinition

__all__ = [
    "REPAIRABLE",
    "BuildMemory",
    "Finding",
    "Kind",
    "Report",
    "Severity",
    "examine",
    "repair",
]

# Keys are counted for so long: some millions of them.
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """A build in the engine: bytes as it measured them, else as estimated; None where it has no items."""

    build: IndexBuild
    items: int
    bytes: int | None
    measured: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``complete`` is False when the time did not suffice for all keys."""

    findings: tuple[Finding, ...]
    builds: tuple[BuildMemory, ...]
    facts: ServerFacts | None
    complete: bool
    error: str = ""

    @property
    def total_bytes(self) -> int:
        return sum(row.bytes or 0 for row in self.builds)

    def sentence(self) -> str:
        """Return the outcome in words."""
        if self.error:
            return f"The engine could not be looked at. {self.error}"
        part = "" if self.complete else " Only part of the keys were looked at: give it more time."
        if not self.findings:
            return f"All is as it should be: {len(self.builds):,} builds in the engine.{part}"
        errors = sum(finding.severity == Severity.ERROR for finding in self.findings)
        return f"{len(self.findings):,} findings, {errors:,} of them serious.{part}"


def examine(seconds: float = SECONDS, *, endpoints: bool = True) -> Report:
    """Look at the engine, its surroundings and the builds, and return what is not as it should be.

    Keys are counted for about ``seconds``. With ``endpoints`` that of each live build embeds
    one text. A server that does not answer is a report with an error.
    """
    try:
        fleet = limits.look()
        held = holdings.look(seconds)
        found = list(holdings.findings(held))
    except SearchError as error:
        return Report((), (), None, complete=False, error=str(error))
    found += surroundings.of_replicas()
    found += surroundings.of_server(
        fleet, IndexDefinition.objects.select_related("endpoint", "source")
    )
    if endpoints:
        found += surroundings.of_endpoints(held.builds)
    engine: Engine = "redisearch" if fleet.facts.engine.name == "redisearch" else "valkey-search"
    found.sort(key=lambda finding: finding.severity != Severity.ERROR)
    return Report(
        findings=tuple(found),
        builds=tuple(_memory(held, build, engine) for build in held.builds if _there(held, build)),
        facts=fleet.facts,
        complete=held.keys.complete,
    )


def _there(held: Holdings, build: IndexBuild) -> bool:
    return build.index_name in held.states or bool(held.keys.counts[build.key_prefix])


def _memory(held: Holdings, build: IndexBuild, engine: Engine) -> BuildMemory:
    state = held.states.get(build.index_name)
    items = state.num_docs if state is not None else held.keys.counts[build.key_prefix]
    if build.memory_bytes:
        return BuildMemory(build, items, build.memory_bytes, measured=True)
    estimated = capacity.of_build(build, engine) if items else None
    return BuildMemory(build, items, estimated, measured=False)
