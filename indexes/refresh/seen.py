"""The ids that a refresh has seen, as 64-bit digests in sorted arrays.

Millions of ids as texts would not fit a worker. As digests they take 8 bytes each, and
some 20 for a moment when two arrays become one. Two of a million ids share a digest
once in 40 million refreshes; the second of them would count as a duplicate.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from indexes.models import IndexRefresh

Digests = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]

_BYTES = 8


def digests(ids: Iterable[bytes]) -> Digests:
    """Return the digests of some ids, in their order."""
    joined = b"".join(blake2b(item_id, digest_size=_BYTES).digest() for item_id in ids)
    return np.frombuffer(joined, dtype="<u8")


class Seen:
    """A set of digests that grows shard by shard."""

    def __init__(self) -> None:
        # Each at most half as long as the one before, so that every digest is merged a
        # few times only.
        self._runs: list[Digests] = []

    @classmethod
    def of(cls, refresh: IndexRefresh) -> Seen:
        """Return what the committed shards of a refresh saw."""
        seen = cls()
        for blob in refresh.shards.values_list("seen", flat=True).iterator(chunk_size=50):
            seen.add(np.frombuffer(bytes(blob), dtype="<u8"))
        return seen

    def add(self, found: Digests) -> None:
        """Take digests up, in any order."""
        run = np.sort(found)
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate((self._runs.pop(), run))
            # Merges two sorted halves, as they are.
            run.sort(kind="stable")
        self._runs.append(run)

    def has(self, asked: Digests) -> Flags:
        """Return which of these digests are in the set."""
        found = np.zeros(len(asked), dtype=np.bool_)
        for run in self._runs:
            if len(run):
                places = np.minimum(np.searchsorted(run, asked), len(run) - 1)
                found |= run[places] == asked
        return found
