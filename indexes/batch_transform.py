"""Embedding a whole catalog by a SageMaker Batch Transform job, as the other way beside calls."""

from __future__ import annotations

from indexes.lease import Lease


def prepare(lease: Lease, *, seconds: float) -> float | None:
    """Carry the job of a loading build forward: write its texts, start it, look at it.

    Return the seconds to wait before the next look, or None when its vectors are there.
    """
    return None
