"""One look-up of a source with sample values, told in full: what was asked, found, read and why not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from time import perf_counter
from typing import Any

from enrichment import sources
from enrichment.errors import EnrichmentError
from enrichment.signals import Weights, attribute_value, read_signal
from enrichment.spec import SignalKind, SignalSpec, SourceSpec

# Entries of a weight map and characters of a stored value that are shown.
MOST_ENTRIES = 20
MOST_CHARACTERS = 300


@dataclass(frozen=True)
class SignalTrial:
    """A signal as it was read; neither number nor weights when it is absent, and then why."""

    spec: SignalSpec
    number: float | None
    weights: list[tuple[str, float]]
    more: int
    absent: str
    stored: str


@dataclass(frozen=True)
class Trial:
    """What the look-up gave: signals, no item, or an error with its next step."""

    key: Mapping[str, str]
    ms: float
    found: bool
    signals: list[SignalTrial]
    error: EnrichmentError | None = None


def try_source(source: SourceSpec, values: Mapping[str, str]) -> Trial:
    """Look the sample's item up as a request would, with the source's own time limit."""
    try:
        key = sources.item_key(source, values)
        # A serving process has its client made when it starts.
        sources.warm(source)
    except EnrichmentError as error:
        return Trial({}, 0.0, False, [], error)
    started = perf_counter()
    try:
        item = sources.stored_item(source, values)
    except EnrichmentError as error:
        return Trial(key, _ms_since(started), False, [], error)
    ms = _ms_since(started)
    if item is None:
        return Trial(key, ms, False, [])
    return Trial(key, ms, True, [_signal(spec, item) for spec in source.signals])


def _ms_since(started: float) -> float:
    return round((perf_counter() - started) * 1000, 1)


def _signal(spec: SignalSpec, item: Mapping[str, Any]) -> SignalTrial:
    stored = attribute_value(item, spec.attribute)
    read = read_signal(spec, item)
    weights = _heaviest(read) if isinstance(read, Mapping) else []
    text = "" if stored is None else _json(stored)
    return SignalTrial(
        spec=spec,
        number=read if isinstance(read, float) else None,
        weights=weights[:MOST_ENTRIES],
        more=max(0, len(weights) - MOST_ENTRIES),
        absent=_why_absent(spec, stored) if read is None else "",
        stored=text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…",
    )


def _heaviest(weights: Weights) -> list[tuple[str, float]]:
    return sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))


def _json(stored: Any) -> str:
    return (
        stored
        if isinstance(stored, str)
        else json.dumps(stored, default=_plain, ensure_ascii=False)
    )


def _plain(stored: Any) -> Any:
    if isinstance(stored, Decimal):
        return int(stored) if stored == stored.to_integral_value() else float(stored)
    return sorted(stored, key=str) if isinstance(stored, set) else str(stored)


def _why_absent(spec: SignalSpec, stored: Any) -> str:
    if stored is None:
        return f"The item has nothing at {spec.attribute}."
    if spec.kind is SignalKind.NUMBER:
        return "The stored value is no number."
    return "The stored value is no map of numbers, no list of pairs and no list or set of names."
