"""An embedder without a model: a text's vector is the sum of its words' fixed directions."""

import threading
import zlib
from dataclasses import dataclass, field

import numpy as np

from indexes.errors import EmbeddingError, EmbeddingTimeout
from indexes.schema import EndpointSpec
from indexes.values import words
from surfaces.stages import Vector


def vector_of(text: str, dimension: int) -> Vector:
    """Return a unit vector: texts that share words are near each other."""
    total = np.zeros(dimension, dtype=np.float32)
    for word in words(text) or [""]:
        direction = np.random.default_rng(zlib.crc32(word.encode()))
        total += direction.standard_normal(dimension).astype(np.float32)
    vector: Vector = total / np.linalg.norm(total)
    return vector


@dataclass
class FakeEmbedder:
    """Fails with ``error``, or waits for ``gate``."""

    error: EmbeddingError | Exception | None = None
    gate: threading.Event | None = None
    texts: list[str] = field(default_factory=list)
    timeouts_ms: list[int] = field(default_factory=list)

    def embed(self, endpoint: EndpointSpec, text: str) -> Vector:
        self.texts.append(text)
        self.timeouts_ms.append(endpoint.timeout_ms)
        if endpoint.timeout_ms <= 0:
            raise EmbeddingTimeout("No time is left.")
        if self.gate is not None:
            self.gate.wait(5)
        if self.error is not None:
            raise self.error
        return vector_of(endpoint.query_prefix + text, endpoint.dimension)
