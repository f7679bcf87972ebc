"""Gates in words: their titles, their figures, and the details that a gate leaves as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexes.validation import GATES

MOST_ROWS = 50
_TITLES = {gate.name: gate.title for gate in GATES}
# Names with letters of their own.
WRITTEN = {"ndcg": "nDCG", "ef runtime": "EF_RUNTIME"}
KEPT = ("nDCG", "p50", "p99")
# PostgreSQL keeps JSON objects in an order of its own: these columns come first.
FIRST = ("query", "item", "id", "gone", "new", "ef_runtime", "ndcg", "live_ndcg")

Lines = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One piece of a gate's detail: a value, or a table where ``columns`` are set.

    A cell is the lines in it.
    """

    title: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Lines, ...], ...] = ()


def gate_title(gate: str) -> str:
    """Return a gate's name as people read it; results of an older release may name another gate."""
    return _TITLES.get(gate) or words(gate)


def words(name: str) -> str:
    """Return a key as a caption: ``not_found`` is ``Not found``, ``live_p99_ms`` is ``Live p99 (ms)``."""
    text = re.sub(r" ms$", " (ms)", name.replace("_", " ").strip())
    for plain, written in WRITTEN.items():
        text = re.sub(rf"\b{plain}\b", written, text)
    return text if text.startswith(KEPT) else text[:1].upper() + text[1:]


def number(value: float | None) -> str:
    """Return a figure as short as it can be told: ``0.987``, ``19,406``, ``1.25``."""
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def detail_parts(detail: Mapping[str, Any]) -> list[Part]:
    """Return a gate's detail as captions with values, and then lists of records as tables."""
    parts = [_part(words(name), value) for name, value in detail.items()]
    return sorted(parts, key=lambda part: bool(part.columns))


def _part(title: str, value: Any) -> Part:
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        return _table(title, value[:MOST_ROWS])
    return Part(title, text=" · ".join(_lines(value)))


def _table(title: str, records: Sequence[Mapping[str, Any]]) -> Part:
    names = sorted(_names(records), key=lambda name: FIRST.index(name) if name in FIRST else 99)
    rows = tuple(tuple(_lines(record.get(name)) for name in names) for record in records)
    return Part(title, columns=tuple(map(words, names)), rows=rows)


def _names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _lines(value: Any) -> Lines:
    if isinstance(value, list):
        return tuple(_text(entry) for entry in value) or ("–",)
    return (_text(value),)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(name))}: {_text(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return " · ".join(_text(entry) for entry in value)
    return str(value)
