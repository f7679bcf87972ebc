"""What a search server can take, and warnings before an index comes upon it.

Figures of valkey-search are those of its 1.2; ElastiCache documents smaller ones for its
vector search on Valkey 8.2. RediSearch, in development, has none that matter: what it
would accept and production may not is said as a hint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from indexes.errors import SearchError
from indexes.fleet import server
from indexes.fleet.server import ServerFacts
from indexes.models import IndexBuild, IndexDefinition
from indexes.schema import FieldType, IndexSpec
from indexes.valkey_client import read

# From this share of a limit on it is said.
NEAR: Final = 0.8
# From this share of the memory on, a warning: valkey-search refuses searches when it is full.
NEAR_FULL: Final = 0.85
# How long the answers of a server are taken for true, so that a page costs no round trips.
CACHE_S: Final = 30.0
# valkey-search accepts no larger K in a search.
MAX_KNN: Final = 10_000
MAX_DIMENSION: Final = 32_768
# TEXT fields need both.
TEXT_ENGINE: Final = (1, 2)
TEXT_VALKEY: Final = (9, 0, 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes. None: it sets no limit, or for ``text`` it is not known."""

    name: str
    indexes: int | None
    fields: int | None
    text: bool | None


ELASTICACHE: Final = Limits("ElastiCache for Valkey 8.2", indexes=10, fields=50, text=False)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A server at one moment: what it is, and how many indexes it holds, whoever made them."""

    facts: ServerFacts
    indexes: int


def limits_of(facts: ServerFacts) -> Limits:
    """Return the limits of a server."""
    if facts.managed and facts.version < (9,):
        return Limits(f"{facts.managed} for Valkey", 10, 50, text=False)
    if facts.engine.name == "valkey-search":
        return Limits(str(facts), 1000, 1000, text=_has_text(facts))
    return Limits(str(facts), None, None, text=True)


def look(timeout_s: float = server.TIMEOUT_S) -> Fleet:
    """Ask the server in use. Raises SearchError."""
    facts = server.facts(timeout_s)
    names = read(lambda servers: servers.run("FT._LIST"), timeout_s, fresh=True)
    return Fleet(facts, len(names))


def warnings(definition: IndexDefinition) -> list[str]:
    """Return what to know before the index comes upon a limit of its server, each a sentence.

    Empty where nothing is near, and where the server cannot be asked.
    """
    fleet = _recent()
    if fleet is None:
        return []
    return [*of_spec(definition.to_spec(), fleet), *_memory(definition, fleet)]


def of_spec(spec: IndexSpec, fleet: Fleet) -> list[str]:
    """Return the limits that an index is at or near on this server, each a sentence."""
    return [*refusals(spec, fleet), *_near(spec, fleet)]


def refusals(spec: IndexSpec, fleet: Fleet | None = None) -> list[str]:
    """Return why FT.CREATE cannot succeed on this server, each a sentence that names what to change.

    Empty where the server cannot be asked: the build says so itself.
    """
    fleet = fleet or _recent()
    if fleet is None:
        return []
    limits = limits_of(fleet.facts)
    found = []
    texts = [field.name for field in spec.fields if field.type == FieldType.TEXT]
    if texts and limits.text is False:
        found.append(
            f"{limits.name} has no TEXT fields: make {_names(texts)} a tag or stored, or move to "
            "valkey-search 1.2 on Valkey 9.0.1 or newer."
        )
    if limits.fields is not None and _searchable(spec) > limits.fields:
        found.append(
            f"{limits.name} takes {limits.fields:,} fields in an index, and this one has "
            f"{_searchable(spec):,} with its vector: make those that are only shown stored."
        )
    if limits.indexes is not None and fleet.indexes >= limits.indexes:
        found.append(
            f"{limits.name} holds {fleet.indexes:,} indexes and takes no more: retire a build "
            "that is kept, or remove what no build owns (manage.py indexes doctor)."
        )
    if spec.endpoint.dimension > MAX_DIMENSION:
        found.append(f"A vector has at most {MAX_DIMENSION:,} numbers.")
    return found


def memory_warning(facts: ServerFacts) -> str:
    """Return what is wrong with the server's memory as it is now; empty where nothing is."""
    memory = facts.memory
    share = memory.used / memory.total if memory.total else 0
    if memory.total and share >= NEAR_FULL:
        more = (
            "Above maxmemory valkey-search refuses searches as well as writes"
            if memory.limit
            else "No maxmemory is set, so the system would end the server"
        )
        return f"The server's memory is {share:.0%} full. {more}: give it more, or retire builds."
    return ""


