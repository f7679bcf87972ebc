"""A published document compiled for serving: validated, everything computed that can be.

A request is built from a plan without I/O. Compiling fails as a whole, with every
problem on the form field that can mend it; publishing shows these, and the
registry keeps the surface's last good plan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from enrichment.errors import EnrichmentError
from enrichment.sources import key_names
from enrichment.spec import SignalKind, SourceSpec
from indexes.errors import FilterError
from indexes.filters import Clause, parse_values
from indexes.schema import EndpointSpec, FieldSpec, FieldType, IndexSpec, LiveIndex
from surfaces.document import (
    MAX_WEIGHT,
    FilterSpec,
    Operator,
    PublishedSurface,
    RerankSpec,
    SurfaceDocument,
    TermKind,
    ValueFrom,
    WhenMissing,
)
from surfaces.errors import PlanInvalid, Problem
from surfaces.rerank.base import Reranker
from surfaces.rerank.none import Retrieved
from surfaces.rerank.registry import RERANKERS, make_reranker

# Kept back from the deadline to rank and to write the answer.
RESERVE_S = 0.005
RESERVE_SHARE = 0.05

Timed = TypeVar("Timed", EndpointSpec, SourceSpec)

OPERATORS: Mapping[FieldType, frozenset[Operator]] = {
    FieldType.TAG: frozenset({Operator.ANY_OF, Operator.NONE_OF}),
    FieldType.NUMERIC: frozenset(
        {Operator.ANY_OF, Operator.NONE_OF, Operator.AT_LEAST, Operator.AT_MOST}
    ),
    FieldType.TEXT: frozenset({Operator.WORDS}),
    FieldType.STORED: frozenset(),
}


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
class Plan:
    """All that a request needs of its surface.

    ``index`` is None where nothing can be searched, and ``unavailable`` says why: the
    plan then serves its default list only. ``endpoint`` and ``sources`` are bounded by
    the surface's deadline. ``fields`` are those of an answer,
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
    if problems := list(_problems(document, spec)):
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
    )


def signal_kinds(document: SurfaceDocument) -> dict[str, SignalKind]:
    """Return the signals that the surface's sources give, by name."""
    return {signal.name: signal.kind for source in document.sources for signal in source.signals}


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


def _problems(document: SurfaceDocument, spec: IndexSpec) -> Iterator[Problem]:
    for name in document.fields:
        if (field := spec.field(name)) is None:
            yield _no_field("fields", name, spec)
        elif not field.returned:
            yield Problem("fields", f'The index does not return "{name}": tick "returned" on it.')
    if document.browse_field:
        yield from _number_field("browse_field", document.browse_field, spec)
    yield from _source_problems(document)
    if document.seed_signal:
        yield from _signal_problems(
            "seed_signal", document.seed_signal, document, SignalKind.WEIGHTS
        )
    opened: set[str] = set()
    for position, item in enumerate(document.filters):
        path = f"filters[{position}]"
        yield from _filter_problems(path, item, spec)
        if item.value_from is ValueFrom.CALLER:
            if item.field in opened:
                yield Problem(f"{path}.field", f'"{item.field}" is opened to callers twice.')
            opened.add(item.field)
    yield from _rerank_problems(document.reranker, document, spec)


def _filter_problems(path: str, item: FilterSpec, spec: IndexSpec) -> Iterator[Problem]:
    field = spec.field(item.field)
    if field is None:
        yield _no_field(f"{path}.field", item.field, spec)
        return
    if field.type is FieldType.STORED:
        yield Problem(
            f"{path}.field", f'"{field.name}" is only stored: make it a tag, number or text.'
        )
        return
    if item.value_from is ValueFrom.CALLER:
        return
    if item.operator not in OPERATORS[field.type]:
        allowed = ", ".join(sorted(OPERATORS[field.type]))
        yield Problem(
            f"{path}.operator",
            f'"{field.name}" is a {field.type} field, which takes: {allowed}.',
        )
        return
    if item.value_from is ValueFrom.CONTEXT:
        if not item.key:
            yield Problem(f"{path}.key", "Name the context key whose value is meant.")
        return
    if not item.values:
        yield Problem(f"{path}.values", "Give at least one value.")
        return
    try:
        parse_values(field, item.operator, item.values)
    except FilterError as error:
        yield Problem(f"{path}.values", str(error))


def _source_problems(document: SurfaceDocument) -> Iterator[Problem]:
    given: dict[str, str] = {}
    for source in document.sources:
        try:
            key_names(source)
        except EnrichmentError as error:
            yield Problem("sources", f"{source.slug}: {error}")
        for signal in source.signals:
            if signal.name in given:
                yield Problem(
                    "sources",
                    f'Signal "{signal.name}" comes from {given[signal.name]} and from '
                    f"{source.slug}: rename one.",
                )
            given[signal.name] = source.slug


def _signal_problems(
    path: str, name: str, document: SurfaceDocument, kind: SignalKind | None = None
) -> Iterator[Problem]:
    kinds = signal_kinds(document)
    if name not in kinds:
        known = ", ".join(sorted(kinds)) or "none"
        yield Problem(
            path, f'No source of this surface gives the signal "{name}". Signals given: {known}.'
        )
    elif kind is not None and kinds[name] is not kind:
        yield Problem(path, f'Signal "{name}" is a {kinds[name]}, not {kind}.')


def _rerank_problems(
    rerank: RerankSpec, document: SurfaceDocument, spec: IndexSpec
) -> Iterator[Problem]:
    if rerank.kind not in RERANKERS:
        yield Problem("reranker", f'No reranker is of the kind "{rerank.kind}".')
        return
    if rerank.kind == "none":
        return
    if not rerank.terms:
        yield Problem("reranker", "The reranker has no terms: add one, or leave it empty.")
    kinds = signal_kinds(document)
    for term in rerank.terms:
        # Written so that NaN fails it.
        if not abs(term.weight) <= MAX_WEIGHT:
            yield Problem(
                "reranker", f"Weight {term.weight} is not within {MAX_WEIGHT:.0f} of zero."
            )
        if term.kind is TermKind.SIGNAL:
            yield from _signal_problems("reranker", term.name, document)
        number = term.kind is TermKind.FIELD or (
            bool(term.field) and kinds.get(term.name) is SignalKind.NUMBER
        )
        if number and not term.field:
            yield Problem("reranker", "A field term names no field.")
        elif number:
            yield from _number_field("reranker", term.field, spec)
        elif term.field and spec.field(term.field) is None:
            yield _no_field("reranker", term.field, spec)


def _number_field(path: str, name: str, spec: IndexSpec) -> Iterator[Problem]:
    field = spec.field(name)
    if field is None:
        yield _no_field(path, name, spec)
    elif field.type is not FieldType.NUMERIC:
        yield Problem(path, f'"{name}" is a {field.type} field: a number field is needed.')


def _no_field(path: str, name: str, spec: IndexSpec) -> Problem:
    known = ", ".join(field.name for field in spec.fields) or "none"
    return Problem(
        path, f'Index "{spec.slug}" has no field "{name}" in its live build. Fields: {known}.'
    )
