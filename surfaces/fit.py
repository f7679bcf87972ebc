"""Which published surfaces a build of their index would break, in words for its page.

Measured against the live build: what does not work there either says nothing about
the new one. A surface that does not compile goes on with its last plan, on a build
that leaves the engine soon after.
"""

from collections.abc import Iterator

from indexes.models import IndexBuild
from indexes.schema import IndexSpec, LiveIndex
from surfaces import snapshot
from surfaces.document import PublishedSurface, SurfaceDocument
from surfaces.errors import PlanInvalid, Problem
from surfaces.plan import compile_plan


def complaints(build: IndexBuild) -> list[str]:
    """Return a sentence for each way in which a published surface would break; empty where all fit."""
    index = build.to_live()
    found: list[str] = []
    for definition, names in snapshot.served().items():
        live = snapshot.live_index(definition)
        if definition.pk != build.definition_id or live is None:
            continue
        for surface in snapshot.published().values():
            if surface.document.index not in names:
                continue
            problems = _problems(surface, index)
            if problems and not _problems(surface, live):
                found += _sentences(surface.document, problems, index)
    return found


def _problems(surface: PublishedSurface, index: LiveIndex) -> tuple[Problem, ...]:
    try:
        compile_plan(surface, index)
    except PlanInvalid as error:
        return tuple(error.problems)
    return ()


def _sentences(
    document: SurfaceDocument, problems: tuple[Problem, ...], index: LiveIndex
) -> Iterator[str]:
    missing = dict.fromkeys(
        (verb, name) for verb, name in _uses(document) if not _has(index.spec, name)
    )
    for verb, name in missing:
        yield f"{document.name} {verb} {name}, which {index.label} does not have."
    quoted = [f'"{name}"' for _, name in missing]
    for problem in problems:
        if not any(name in problem.message for name in quoted):
            yield f"{document.name}: {problem.message}"


def _uses(document: SurfaceDocument) -> Iterator[tuple[str, str]]:
    """Yield the fields of the index that the document names, each with what it does with it."""
    for item in document.filters:
        yield "filters by", item.field
    for term in document.reranker.terms:
        if term.field:
            yield "ranks by", term.field
    if document.browse_field:
        yield "lists by", document.browse_field
    for name in document.fields:
        yield "returns", name


def _has(spec: IndexSpec, name: str) -> bool:
    return spec.field(name) is not None
