"""The rerankers a surface can choose from."""

from collections.abc import Callable, Mapping

from indexes.schema import IndexSpec
from surfaces.document import RerankSpec
from surfaces.rerank.base import Reranker
from surfaces.rerank.linear import Linear
from surfaces.rerank.none import Retrieved


def _linear(spec: RerankSpec, index: IndexSpec) -> Reranker:
    return Linear(spec.terms, unbounded=index.metric == "IP" and not index.endpoint.normalize)


RERANKERS: Mapping[str, Callable[[RerankSpec, IndexSpec], Reranker]] = {
    "none": lambda spec, index: Retrieved(),
    "linear": _linear,
}


def make_reranker(spec: RerankSpec, index: IndexSpec) -> Reranker:
    """Return the reranker of a published document; KeyError for a kind that does not exist."""
    return RERANKERS[spec.kind](spec, index)
