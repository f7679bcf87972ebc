"""Judgments from a CSV with the columns query, product_id and grade.

A whole file is read before anything is written, so that what is wrong is said at once,
each with its line, and an upload replaces the list or leaves it as it was.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from django.db import transaction

from indexes.errors import IndexesError
from indexes.models import IndexDefinition, JudgedQuery, Judgment

COLUMNS: Final = ("query", "product_id", "grade")
MAX_ROWS: Final = 100_000
MAX_QUERY: Final = 300
MAX_PRODUCT: Final = 256
MAX_GRADE: Final = 100
# Enough to see what is wrong with a file.
SHOWN_PROBLEMS: Final = 10
_AT_ONCE: Final = 2000


class JudgmentError(IndexesError):
    """A file is no list of judgments; ``problems`` are sentences, each with its line."""

    reason = "judgments"

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Sheet:
    """What a file says: the grade of each query and product, and how many lines were said again."""

    grades: dict[tuple[str, str], float]
    duplicates: int

    @property
    def queries(self) -> int:
        return len({query for query, _ in self.grades})


def read(file: BinaryIO) -> Sheet:
    """Return the judgments of a CSV in UTF-8; of a pair that comes twice the last grade counts.

    Columns may come in any order and be parted by commas, semicolons or tabs. Raises JudgmentError.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        return _read(text)
    except UnicodeDecodeError as error:
        raise JudgmentError(['The file is not in UTF-8: save it as "CSV UTF-8".']) from error
    except csv.Error as error:
        raise JudgmentError([f"The file cannot be read as CSV: {error}."]) from error
    finally:
        # The file is the caller's to close.
        text.detach()


def replace(definition: IndexDefinition, sheet: Sheet) -> None:
    """Put the judgments in place of those that the index has, all or none of them."""
    with transaction.atomic():
        _lock(definition)
        definition.judgments.all().delete()
        Judgment.objects.bulk_create(
            (
                Judgment(definition=definition, query=query, product_id=product, grade=grade)
                for (query, product), grade in sheet.grades.items()
            ),
            batch_size=_AT_ONCE,
        )
        kept = definition.judgments.values("query")
        JudgedQuery.objects.filter(definition=definition).exclude(query__in=kept).delete()


def remove(definition: IndexDefinition) -> int:
    """Remove the judgments of an index; return how many there were."""
    with transaction.atomic():
        _lock(definition)
        count = definition.judgments.count()
        definition.judgments.all().delete()
        definition.judged_queries.all().delete()
    return count


def _lock(definition: IndexDefinition) -> None:
    """Let one upload at a time change an index's judgments."""
    IndexDefinition.objects.select_for_update().get(pk=definition.pk)


def _read(text: io.TextIOWrapper) -> Sheet:
    first = text.readline()
    delimiter = max(",;\t", key=first.count)
    places = _places(next(csv.reader([first], delimiter=delimiter), []))
    grades: dict[tuple[str, str], float] = {}
    problems: list[str] = []
    duplicates = 0
    for line, cells in _lines(text, delimiter):
        if len(grades) + duplicates >= MAX_ROWS:
            raise JudgmentError([f"The file has more than {MAX_ROWS:,} judgments."])
        try:
            pair, grade = _judgment(cells, places)
        except ValueError as error:
            problems.append(f"Line {line}: {error}.")
            if len(problems) == SHOWN_PROBLEMS:
                problems.append("What comes after it was not looked at.")
                break
            continue
        duplicates += pair in grades
        grades[pair] = grade
    if problems:
        raise JudgmentError(problems)
    if not grades:
        raise JudgmentError(["The file has a header, but no judgments under it."])
    return Sheet(grades, duplicates)


def _places(header: list[str]) -> list[int]:
    names = [name.strip().lower() for name in header]
    if missing := [name for name in COLUMNS if name not in names]:
        raise JudgmentError(
            [
                f"The first line must name the columns {', '.join(COLUMNS)}; it lacks "
                f"{', '.join(missing)}."
            ]
        )
    return [names.index(name) for name in COLUMNS]


def _lines(text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of the line it starts in; empty ones are left out."""
    reader = csv.reader(text, delimiter=delimiter)
    line = 2
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 2


def _judgment(cells: list[str], places: list[int]) -> tuple[tuple[str, str], float]:
    if len(cells) <= max(places):
        raise ValueError(f"it has {len(cells)} of {max(places) + 1} columns")
    query, product, grade = (cells[place].strip() for place in places)
    query = " ".join(query.split())
    for name, value, longest in (
        ("query", query, MAX_QUERY),
        ("product_id", product, MAX_PRODUCT),
    ):
        if not value:
            raise ValueError(f"{name} is empty")
        if len(value) > longest:
            raise ValueError(f"{name} has more than {longest} characters")
        if "\0" in value:
            raise ValueError(f"{name} has a NUL character")
    return (query, product), _grade(grade)


def _grade(text: str) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = math.nan
    if not 0 <= grade <= MAX_GRADE:
        raise ValueError(f'grade "{text[:40]}" is not a number from 0 to {MAX_GRADE}')
    return grade
