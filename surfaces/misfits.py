"""Where a document does not fit an index: each problem on the form field that can mend it.

Fields that the index lacks or types otherwise, values that cannot be read, signals
that no source gives. Publishing shows them, and a plan with any is not compiled.
"""

from collections.abc import Iterator, Mapping

from enrichment.errors import EnrichmentError
from enrichment.sources import key_names
from enrichment.spec import SignalKind
from indexes.errors import FilterError
from indexes.filters import parse_values
from indexes.schema import FieldType, IndexSpec
from surfaces.document import (
    MAX_WEIGHT,
    FilterSpec,
    Operator,
    RerankSpec,
    SurfaceDocument,
    TermKind,
    ValueFrom,
)
from surfaces.errors import Problem
from surfaces.rerank.registry import RERANKERS

OPERATORS: Mapping[FieldType, frozenset[Operator]] = {
    FieldType.TAG: frozenset({Operator.ANY_OF, Operator.NONE_OF}),
    FieldType.NUMERIC: frozenset(
        {Operator.ANY_OF, Operator.NONE_OF, Operator.AT_LEAST, Operator.AT_MOST}
    ),
    FieldType.TEXT: frozenset({Operator.WORDS}),
    FieldType.STORED: frozenset(),
}


def misfits(document: SurfaceDocument, spec: IndexSpec) -> list[Problem]:
    """Return every problem of the document with the index; empty when it can be compiled."""
    return list(_problems(document, spec))


def signal_kinds(document: SurfaceDocument) -> dict[str, SignalKind]:
    """Return the signals that the surface's sources give, by name."""
    return {signal.name: signal.kind for source in document.sources for signal in source.signals}


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
