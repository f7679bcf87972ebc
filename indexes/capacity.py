"""The capacity planner: the memory of an index against the server's, and against what builds measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from indexes.errors import SearchError
from indexes.fleet import sample, server
from indexes.fleet.costs import Engine, Estimate, estimate
from indexes.fleet.server import ServerFacts
from indexes.limits import NEAR_FULL, in_words
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import IndexSpec

# Where nothing is known of the source: a number to see an order of magnitude by.
ASSUMED_ITEMS = 100_000
COMPARED_BUILDS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """A build of the index: bytes as it measured them, and as they are estimated for its items."""

    label: str
    items: int
    measured: int
    predicted: int

    @property
    def off_percent(self) -> int:
        """Return how far the estimate is above what was measured."""
        return round(100 * (self.predicted - self.measured) / self.measured)


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of an index. ``facts`` is None where the server did not answer."""

    items: int
    items_from: str
    sampled: bool
    engine: Engine
    one: Estimate
    facts: ServerFacts | None
    standing: bool
    measured: tuple[Measured, ...]

    @property
    def free(self) -> int | None:
        """Return the bytes that may still be used, with a margin that is kept free."""
        if self.facts is None or not self.facts.memory.total:
            return None
        memory = self.facts.memory
        return max(0, int(memory.total * NEAR_FULL) - memory.used)

    @property
    def to_come(self) -> int:
        """Return the bytes that an upgrade adds: one build beside a live one, else both."""
        return self.one.total if self.standing else 2 * self.one.total

    @property
    def fits(self) -> bool | None:
        """Tell whether one more build fits; None where the server's memory is not known."""
        return None if self.free is None else self.one.total <= self.free

    @property
    def both_fit(self) -> bool | None:
        """Tell whether two builds at once fit, as an upgrade needs."""
        return None if self.free is None else self.to_come <= self.free

    def sentence(self) -> str:
        """Return the outcome in words."""
        if self.free is None or self.facts is None:
            return "The server does not tell its memory, so whether it suffices is not known."
        memory = self.facts.memory
        over = " over all primaries" if self.facts.nodes > 1 else ""
        limit = "maxmemory" if memory.limit else "its memory, as no maxmemory is set"
        room = (
            f"{in_words(memory.used)} of {in_words(memory.total)} ({limit}{over}) are used; "
            f"{1 - NEAR_FULL:.0%} is kept free"
        )
        if not self.fits:
            return f"A build does not fit: {room}. It needs {in_words(self.one.total)}."
        if not self.both_fit:
            return (
                f"One build fits, but not two at once, as an upgrade needs: {room}. "
                f"Both need {in_words(2 * self.one.total)}."
            )
        beside = "beside the live one " if self.standing else "and a second one beside it "
        return f"A build {beside}fits: {room}."


def plan(
    spec: IndexSpec, *, items: int | None = None, definition: IndexDefinition | None = None
) -> Plan:
    """Return the plan of an index. ``items``: as typed, else counted in the source.

    Never raises for a source that cannot be read or a server that is away: the plan says so.
    """
    try:
        facts = server.facts()
    except SearchError:
        facts = None
    engine: Engine = "valkey-search"
    if facts is not None and facts.engine.name == "redisearch":
        engine = "redisearch"
    shape, sampled = sample.shape(spec, settings.VALKEY_NAMESPACE)
    number, source = _items(spec, items, definition)
    return Plan(
        items=number,
        items_from=source,
        sampled=sampled,
        engine=engine,
        one=estimate(shape, number, engine),
        facts=facts,
        standing=definition is not None and definition.live_build_id is not None,
        measured=() if definition is None else tuple(_measured(definition, engine)),
    )


def of_build(build: IndexBuild, engine: Engine) -> int:
    """Return the bytes of a build by its frozen spec, from the source as it is now."""
    shape, _ = sample.shape(build.to_spec(), settings.VALKEY_NAMESPACE)
    return estimate(shape, build.indexed or build.written, engine).total


def _items(
    spec: IndexSpec, items: int | None, definition: IndexDefinition | None
) -> tuple[int, str]:
    if items is not None:
        return items, "as you typed"
    if counted := sample.count(spec.catalog):
        return counted, "counted in the source"
    live = definition.live_build if definition is not None else None
    if live is not None and live.indexed:
        return live.indexed, f"as in {live.label}"
    return ASSUMED_ITEMS, "assumed, as the source cannot be counted here"


def _measured(definition: IndexDefinition, engine: Engine) -> Sequence[Measured]:
    known = definition.builds.exclude(memory_bytes=None).exclude(memory_bytes=0)
    return [
        Measured(build.label, build.indexed, build.memory_bytes, of_build(build, engine))
        for build in known.order_by("-number")[:COMPARED_BUILDS]
        if build.memory_bytes and build.indexed
    ]
