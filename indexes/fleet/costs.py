"""What an index costs in bytes: items × dimension × M and fields, for each engine.

The figures were fitted to ``used_memory`` of valkey-search 1.2.1 and RediSearch 2.10.5 over
4,000 to 25,000 items of 64 to 1,024 dimensions, M of 8 to 64, and each type of field. Both
engines keep a copy of every vector beside the one in the item's hash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from indexes.schema import FieldType

Engine = Literal["valkey-search", "redisearch"]

# A hash: its entry among the keys, the key, the platform's own fields with their names and
# values but for the vector's numbers. Then for each field beside its name and its value.
_HASH_BYTES: Final = 340
_FIELD_BYTES: Final = 26
# A number of a vector.
_NUMBER_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class _Costs:
    """Bytes of an engine. ``slots``: the graph grows by so many items at a time."""

    index: int
    item: int
    hnsw_index: int
    hnsw_item: int
    hnsw_slot: int
    link: int
    slots: int
    tag: int
    distinct_tag: int
    number: int
    texts: int
    word: int


_COSTS: Final[dict[Engine, _Costs]] = {
    "valkey-search": _Costs(
        index=200_000,
        item=420,
        hnsw_index=2_500_000,
        hnsw_item=0,
        hnsw_slot=75,
        link=8,
        slots=10_240,
        tag=58,
        distinct_tag=120,
        number=65,
        texts=330,
        word=40,
    ),
    "redisearch": _Costs(
        index=55_000,
        item=300,
        hnsw_index=0,
        hnsw_item=170,
        hnsw_slot=0,
        link=8,
        slots=1_024,
        tag=4,
        distinct_tag=155,
        number=14,
        texts=100,
        word=12,
    ),
}


@dataclass(frozen=True, slots=True)
class FieldShape:
    """A field as items have it: means over all items, those without it counted as nothing.

    ``parts`` are words of a text or values of a tag; ``distinct`` is the share of a tag's
    values that no other item has, from 0 to 1.
    """

    name: str
    type: FieldType
    size: float
    present: float = 1.0
    parts: float = 1.0
    distinct: float = 0.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What the memory of an index depends on beside the number of items. ``key``: bytes of a key."""

    dimension: int
    algorithm: str = "HNSW"
    m: int = 16
    key: float = 24
    fields: tuple[FieldShape, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one build."""

    hashes: int
    vectors: int
    graph: int
    fields: int

    @property
    def total(self) -> int:
        return self.hashes + self.vectors + self.graph + self.fields


def estimate(shape: Shape, items: int, engine: Engine = "valkey-search") -> Estimate:
    """Return the memory of a build of so many items."""
    costs = _COSTS[engine]
    numbers = _NUMBER_BYTES * shape.dimension
    hashes = _HASH_BYTES + shape.key + numbers + sum(map(_hash_bytes, shape.fields))
    graph = 0.0
    if shape.algorithm == "HNSW":
        slots = math.ceil(max(items, 1) / costs.slots) * costs.slots
        per_slot = costs.hnsw_slot + costs.link * shape.m
        graph = costs.hnsw_index + slots * per_slot + items * costs.hnsw_item
    return Estimate(
        hashes=round(items * hashes),
        vectors=round(costs.index + items * (numbers + costs.item)),
        graph=round(graph),
        fields=round(items * _indexed_bytes(shape.fields, costs)),
    )


def _hash_bytes(field: FieldShape) -> float:
    return field.present * (_FIELD_BYTES + len(field.name)) + field.size


def _indexed_bytes(fields: Sequence[FieldShape], costs: _Costs) -> float:
    size = 0.0
    for field in fields:
        match field.type:
            case FieldType.TAG:
                size += field.parts * (costs.tag + field.distinct * costs.distinct_tag)
            case FieldType.NUMERIC:
                size += field.present * costs.number
            case FieldType.TEXT:
                size += field.parts * costs.word
            case FieldType.STORED:
                pass
    # The words of all text fields of an item share one record.
    texts = max((f.present for f in fields if f.type == FieldType.TEXT), default=0.0)
    return size + texts * costs.texts
