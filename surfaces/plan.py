"""A published document compiled for serving: validated, everything computed that can be.

A request is built from a plan without I/O. Compiling fails as a whole, with every
problem on the form field that can mend it; publishing shows these, and the
registry keeps the surface's last good plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import TypeVar

from enrichment.sources import key_names
from enrichment.spec import SourceSpec
from indexes.filters import Clause, parse_values
from indexes.schema import EndpointSpec, FieldSpec, IndexSpec, LiveIndex
from surfaces.document import (
    FilterSpec,
    Operator,
    PublishedSurface,
    SurfaceDocument,
    ValueFrom,
    WhenMissing,
)
from surfaces.errors import PlanInvalid, Problem
from surfaces.misfits import misfits
from surfaces.rerank.base import Reranker
from surfaces.rerank.none import Retrieved
from surfaces.rerank.registry import make_reranker

# Kept back from the deadline to rank and to write the answer.
RESERVE_S = 0.005
RESERVE_SHARE = 0.05

Timed = TypeVar("Timed", EndpointSpec, SourceSpec)


@dataclass(frozen=True, slots=True)
class ContextFilter:
    """A clause whose value the request's context gives."""

    field: FieldSpec
    operator: Operator
    key: str
    when_missing: WhenMissing


@dataclass(frozen=True, slots=True)
class CallerFilter:
    """A field that callers may filter by."""

    field: FieldSpec
    when_missing: WhenMissing


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source with the request values its key needs, and the name of its stage."""

    spec: SourceSpec
    keys: tuple[str, ...]
    stage: str


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """The plan of the canary build, the share (0 to 1) it answers, and the salt that says of whom."""

    plan: "Plan"
    share: float
    salt: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a request needs of its surface.

    ``index`` is None where nothing can be searched, and ``unavailable`` says why: the
    plan then serves its default list only. ``endpoint`` and ``sources`` are bounded by
    the surface's deadline. ``model`` stands for what the endpoint answered when the index
    was built (``surfaces.probes``). ``fields`` are those of an answer,
    ``fetched`` with those of the reranker, ``held`` those of the default items.
    """

    slug: str
    revision: int
    document: SurfaceDocument
    index: LiveIndex | None
    unavailable: str
    endpoint: EndpointSpec | None
    budget_s: float
    static: tuple[Clause, ...]
    context: tuple[ContextFilter, ...]
    caller: Mapping[str, CallerFilter]
    sources: tuple[PlannedSource, ...]
    reranker: Reranker
    fields: tuple[str, ...]
    fetched: tuple[str, ...]
    held: tuple[str, ...]
    normalize: bool
    published: PublishedSurface
    model: str = ""
    variant: str | None = None
    canary: CanaryPlan | None = None

    @property
    def build(self) -> str | None:
        return self.index.label if self.index else None


def compile_plan(
    published: PublishedSurface, index: LiveIndex | None, *, unavailable: str = "no_live_build"
) -> Plan:
    """Return the plan of a published document on a live index; raise PlanInvalid.

    Without an index every document compiles, to a plan that serves its default list.
    """
    document = published.document
    deadline_s = document.deadline_ms / 1000
    budget_s = deadline_s - min(RESERVE_S, deadline_s * RESERVE_SHARE)
    if index is None:
        held = tuple(dict.fromkeys(chain.from_iterable(i.fields for i in published.default_items)))
        return Plan(
            slug=document.slug,
            revision=published.revision,
            document=document,
            index=None,
            unavailable=unavailable,
            endpoint=None,
            budget_s=budget_s,
            static=(),
            context=(),
            caller={},
            sources=(),
            reranker=Retrieved(),
            fields=document.fields or held,
            fetched=(),
            held=held,
            normalize=False,
            published=published,
        )
    spec = index.spec
    if index.fingerprint and index.fingerprint != spec.fingerprint:
        raise PlanInvalid([_other_model(index)])
    if problems := misfits(document, spec):
        raise PlanInvalid(problems)
    reranker = make_reranker(document.reranker, spec)
    fields = document.fields or tuple(field.name for field in spec.fields if field.returned)
    fetched = tuple(dict.fromkeys((*fields, *reranker.fields)))
    filtered = [item.field for item in document.filters]
    return Plan(
        slug=document.slug,
        revision=published.revision,
        document=document,
        index=index,
        unavailable="",
        endpoint=_bounded(spec.endpoint, document.deadline_ms),
        budget_s=budget_s,
        static=tuple(
            parse_values(_field(spec, item), item.operator, item.values)
            for item in document.filters
            if item.value_from is ValueFrom.STATIC
        ),
        context=tuple(
            ContextFilter(_field(spec, item), item.operator, item.key, item.when_missing)
            for item in document.filters
            if item.value_from is ValueFrom.CONTEXT
        ),
        caller={
            item.field: CallerFilter(_field(spec, item), item.when_missing)
            for item in document.filters
            if item.value_from is ValueFrom.CALLER
        },
        sources=tuple(_planned(source, document.deadline_ms) for source in document.sources),
        reranker=reranker,
        fields=fields,
        fetched=fetched,
        held=tuple(dict.fromkeys((*fields, *filtered))),
        normalize=spec.metric == "COSINE" or spec.endpoint.normalize,
        published=published,
        model=_model(index),
    )


def _model(index: LiveIndex) -> str:
    told = f"{index.spec.endpoint.fingerprint} {index.probe}"
    return blake2b(told.encode(), digest_size=16).hexdigest()


def _other_model(index: LiveIndex) -> Problem:
    return Problem(
        "index",
        f"{index.label} holds the vectors of another embedding model or metric "
        f"({index.fingerprint}) than its settings name ({index.spec.fingerprint}). Build it again.",
    )


def _field(spec: IndexSpec, item: FilterSpec) -> FieldSpec:
    found = spec.field(item.field)
    if found is None:
        raise KeyError(item.field)
    return found


def _planned(source: SourceSpec, deadline_ms: int) -> PlannedSource:
    return PlannedSource(
        _bounded(source, deadline_ms), key_names(source), f"enrichment:{source.slug}"
    )


def _bounded(spec: Timed, deadline_ms: int) -> Timed:
    # A call that outlives its request would keep a thread from the next one. The limit is
    # the same for every request, since clients have theirs built in.
    return spec.model_copy(update={"timeout_ms": min(spec.timeout_ms, deadline_ms)})
