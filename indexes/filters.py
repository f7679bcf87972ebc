"""Filters: clauses as values, and the one place that writes them as query text.

Everything that a caller or a merchandiser can type passes through here. The text
keeps to what valkey-search and RediSearch read alike: parentheses around each
negation, no parameters, no empty range, words joined one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

from pydantic import JsonValue

from indexes.errors import FilterError
from indexes.schema import FieldSpec, FieldType, IndexSpec
from indexes.values import as_number, has_controls, tag_text, words

# valkey-search refuses queries above 10,240 bytes; the KNN part needs some of them.
MAX_QUERY_BYTES: Final = 10_000
# The whole filter when there is no clause. Only valid in front of a KNN part.
EVERYTHING: Final = "*"
# Not query text: a filter that no item can pass is never sent.
NOTHING: Final = "<nothing>"

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
# "_" too: RediSearch takes it for a letter, but not where it stands alone.
_TO_ESCAPE: Final = re.compile(r"([\s!-/:-@\[-`{-~])", re.ASCII)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field holds at least one of the values."""

    field: str
    values: tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The field holds none of the values; an item without the field passes."""

    field: str
    values: tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number lies within the bounds."""

    field: str
    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """The text holds each of the words, in any order."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No item passes."""


Clause = AnyOf | NoneOf | Range | Words | Nothing

_BOUNDS: Final = ("gte", "gt", "lte", "lt")


def parse_caller_filter(field: FieldSpec, value: JsonValue) -> tuple[Clause, ...]:
    """Return the clauses for what a caller sent for a field: a value, a list, or an object of operators."""
    if not isinstance(value, dict):
        if field.type is FieldType.TEXT:
            return (_words(field, [value]),)
        return (AnyOf(field.name, _values(field, value)),)
    known = {"any", "none", *_BOUNDS}
    if not value or not value.keys() <= known:
        raise FilterError(
            field.name, 'Use a value, a list of values, or an object of "any", "none", '
            '"gte", "gt", "lte", "lt".',
        )  # fmt: skip
    clauses: list[Clause] = []
    if "any" in value:
        clauses.append(AnyOf(field.name, _values(field, value["any"])))
    if "none" in value:
        clauses.append(NoneOf(field.name, _values(field, value["none"])))
    bounds = {name: _caller_bound(field, name, value[name]) for name in _BOUNDS if name in value}
    if bounds:
        clauses.append(Range(field.name, **bounds))
    return tuple(clauses)


def parse_values(field: FieldSpec, operator: str, values: Sequence[str | float | bool]) -> Clause:
    """Return the clause for a configured operator: any_of, none_of, at_least, at_most or words."""
    if operator == "words":
        return _words(field, values)
    if operator in ("at_least", "at_most"):
        if len(values) != 1:
            raise FilterError(field.name, "Give exactly one number for this operator.")
        bound = _bound(field, values[0])
        if operator == "at_least":
            return Range(field.name, gte=bound)
        return Range(field.name, lte=bound)
    if operator not in ("any_of", "none_of"):
        raise FilterError(field.name, f'There is no operator "{operator}".')
    checked = _values(field, list(values))
    return AnyOf(field.name, checked) if operator == "any_of" else NoneOf(field.name, checked)


def compile_filter(clauses: Sequence[Clause], spec: IndexSpec) -> str:
    """Return the query text of the clauses, all of which must hold: ``*``, ``(…)`` or NOTHING.

    Raises FilterError for a field or value that the index cannot answer.
    """
    parts: list[str] = []
    for clause in clauses:
        part = NOTHING if isinstance(clause, Nothing) else _compile(clause, spec)
        if part == NOTHING:
            return NOTHING
        if part != EVERYTHING:
            parts.append(part)
    if not parts:
        return EVERYTHING
    text = f"({' '.join(parts)})"
    if len(text.encode()) > MAX_QUERY_BYTES:
        longest = max((c for c in clauses if not isinstance(c, Nothing)), key=_size)
        raise FilterError(
            longest.field, "The filter is too long for the search engine; give fewer values."
        )
    return text


def matches(clauses: Iterable[Clause], fields: Mapping[str, Any]) -> bool:
    """Tell whether an item with these decoded fields passes all the clauses."""
    return all(_passes(clause, fields) for clause in clauses)


def _compile(clause: AnyOf | NoneOf | Range | Words, spec: IndexSpec) -> str:
    field = spec.field(clause.field)
    if field is None:
        raise FilterError(clause.field, f'The index "{spec.slug}" has no field "{clause.field}".')
    match clause:
        case Words():
            return _compile_words(field, clause.text)
        case Range():
            return _compile_range(field, clause)
    if field.type is FieldType.TAG:
        texts = [_checked_tag(field, value) for value in clause.values]
        texts = [re.sub(_TO_ESCAPE, r"\\\1", text) for text in texts if text]
        return _either(clause, [f"@{field.name}:{{{'|'.join(texts)}}}"] if texts else [])
    _require(field, FieldType.NUMERIC)
    numbers = [_number(field, value) for value in clause.values]
    return _either(clause, [f"@{field.name}:[{number} {number}]" for number in numbers])


def _either(clause: AnyOf | NoneOf, parts: list[str]) -> str:
    if isinstance(clause, NoneOf):
        return f"({' '.join(f'-{part}' for part in parts)})" if parts else EVERYTHING
    if len(parts) < 2:
        return parts[0] if parts else NOTHING
    return f"({' | '.join(parts)})"


