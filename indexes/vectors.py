"""Where the vectors of a shard come from, the cheapest source first.

A row's own vector; that of the build before, where the text is the same; the output of
the Batch Transform job; what an interrupted worker had embedded; a call to the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from indexes import batch_transform, valkey
from indexes.errors import BuildError, EmbeddingRejected, RowError
from indexes.items import encode_vector, text_digest
from indexes.models import IndexBuild
from indexes.naming import TEXT_FIELD, VECTOR_FIELD
from indexes.passages import PassageCalls
from indexes.schema import PROBE_TEXT, IndexSpec
from indexes.shards import Numbered, Shard

# Bytes that a pipeline asks for, as replies are in memory as a whole.
LOOKUP_BYTES: Final = 256 << 10
# Texts refused one after another before it is asked whether the endpoint refuses any text.
MANY_REFUSED: Final = 8


class Origin(StrEnum):
    """How a vector came about; each is a counter of the build."""

    GIVEN = "given"
    REUSED = "reused"
    EMBEDDED = "embedded"


class Vectored(NamedTuple):
    """An item with its vector, encoded."""

    numbered: Numbered
    vector: bytes
    origin: Origin


class VectorSources:
    """The sources of a build's vectors, open for as long as a turn of its load lasts."""

    def __init__(
        self, build: IndexBuild, spec: IndexSpec, calls: PassageCalls, beat: Callable[[], None]
    ) -> None:
        self._build = build
        self._spec = spec
        self._calls = calls
        self._beat = beat
        # By its id: the build may be deleted meanwhile.
        kept = IndexBuild.objects.filter(pk=build.vectors_from_id or 0)
        self._reused_prefix = kept.values_list("key_prefix", flat=True).first()

    def of(self, shard: Shard, repeated: set[int]) -> Iterator[Vectored]:
        """Yield the items of a shard with their vectors, in no order.

        ``repeated`` are the rows that this build holds already. A text that the endpoint
        refuses is rejected in the shard. Raises IndexesError.
        """
        left = []
        for numbered in shard.items:
            vector = numbered.item.vector
            if vector is None:
                left.append(numbered)
            else:
                yield Vectored(numbered, encode_vector(vector), Origin.GIVEN)
        if self._reused_prefix:
            left = yield from self._stored(self._reused_prefix, left, Origin.REUSED)
        if left and self._spec.embed_with == "batch":
            left = yield from self._from_job(left)
        if repeated:
            own = [numbered for numbered in left if numbered.row in repeated]
            left = [numbered for numbered in left if numbered.row not in repeated]
            left += yield from self._stored(self._build.key_prefix, own, Origin.EMBEDDED)
        yield from self._embedded(shard, left)

    def _stored(
        self, prefix: str, wanted: list[Numbered], origin: Origin
    ) -> Generator[Vectored, None, list[Numbered]]:
        """Yield those whose text a build has a vector of; return the others."""
        size = 4 * self._spec.endpoint.dimension
        at_once = max(1, LOOKUP_BYTES // (size + 100))
        left = []
        for start in range(0, len(wanted), at_once):
            part = wanted[start : start + at_once]
            keys = [prefix + numbered.item.id for numbered in part]
            found = valkey.hash_fields(
                keys, [TEXT_FIELD, VECTOR_FIELD], fresh=True, at_once=at_once
            )
            for numbered, (digest, vector) in zip(part, found, strict=True):
                same = bool(digest) and digest == text_digest(numbered.item.text)
                if same and vector is not None and len(vector) == size:
                    yield Vectored(numbered, vector, origin)
                else:
                    left.append(numbered)
        return left

    def _from_job(self, wanted: list[Numbered]) -> Generator[Vectored, None, list[Numbered]]:
        """Yield those that the Batch Transform job gave a vector for; return the others."""
        rows = [numbered.row for numbered in wanted]
        found = batch_transform.vectors(self._build, min(rows), max(rows), beat=self._beat) or {}
        left = []
        for numbered in wanted:
            vector = found.get(numbered.row)
            if vector is None:
                left.append(numbered)
            else:
                yield Vectored(numbered, encode_vector(vector), Origin.EMBEDDED)
        return left

    def _embedded(self, shard: Shard, wanted: list[Numbered]) -> Iterator[Vectored]:
        # Models pad a batch to its longest text: alike lengths halve the time of long titles.
        wanted = sorted(wanted, key=lambda numbered: len(numbered.item.text))
        refused = 0
        for start, found in self._calls.embed([numbered.item.text for numbered in wanted]):
            if isinstance(found, EmbeddingRejected):
                refused += 1
                _reject(shard, wanted[start], found)
                if refused == MANY_REFUSED:
                    self._ask_for_any(wanted[start])
                continue
            refused = 0
            for numbered, vector in zip(wanted[start : start + len(found)], found, strict=True):
                yield Vectored(numbered, encode_vector(vector), Origin.EMBEDDED)

    def _ask_for_any(self, example: Numbered) -> None:
        """Raise unless the endpoint embeds a text that nobody can object to."""
        for _, found in self._calls.embed([PROBE_TEXT]):
            if isinstance(found, EmbeddingRejected):
                raise BuildError(
                    f"The embedding endpoint refuses every text, that of row {example.row:,} "
                    f"among them. {found}"
                ) from found


def _reject(shard: Shard, numbered: Numbered, error: EmbeddingRejected) -> None:
    refused = RowError("text_refused", f"The embedding endpoint refuses the text: {error}")
    shard.reject(numbered.row, refused, numbered.content)
