"""What a build takes in the engine: its keys by a sample, its index by what the engine says."""

from __future__ import annotations

from typing import Final

from indexes import valkey
from indexes.errors import SearchRejected
from indexes.validation.bench import Bench

SAMPLED_KEYS: Final = 200


def measure(bench: Bench) -> int | None:
    """Return the bytes of the build's items and index; None where the server does not tell."""
    keys = [bench.own.key_prefix + item_id for item_id in bench.sample[:SAMPLED_KEYS]]
    if not keys:
        return 0
    try:
        sizes = valkey.memory_usage(keys)
    except SearchRejected:
        # Managed servers and narrow ACLs may not allow MEMORY USAGE.
        return None
    items = bench.count * sum(sizes) / len(sizes)
    return round(items) + valkey.index_memory(bench.build.index_name)
