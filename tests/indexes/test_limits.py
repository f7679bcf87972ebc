"""The limits of servers, by what they say of themselves."""

from typing import Any

import pytest
from django.test import override_settings

from indexes import limits
from indexes.commands import EngineFacts
from indexes.fleet.server import Memory, ServerFacts, read_facts
from indexes.limits import Fleet
from indexes.models import IndexDefinition
from indexes.schema import FieldType, IndexSpec
from tests.indexes.conftest import field, spec_of

GB = 10**9


def facts(
    engine: str | None = "valkey-search",
    search: str = "1.2.1",
    version: tuple[int, ...] = (9, 1, 0),
    managed: str = "",
    used: int = GB,
    limit: int = 8 * GB,
    policy: str = "noeviction",
    evicted: int = 0,
) -> ServerFacts:
    memory = Memory(used=used, limit=limit, system=64 * GB, policy=policy, evicted=evicted)
    return ServerFacts(EngineFacts(engine, search), version, managed, 1, memory)


ELASTICACHE = facts(search="", version=(8, 2, 0), managed="ElastiCache")
PLAIN = facts()
DEVELOPMENT = facts("redisearch", "2.10.5")


def tags(count: int) -> IndexSpec:
    spec: IndexSpec = spec_of(field(f"f{n}", FieldType.TAG) for n in range(count))
    return spec


WITH_TEXT = spec_of([field("title", FieldType.TEXT), field("note", FieldType.TEXT)])


@pytest.mark.parametrize(
    ("spec", "server", "indexes", "words"),
    [
        (tags(3), PLAIN, 2, []),
        (tags(3), ELASTICACHE, 2, []),
        # The vector is a field too.
        (tags(49), ELASTICACHE, 0, []),
        (tags(50), ELASTICACHE, 0, ["50 fields in an index, and this one has 51"]),
        (tags(999), PLAIN, 0, []),
        (tags(1000), PLAIN, 0, ["1,000 fields"]),
        (tags(3), ELASTICACHE, 10, ["holds 10 indexes and takes no more"]),
        (tags(3), PLAIN, 1000, ["takes no more"]),
        (WITH_TEXT, PLAIN, 0, []),
        (WITH_TEXT, ELASTICACHE, 0, ['no TEXT fields: make "title" and "note"']),
        (WITH_TEXT, facts(version=(8, 1, 4)), 0, ["no TEXT"]),
        (WITH_TEXT, facts(version=(9, 0, 0)), 0, ["no TEXT"]),
        (WITH_TEXT, facts(version=(9, 0, 1)), 0, []),
        (WITH_TEXT, facts(search="1.1.0"), 0, ["no TEXT"]),
        (WITH_TEXT, DEVELOPMENT, 0, []),
        (tags(2000), DEVELOPMENT, 5000, []),
        (spec_of([field("x", FieldType.STORED)] * 60), ELASTICACHE, 0, []),
    ],
)  # fmt: skip
def test_what_a_server_would_refuse(
    spec: IndexSpec, server: ServerFacts, indexes: int, words: list[str]
):
    said = limits.refusals(spec, Fleet(server, indexes))
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True)), said


@pytest.mark.parametrize(
    ("spec", "server", "indexes", "words"),
    [
        (tags(3), PLAIN, 2, []),
        (tags(3), ELASTICACHE, 7, []),
        (tags(3), ELASTICACHE, 8, ["8 of 10 indexes"]),
        (tags(3), ELASTICACHE, 9, ["9 of 10 indexes"]),
        (tags(38), ELASTICACHE, 0, []),
        (tags(39), ELASTICACHE, 0, ["40 of the 50 fields"]),
        (WITH_TEXT, DEVELOPMENT, 0, ["ElastiCache for Valkey 8.2 has none"]),
        # The version of its engine is not known.
        (WITH_TEXT, facts(search=""), 0, ["need valkey-search 1.2"]),
        (tags(60), DEVELOPMENT, 0, ["61 fields with the vector"]),
    ],
)
def test_what_is_said_before_a_limit_bites(
    spec: IndexSpec, server: ServerFacts, indexes: int, words: list[str]
):
    said = limits.of_spec(spec, Fleet(server, indexes))
    assert len(said) == len(words), said
    assert all(word in sentence for word, sentence in zip(words, said, strict=True)), said


@pytest.mark.parametrize(
    ("server", "full", "evicts"),
    [
        (PLAIN, "", ""),
        (facts(used=7 * GB), "88% full. Above maxmemory valkey-search refuses searches", ""),
        (facts(used=60 * GB, limit=0), "No maxmemory is set", ""),
        (facts(policy="allkeys-lru", evicted=1200), "", "1,200 keys went"),
        (facts(policy="volatile-ttl"), "", "noeviction"),
    ],
)
def test_memory_that_runs_out(server: ServerFacts, full: str, evicts: str):
    assert full in limits.memory_warning(server)
    assert evicts in limits.policy_warning(server)
    assert bool(full) == bool(limits.memory_warning(server))
    assert bool(evicts) == bool(limits.policy_warning(server))


INFO: dict[str, Any] = {
    "valkey_version": "8.2.1",
    "redis_version": "7.2.4",
    "os": "Amazon ElastiCache",
    "used_memory": 100,
    "maxmemory": 1000,
    "total_system_memory": 5000,
    "maxmemory_policy": "noeviction",
    "evicted_keys": 1,
}


def test_the_primaries_of_a_cluster_are_summed_up():
    other = INFO | {"maxmemory_policy": "allkeys-lfu"}
    found = read_facts(EngineFacts("valkey-search", ""), [INFO, other])
    assert found.managed == "ElastiCache"
    assert found.version == (8, 2, 1)
    assert found.memory == Memory(200, 2000, 10_000, "allkeys-lfu", 2)
    assert found.memory.free == 1800
    assert limits.limits_of(found).indexes == 10
    # A node without a limit takes all that its machine has.
    unlimited = read_facts(EngineFacts("valkey-search", ""), [INFO, INFO | {"maxmemory": 0}])
    assert (unlimited.memory.limit, unlimited.memory.total) == (0, 10_000)


def test_a_server_that_tells_little_is_read():
    found = read_facts(EngineFacts(None, ""), [{"redis_version": "7.2.4"}])
    assert found.memory.total == 0
    assert limits.memory_warning(found) == ""
    assert limits.limits_of(found).indexes is None


@pytest.mark.django_db
def test_the_warnings_of_an_index_come_from_its_server(definition: IndexDefinition):
    limits.forget()
    said = limits.warnings(definition)
    limits.forget()
    # The text field of the demo schema, where production may have none.
    assert any('"title"' in sentence for sentence in said) or said == []
    with override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=False):
        assert limits.warnings(definition) == []
        assert limits.refusals(definition.to_spec()) == []