def policy_warning(facts: ServerFacts) -> str:
    """Return what is wrong with the eviction policy; empty where nothing is."""
    memory = facts.memory
    if not memory.evicts:
        return ""
    gone = f" {memory.evicted:,} keys went that way already." if memory.evicted else ""
    return (
        f'maxmemory-policy is "{memory.policy}": when memory runs out, items vanish without an error. '
        f'Set it to "noeviction".{gone}'
    )


def _near(spec: IndexSpec, fleet: Fleet) -> list[str]:
    limits = limits_of(fleet.facts)
    found = []
    fields = _searchable(spec)
    if limits.fields is not None and limits.fields * NEAR <= fields <= limits.fields:
        found.append(
            f"{fields:,} of the {limits.fields:,} fields that {limits.name} takes are used, the vector "
            "counted."
        )
    if limits.indexes is not None and limits.indexes * NEAR <= fleet.indexes < limits.indexes:
        found.append(
            f"The server holds {fleet.indexes:,} of {limits.indexes:,} indexes. Each build is one, "
            "also while it waits or is kept for a roll back."
        )
    unsure = limits.text is None
    texts = [field.name for field in spec.fields if field.type == FieldType.TEXT]
    if texts and (unsure or fleet.facts.engine.name == "redisearch"):
        found.append(
            f"{_names(texts)}: TEXT fields need valkey-search 1.2 on Valkey 9.0.1 or newer in "
            f"production. {ELASTICACHE.name} has none."
        )
    if limits.fields is None and ELASTICACHE.fields is not None and fields > ELASTICACHE.fields:
        found.append(
            f"{fields:,} fields with the vector: {ELASTICACHE.name} takes {ELASTICACHE.fields}."
        )
    return found


def _memory(definition: IndexDefinition, fleet: Fleet) -> list[str]:
    found = [memory_warning(fleet.facts), policy_warning(fleet.facts)]
    memory = fleet.facts.memory
    live = definition.live_build
    need = (live.memory_bytes or 0) if live is not None else 0
    running = definition.builds.filter(status__in=IndexBuild.RUNNING).exists()
    if memory.total and not running and memory.free < need:
        found.append(
            f"The live build takes {in_words(need)} and {in_words(memory.free)} are free: the next build "
            "stands beside it, and would not fit."
        )
    return [sentence for sentence in found if sentence]


def in_words(size: float) -> str:
    """Return a number of bytes as people read it: ``41 MB``, ``1.3 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _has_text(facts: ServerFacts) -> bool | None:
    # A server that hides its modules does not tell the version of the engine.
    engine = tuple(int(part) for part in facts.engine.version.split(".") if part.isdigit())
    if (engine and engine < TEXT_ENGINE) or facts.version < TEXT_VALKEY:
        return False
    return True if engine else None


def _searchable(spec: IndexSpec) -> int:
    return 1 + sum(field.type != FieldType.STORED for field in spec.fields)


def _names(names: list[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


class _Recent:
    """The last answer of each server that was asked."""

    def __init__(self, ask: Callable[[], Fleet]) -> None:
        self._ask = ask
        self._answers: dict[str, tuple[float, Fleet | None]] = {}

    def __call__(self) -> Fleet | None:
        until, fleet = self._answers.get(settings.VALKEY_URL, (0.0, None))
        if time.monotonic() >= until:
            try:
                fleet = self._ask()
            except SearchError:
                fleet = None
            self._answers[settings.VALKEY_URL] = (time.monotonic() + CACHE_S, fleet)
        return fleet

    def forget(self) -> None:
        self._answers.clear()


_recent = _Recent(look)


def forget() -> None:
    """Ask the server anew at the next question, after it was changed."""
    _recent.forget()
