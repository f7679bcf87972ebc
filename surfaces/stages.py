"""The stages a pipeline is made of, as callables: the real ones are wired, tests give others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enrichment.signals import Signals
from enrichment.spec import SourceSpec
from indexes.errors import EmbeddingError
from indexes.filters import Clause
from indexes.schema import EndpointSpec, LiveIndex
from indexes.search import Found
from surfaces.pool import Pool

Vector = NDArray[np.float32]


class Embed(Protocol):
    """Text to a vector within the endpoint's time. Raises EmbeddingError."""

    def __call__(self, endpoint: EndpointSpec, text: str, /) -> Vector: ...


class Knn(Protocol):
    """The nearest items of a vector. Raises SearchError."""

    def __call__(
        self,
        index: LiveIndex,
        vector: Vector,
        *,
        k: int,
        clauses: Sequence[Clause] = (),
        fields: Sequence[str],
        timeout_s: float,
    ) -> Found: ...


class Browse(Protocol):
    """The first items by a number field. Raises SearchError."""

    def __call__(
        self,
        index: LiveIndex,
        *,
        sort_by: str,
        descending: bool,
        k: int,
        clauses: Sequence[Clause] = (),
        fields: Sequence[str],
        timeout_s: float,
    ) -> Found: ...


class Vectors(Protocol):
    """The vectors of the items that exist. Raises SearchError."""

    def __call__(
        self, index: LiveIndex, ids: Sequence[str], *, timeout_s: float
    ) -> Mapping[str, Vector]: ...


class Fetch(Protocol):
    """The signals of one source for a request's values. Raises EnrichmentError."""

    def __call__(self, source: SourceSpec, values: Mapping[str, str], /) -> Signals: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """Everything the pipeline calls; ``embed`` and ``fetch`` run in the pool.

    ``refused`` holds why the models of some plans (``Plan.model``) are not to be asked now.
    """

    embed: Embed
    knn: Knn
    browse: Browse
    vectors: Vectors
    fetch: Fetch
    pool: Pool
    refused: Mapping[str, EmbeddingError] = field(default_factory=dict)
