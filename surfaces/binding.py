"""A request bound to a plan: every value checked, and all that the stages need.

Raises BadRequest with every wrong field at once. Values that filters and sources
may name are ``user_id``, ``session_id`` and the keys of the context; an empty
text counts as missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from enrichment.keys import REQUEST_NAMES
from indexes.errors import FilterError
from indexes.filters import Clause, Nothing, compile_filter, parse_caller_filter, parse_values
from surfaces.contracts import RecommendRequest
from surfaces.document import WhenMissing
from surfaces.errors import BadRequest, FieldError
from surfaces.plan import Plan, PlannedSource


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks: ``sources`` are those it has the key values for."""

    text: str
    seeds: tuple[str, ...]
    excluded: frozenset[str]
    clauses: tuple[Clause, ...]
    values: Mapping[str, str]
    sources: tuple[PlannedSource, ...]
    limit: int

    @property
    def matches_nothing(self) -> bool:
        return any(isinstance(clause, Nothing) for clause in self.clauses)


def bind(plan: Plan, request: RecommendRequest) -> Question:
    """Check the request against the surface; raise BadRequest naming each wrong field."""
    errors: list[FieldError] = []
    values = _values(request)
    document = plan.document
    text = (request.query or "").strip()
    if not (
        text
        or request.item_ids
        or document.seed_signal
        or document.default_query
        or document.browse_field
    ):
        errors.append(
            FieldError(
                "query", "required", "Give a query or item_ids: this surface has no other start."
            )
        )
    limit = document.limit if request.limit is None else request.limit
    if limit > document.max_limit:
        errors.append(
            FieldError(
                "limit", "too_large", f"This surface gives at most {document.max_limit} items."
            )
        )
    clauses = (*plan.static, *_context(plan, values, errors), *_caller(plan, request, errors))
    if plan.index is not None and len(clauses) > len(plan.static) and not errors:
        try:
            compile_filter(clauses, plan.index.spec)
        except FilterError as error:
            errors.append(FieldError("filters", "invalid", str(error)))
    sources = _sources(plan, values, errors)
    if errors:
        raise BadRequest(errors)
    return Question(
        text=text,
        seeds=tuple(dict.fromkeys(request.item_ids)),
        excluded=frozenset((*request.exclude_ids, *request.item_ids)),
        clauses=clauses,
        values=values,
        sources=sources,
        limit=limit,
    )


def address(name: str) -> str:
    """Return where a request holds a value: ``user_id``, ``context.region``."""
    return name if name in REQUEST_NAMES else f"context.{name}"


def _values(request: RecommendRequest) -> dict[str, str]:
    values = {}
    for name, value in request.context.items():
        if value is not None and name not in REQUEST_NAMES:
            values[name] = _text(value)
    for name, own in zip(REQUEST_NAMES, (request.user_id, request.session_id), strict=True):
        if own:
            values[name] = own
    return values


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _context(plan: Plan, values: Mapping[str, str], errors: list[FieldError]) -> list[Clause]:
    clauses: list[Clause] = []
    for item in plan.context:
        where = address(item.key)
        value = values.get(item.key)
        if not value:
            clauses += _missing(where, item.when_missing, errors)
            continue
        try:
            clauses.append(parse_values(item.field, item.operator, [value]))
        except FilterError as error:
            errors.append(FieldError(where, "invalid", str(error)))
    return clauses


def _caller(plan: Plan, request: RecommendRequest, errors: list[FieldError]) -> list[Clause]:
    clauses: list[Clause] = []
    for name, value in request.filters.items():
        if plan.index is None:
            # Nothing says what the fields are, and nothing will be searched.
            break
        opened = plan.caller.get(name)
        where = f"filters.{name}"
        if opened is None:
            known = ", ".join(plan.caller) or "none"
            errors.append(
                FieldError(where, "not_open", f"This surface does not filter by it. Open: {known}.")
            )
            continue
        try:
            clauses += parse_caller_filter(opened.field, value)
        except FilterError as error:
            errors.append(FieldError(f"filters.{error.field}", "invalid", str(error)))
    for name, opened in plan.caller.items():
        if name not in request.filters:
            clauses += _missing(f"filters.{name}", opened.when_missing, errors)
    return clauses


def _missing(where: str, rule: WhenMissing, errors: list[FieldError]) -> list[Clause]:
    if rule is WhenMissing.REFUSE:
        errors.append(FieldError(where, "required", "This surface needs a value here."))
    return [Nothing()] if rule is WhenMissing.NOTHING else []


def _sources(
    plan: Plan, values: Mapping[str, str], errors: list[FieldError]
) -> tuple[PlannedSource, ...]:
    applicable = []
    for source in plan.sources:
        missing = [name for name in source.keys if not values.get(name)]
        if not missing:
            applicable.append(source)
        elif source.spec.required:
            errors += [
                FieldError(address(name), "required", f'Source "{source.spec.slug}" needs it.')
                for name in missing
            ]
    return tuple(applicable)
