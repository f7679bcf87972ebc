"""What an index takes beside its keys, as each engine tells it."""

import pytest

from indexes.commands import read_memory

VALKEY_SEARCH = [
    b"index_name",
    b"i",
    b"attributes",
    [
        [b"identifier", b"kind", b"user_indexed_memory", 200, b"type", b"TAG", b"SEPARATOR", b","],
        [b"identifier", b"rp_vector", b"user_indexed_memory", 1600, b"type", b"VECTOR"],
    ],
]
REDISEARCH = [
    b"index_name",
    b"i",
    b"attributes",
    [[b"identifier", b"kind", b"attribute", b"kind", b"type", b"TAG", b"SEPARATOR", b",", b"x"]],
    b"vector_index_sz_mb",
    b"0.5",
    b"total_index_memory_sz_mb",
    b"0.25",
]


@pytest.mark.parametrize(("reply", "size"), [(VALKEY_SEARCH, 1800), (REDISEARCH, 786_432)])
def test_each_engine_tells_it_in_its_own_way(reply, size):
    assert read_memory(reply) == size
