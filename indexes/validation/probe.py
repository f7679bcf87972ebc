"""Gate: the endpoint answers the same vector for a fixed text after the load as before it."""

from __future__ import annotations

import numpy as np

from indexes.embedding import embed_passages
from indexes.items import decode_vector
from indexes.probe import MIN_COSINE
from indexes.schema import PROBE_TEXT
from indexes.validation.bench import Bench
from indexes.validation.result import Outcome, Result, skipped


def measure(bench: Bench) -> Result:
    """A model that is replaced during a load leaves vectors of two models in one index.

    Where most vectors were taken over or given, the endpoint is not called for this: web
    processes compare the same probe before they serve a build.
    """
    build = bench.build
    if build.probe is None or build.embedded <= build.reused + build.given:
        return skipped("The endpoint made few or none of the vectors of this build.")
    before = decode_vector(bytes(build.probe))
    [now] = embed_passages(bench.own.spec.endpoint, [PROBE_TEXT])
    figure = cosine(before, now)
    if figure >= MIN_COSINE:
        message = "The endpoint embeds a fixed text as it did before the load."
        return Result(Outcome.PASSED, message, figure, MIN_COSINE)
    message = (
        "The endpoint embeds a fixed text differently than before the load: its model was "
        "replaced meanwhile. Build again."
    )
    return Result(Outcome.FAILED, message, figure, MIN_COSINE)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of two vectors; 0 where one has no direction or another dimension."""
    if one.shape != other.shape:
        return 0.0
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0
