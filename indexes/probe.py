"""Whether an endpoint still answers with the model that an index was built with.

A model can change behind the name of its endpoint, which no setting tells. So each
build keeps the vector of one fixed text, made as those of its items are: whoever
searches it compares that with what the endpoint answers today.
"""

from __future__ import annotations

from base64 import b64decode

import numpy as np

from indexes.embedding import embed_query
from indexes.errors import EmbeddingOtherModel
from indexes.given import Vector
from indexes.items import decode_vector
from indexes.schema import PROBE_TEXT, EndpointSpec, LiveIndex

# The same model on other hardware, in other batches or rounded otherwise stays above
# 0.99; another one is nowhere near.
MIN_COSINE = 0.9


def check_model(index: LiveIndex, endpoint: EndpointSpec) -> None:
    """Embed the probe text at the index's endpoint and compare it with the index's probe.

    ``endpoint`` is the index's own, whose time limit may be another. An index without a
    probe passes. Raises EmbeddingOtherModel, and EmbeddingError where there is no answer.
    """
    # As an item, not as a query: models with prefixes embed the two differently.
    as_item = endpoint.model_copy(update={"query_prefix": endpoint.passage_prefix})
    now = embed_query(as_item, PROBE_TEXT)
    if not index.probe:
        return
    then = decode_vector(b64decode(index.probe))
    alike = cosine(then, now)
    if alike < MIN_COSINE:
        raise EmbeddingOtherModel(
            f'The embedding endpoint "{endpoint.slug}" answers other vectors than when '
            f"{index.label} was built (cosine {alike:.2f} for the same text). Put the model back "
            "behind it, or build the index again."
        )


def cosine(one: Vector, other: Vector) -> float:
    """Return the cosine of two vectors; 0 where one has no direction or another dimension."""
    if one.shape != other.shape:
        return 0.0
    # In 64 bits, as squares leave the range of 32 bits early.
    before, after = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(before) * np.linalg.norm(after))
    return float(before @ after) / lengths if lengths else 0.0
