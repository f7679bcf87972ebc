"""The published document: a surface's whole configuration as one frozen value.

A revision stores it as JSON, the serving snapshot carries it to every web
process, and ``surfaces.plan`` compiles it. Nothing here does I/O or knows the ORM.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from enrichment.spec import SourceSpec
from indexes.schema import LiveIndex

# Bounded so that no sum of terms can leave the range of a float.
MAX_WEIGHT = 1_000_000.0


class Operator(StrEnum):
    ANY_OF = "any_of"
    NONE_OF = "none_of"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    WORDS = "words"


class ValueFrom(StrEnum):
    STATIC = "static"
    CONTEXT = "context"
    CALLER = "caller"


class WhenMissing(StrEnum):
    SKIP = "skip"
    REFUSE = "refuse"
    NOTHING = "nothing"


class TermKind(StrEnum):
    SIMILARITY = "similarity"
    FIELD = "field"
    SIGNAL = "signal"


class FallbackMode(StrEnum):
    DEFAULT_LIST = "default_list"
    FAIL = "fail"


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FilterSpec(Frozen):
    """One clause: its values are fixed, come from the request's context, or are the caller's."""

    field: str
    operator: Operator = Operator.ANY_OF
    value_from: ValueFrom = ValueFrom.STATIC
    values: tuple[str, ...] = ()
    key: str = ""
    when_missing: WhenMissing = WhenMissing.SKIP


class TermSpec(Frozen):
    """One addend of the linear reranker: ``weight × value``, each value within [0, 1] but for signals.

    similarity: of the vectors. field: scaled over the candidates from lowest 0 to highest 1.
    signal: a weight map looked up by ``field``'s value, or by item id where field is empty;
    a number signal multiplies the scaled field, or counts as it is where field is empty.
    """

    kind: TermKind
    weight: float
    name: str = ""
    field: str = ""


class RerankSpec(Frozen):
    """Which reranker orders the candidates, with its parameters."""

    kind: str = "none"
    terms: tuple[TermSpec, ...] = ()


class SurfaceDocument(Frozen):
    """Everything a surface does, frozen at publish."""

    slug: str
    name: str
    index: str
    candidates: int
    limit: int
    max_limit: int
    deadline_ms: int
    fields: tuple[str, ...]
    filters: tuple[FilterSpec, ...] = ()
    sources: tuple[SourceSpec, ...] = ()
    reranker: RerankSpec = RerankSpec()
    seed_signal: str = ""
    default_query: str = ""
    browse_field: str = ""
    browse_descending: bool = True
    fallback: FallbackMode = FallbackMode.DEFAULT_LIST
    fallback_item_ids: tuple[str, ...] = ()


class DefaultItem(Frozen):
    """An item of a default list, ready to be served without any store."""

    id: str
    fields: dict[str, Any]


class PublishedSurface(Frozen):
    """A live revision with its default list."""

    revision: int
    document: SurfaceDocument
    default_items: tuple[DefaultItem, ...] = ()
    default_items_at: datetime | None = None


class KeyScope(Frozen):
    """An API key: a name for the logs, the surfaces it may call (None: all), the indexes it may write to."""

    name: str
    surfaces: tuple[str, ...] | None = None
    indexes: tuple[str, ...] = ()


class Canary(Frozen):
    """A ready build that answers part of an index's traffic: ``percent`` of it, from 0 to 100."""

    percent: float
    index: LiveIndex


class Snapshot(Frozen):
    """All that a web process needs to serve: written on publish, read into memory by each."""

    version: int
    surfaces: dict[str, PublishedSurface] = {}
    indexes: dict[str, LiveIndex] = {}
    canaries: dict[str, Canary] = {}
    keys: dict[str, KeyScope] = {}
