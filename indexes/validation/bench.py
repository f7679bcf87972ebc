"""What the gates of one build share: the build, what is live beside it, and sampled items.

Reads from the primaries where a replica may be behind what was loaded a moment ago;
searches go where serving's go.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from indexes import valkey
from indexes.errors import SearchIndexMissing
from indexes.given import Vector
from indexes.items import decode_vector
from indexes.lease import Lease
from indexes.models import IndexBuild, IndexDefinition
from indexes.naming import VECTOR_FIELD
from indexes.schema import FieldType, LiveIndex
from indexes.search import Hit, items, knn

# A lease lasts a minute; a gate renews it between its steps.
RENEWED_S: Final = 5.0
# A step that takes longer than this is a fault of the engine.
SEARCH_S: Final = 20.0
# Keys that a sample is drawn from: an engine's own order of keys is random already.
DRAWN_FROM: Final = 5000
SEED: Final = 10


class Bench:
    """One build under examination, in one turn."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._renewed = time.monotonic()
        self.build = lease.build
        # Read now, as people may have changed the thresholds since the build began.
        self.definition = IndexDefinition.objects.select_related("live_build").get(
            pk=lease.build.definition_id
        )

    @property
    def own(self) -> LiveIndex:
        """The build, as it would be searched."""
        return self.build.to_live()

    @cached_property
    def rival(self) -> IndexBuild | None:
        """The live build that this one would replace; None where the engine has lost it."""
        live = self.definition.live_build
        if live is None or live.pk == self.build.pk or not self.count_of(live.index_name):
            return None
        return live

    @cached_property
    def count(self) -> int:
        """The items that the engine holds of the build."""
        return self.count_of(self.build.index_name)

    def count_of(self, index_name: str) -> int:
        """Return the items in an index, 0 where there is none."""
        try:
            return valkey.index_info(index_name).num_docs
        except SearchIndexMissing:
            return 0

    def say(self, notice: str) -> None:
        """Renew the lease and tell people what is going on."""
        self._lease.save(notice=notice)
        self._renewed = time.monotonic()

    def stay(self) -> None:
        """Renew the lease if it is time to; to be called at least each few seconds."""
        if time.monotonic() - self._renewed > RENEWED_S:
            self._lease.save()
            self._renewed = time.monotonic()

    @cached_property
    def sample(self) -> list[str]:
        """Ids of items of the build in random order, the same ones in each turn: all of a small build."""
        return sample_ids(self.own)

    @cached_property
    def title_field(self) -> str | None:
        """The field that people know an item by."""
        shown = [field for field in self.own.spec.fields if field.returned]
        by_name = [f for f in shown if f.name.lower() in ("title", "name", "label", "product_name")]
        texts = [field for field in shown if field.type == FieldType.TEXT]
        return next((field.name for field in (*by_name, *texts)), None)

    def titles(self, ids: Sequence[str]) -> dict[str, str]:
        """Return what people know these items by; the id where nothing else is there."""
        found: dict[str, str] = {}
        if self.title_field is not None:
            for index in (self.rival.to_live(),) if self.rival else ():
                found |= _titles(index, ids, self.title_field)
            found |= _titles(self.own, ids, self.title_field)
        return {item_id: found.get(item_id, item_id) for item_id in ids}


def sample_ids(index: LiveIndex) -> list[str]:
    """Return ids of items in random order: of some thousand, or of all if there are fewer."""
    keys: set[bytes] = set()
    for part in valkey.scan_keys(index.key_prefix):
        keys.update(part)
        if len(keys) >= DRAWN_FROM:
            break
    start = len(valkey.key_bytes(index.key_prefix))
    ids = sorted(key[start:].decode("utf-8", "surrogatepass") for key in keys)
    random.Random(SEED).shuffle(ids)
    return ids


def stored_vectors(index: LiveIndex, ids: Iterable[str]) -> dict[str, Vector]:
    """Return the vectors of those of the items that exist, from the primaries."""
    wanted = list(ids)
    keys = [index.key_prefix + item_id for item_id in wanted]
    rows = valkey.hash_fields(keys, [VECTOR_FIELD], fresh=True)
    size = 4 * index.spec.endpoint.dimension
    return {
        item_id: decode_vector(blob)
        for item_id, [blob] in zip(wanted, rows, strict=True)
        if blob is not None and len(blob) == size
    }


def nearest(index: LiveIndex, vector: Vector, k: int) -> list[Hit]:
    """Return the k nearest items without their fields, as serving finds them."""
    return knn(index, vector, k=k, fields=(), timeout_s=SEARCH_S).hits


def _titles(index: LiveIndex, ids: Sequence[str], field: str) -> dict[str, str]:
    hits = items(index, ids, fields=[field], timeout_s=SEARCH_S)
    return {hit.id: str(hit.fields[field])[:80] for hit in hits if hit.fields.get(field)}
