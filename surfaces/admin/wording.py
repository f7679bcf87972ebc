"""A surface's configuration in words, and the difference between two of them."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from enrichment.spec import SourceSpec
from surfaces.document import (
    FallbackMode,
    FilterSpec,
    Operator,
    RerankSpec,
    SurfaceDocument,
    TermKind,
    TermSpec,
    ValueFrom,
    WhenMissing,
)

OPERATORS = {
    Operator.ANY_OF: "is any of",
    Operator.NONE_OF: "is none of",
    Operator.AT_LEAST: "is at least",
    Operator.AT_MOST: "is at most",
    Operator.WORDS: "has the words",
}
MISSING = {
    WhenMissing.SKIP: "left out when missing",
    WhenMissing.REFUSE: "request refused when missing",
    WhenMissing.NOTHING: "matches nothing when missing",
}


class Change(NamedTuple):
    """What one part of the configuration loses and gains, in lines of text."""

    label: str
    removed: tuple[str, ...]
    added: tuple[str, ...]


def describe(document: SurfaceDocument) -> dict[str, tuple[str, ...]]:
    """Return every part of the document by its name, each as lines of text."""
    return {label: tuple(lines(document)) for label, lines in PARTS.items()}


def differences(live: SurfaceDocument | None, draft: SurfaceDocument) -> list[Change]:
    """Return what publishing the draft changes; against nothing, everything is added."""
    before = describe(live) if live else dict.fromkeys(PARTS, ())
    return [
        _change(label, before[label], after)
        for label, after in describe(draft).items()
        if before[label] != after
    ]


def _change(label: str, before: tuple[str, ...], after: tuple[str, ...]) -> Change:
    removed = tuple(line for line in before if line not in after)
    added = tuple(line for line in after if line not in before)
    if not removed and not added:
        return Change(label, (), ("The same in another order: " + ", ".join(after),))
    return Change(label, removed, added)


def _filter(item: FilterSpec) -> str:
    if item.value_from is ValueFrom.CALLER:
        rule = (
            f" ({MISSING[item.when_missing]})" if item.when_missing is not WhenMissing.SKIP else ""
        )
        return f"{item.field}: open to callers{rule}"
    operator = OPERATORS[item.operator]
    if item.value_from is ValueFrom.CONTEXT:
        return f"{item.field} {operator} the request's “{item.key}” ({MISSING[item.when_missing]})"
    return f"{item.field} {operator} {', '.join(item.values) or '(no values)'}"


def _source(source: SourceSpec) -> str:
    keys = [f"{source.partition_key} {source.key_template}"]
    if source.sort_key:
        keys.append(f"{source.sort_key} {source.sort_key_template}")
    where = f"table {source.table}" + (f" in {source.region}" if source.region else "")
    signals = ", ".join(
        f"{signal.name} ({signal.kind} in {signal.attribute})" for signal in source.signals
    )
    need = "required" if source.required else "best effort"
    return (
        f"{source.slug}: {signals} from {where}, {', '.join(keys)}; {need}, {source.timeout_ms} ms"
    )


def term(spec: TermSpec) -> str:
    """Return a term of a linear reranker, such as ``0.1 × brand_affinity of the item's brand``."""
    match spec.kind:
        case TermKind.SIMILARITY:
            value = "similarity"
        case TermKind.FIELD:
            value = spec.field
        case TermKind.SIGNAL:
            value = f"{spec.name} of the item" + (f"'s {spec.field}" if spec.field else "")
    return f"{spec.weight:g} × {value}"


def _reranker(reranker: RerankSpec) -> Iterable[str]:
    if reranker.kind == "none":
        return ["order of similarity"]
    return [term(spec) for spec in reranker.terms]


def _starts(document: SurfaceDocument) -> Iterable[str]:
    if document.seed_signal:
        yield f"items similar to those in {document.seed_signal}"
    if document.default_query:
        yield f"search for “{document.default_query}”"
    if document.browse_field:
        order = "highest" if document.browse_descending else "lowest"
        yield f"items by {document.browse_field}, {order} first"


def _fallback(document: SurfaceDocument) -> Iterable[str]:
    if document.fallback is FallbackMode.FAIL:
        yield "answer 503"
    else:
        yield "serve the default list"
    yield from (f"default item {item_id}" for item_id in document.fallback_item_ids)


PARTS: dict[str, Callable[[SurfaceDocument], Iterable[str]]] = {
    "Name": lambda document: [document.name],
    "Address": lambda document: [document.slug],
    "Index": lambda document: [document.index],
    "Candidates": lambda document: [str(document.candidates)],
    "Results": lambda document: [f"{document.limit}, at most {document.max_limit}"],
    "Fields returned": lambda document: document.fields or ["all"],
    "Filters": lambda document: map(_filter, document.filters),
    "Enrichment": lambda document: map(_source, document.sources),
    "Reranking": lambda document: _reranker(document.reranker),
    "Without a query": _starts,
    "Deadline": lambda document: [f"{document.deadline_ms} ms"],
    "If it fails": _fallback,
}