def _compile_range(field: FieldSpec, clause: Range) -> str:
    _require(field, FieldType.NUMERIC)
    for bound in (clause.gte, clause.gt, clause.lte, clause.lt):
        if bound is not None:
            _number(field, bound)
    # Of an inclusive and an exclusive bound the narrower one counts.
    low, low_open = max(
        (-math.inf if clause.gte is None else clause.gte, False),
        (-math.inf if clause.gt is None else clause.gt, clause.gt is not None),
    )
    high, high_closed = min(
        (math.inf if clause.lte is None else clause.lte, True),
        (math.inf if clause.lt is None else clause.lt, clause.lt is None),
    )
    # An empty range is an error to valkey-search.
    if low > high or (low == high and (low_open or not high_closed)):
        return NOTHING
    start = f"{'(' if low_open else ''}{_number_text(low)}"
    end = f"{'' if high_closed else '('}{_number_text(high)}"
    return f"@{field.name}:[{start} {end}]"


def _compile_words(field: FieldSpec, text: str) -> str:
    _require(field, FieldType.TEXT)
    _refuse_broken(field, text)
    terms = words(text)
    if not terms:
        return NOTHING
    return f"({' '.join(f'@{field.name}:{term}' for term in terms)})"


def _passes(clause: Clause, fields: Mapping[str, Any]) -> bool:
    match clause:
        case Nothing():
            return False
        case AnyOf():
            return not _held(fields.get(clause.field)).isdisjoint(map(_fold, clause.values))
        case NoneOf():
            return _held(fields.get(clause.field)).isdisjoint(map(_fold, clause.values))
        case Words():
            held = fields.get(clause.field)
            asked = set(words(clause.text))
            return bool(asked) and isinstance(held, str) and asked <= set(words(held))
    number = fields.get(clause.field)
    return (
        isinstance(number, int | float)
        and (clause.gte is None or number >= clause.gte)
        and (clause.gt is None or number > clause.gt)
        and (clause.lte is None or number <= clause.lte)
        and (clause.lt is None or number < clause.lt)
    )


def _held(value: Any) -> set[str | float]:
    if value is None:
        return set()
    return {_fold(part) for part in (value if isinstance(value, list) else [value])}


def _fold(value: Any) -> str | float:
    """Fold a tag as the engines compare it: without the case of ASCII letters."""
    return tag_text(value).translate(_LOWER) if isinstance(value, str) else float(value)


def _values(field: FieldSpec, value: object) -> tuple[str | float, ...]:
    given = value if isinstance(value, list) else [value]
    if field.type not in (FieldType.TAG, FieldType.NUMERIC):
        _require(field, FieldType.TAG)
    if not given:
        raise FilterError(field.name, "Give at least one value, or leave the filter out.")
    if field.type is FieldType.NUMERIC:
        return tuple(_bound(field, part) for part in given)
    return tuple(_checked_tag(field, part) for part in given)


def _checked_tag(field: FieldSpec, value: object) -> str:
    try:
        text = tag_text(value)
    except ValueError as error:
        raise FilterError(field.name, f"Each value must be usable as a tag: {error}.") from None
    _refuse_broken(field, text)
    # valkey-search takes a last "*" for a prefix search even when it is escaped.
    if has_controls(text) or text.endswith("*"):
        raise FilterError(field.name, 'A value may not hold control characters, nor end in "*".')
    return text


def _bound(field: FieldSpec, value: object) -> float:
    _require(field, FieldType.NUMERIC)
    try:
        return as_number(value)
    except ValueError as error:
        raise FilterError(field.name, f"Give a number: {error}.") from None


def _caller_bound(field: FieldSpec, name: str, value: object) -> float:
    try:
        return _bound(field, value)
    except FilterError as error:
        if field.type is not FieldType.NUMERIC:
            raise
        # The number is wrong, not the filter: say which of the bounds holds it.
        raise FilterError(f"{field.name}.{name}", str(error)) from None


def _words(field: FieldSpec, values: Sequence[object]) -> Words:
    _require(field, FieldType.TEXT)
    if not values or not all(isinstance(value, str | int | float) for value in values):
        raise FilterError(field.name, "Give the words as one text.")
    text = " ".join(map(str, values))
    _refuse_broken(field, text)
    if not words(text):
        raise FilterError(field.name, "Give at least one word to look for.")
    return Words(field.name, text)


def _require(field: FieldSpec, needed: FieldType) -> None:
    if field.type is needed:
        return
    uses = {
        FieldType.TAG: "a tag: filter it by values",
        FieldType.NUMERIC: "a number: filter it by values or bounds",
        FieldType.TEXT: "a text: filter it by words",
        FieldType.STORED: "only stored: it cannot be filtered",
    }
    raise FilterError(field.name, f'The field "{field.name}" is {uses[field.type]}.')


def _refuse_broken(field: FieldSpec, text: str) -> None:
    if "\x00" in text:
        raise FilterError(field.name, "A value may not hold a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(field.name, "A value holds broken Unicode.") from None


def _number(field: FieldSpec, value: str | float) -> str:
    return _number_text(_bound(field, value))


def _number_text(number: float) -> str:
    """Write a number as both engines read it: ``5``, ``0.1``, ``1e-07``, ``1e22``, ``+inf``."""
    if math.isinf(number):
        return "+inf" if number > 0 else "-inf"
    number = float(number)
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return repr(number).replace("e+", "e")


def _size(clause: AnyOf | NoneOf | Range | Words) -> int:
    return len(repr(clause))
