"""Signals: what a stored item's attributes become, and the rule for what cannot be read.

The rule: an attribute that is missing, null, of another type than the signal's
kind, or holds nothing usable gives no signal. Never an error; one debug line.
"""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

import structlog

from enrichment.spec import SignalKind, SignalSpec

Weights: TypeAlias = Mapping[str, float]
Signals: TypeAlias = Mapping[str, float | Weights]

log = structlog.get_logger(__name__)


def read_signal(spec: SignalSpec, item: Mapping[str, Any]) -> float | Weights | None:
    """Return the signal that the item's attribute holds, or None where there is none.

    Number: a number, a numeric text or a truth value (1 or 0).
    Weights: a map from key to number, a list of ``[key, number]`` pairs, or a list or
    set of keys, which weigh 1 each. Entries that cannot be read are left out.
    """
    value = attribute_value(item, spec.attribute)
    signal = to_number(value) if spec.kind is SignalKind.NUMBER else to_weights(value)
    if signal is None:
        log.debug(
            "signal absent", signal=spec.name, attribute=spec.attribute, found=type(value).__name__
        )
    return signal


def attribute_value(item: Mapping[str, Any], path: str) -> Any:
    """Return what a dotted path leads to through nested maps, or None."""
    value: Any = item
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def to_number(value: Any) -> float | None:
    """Return a finite float, or None."""
    # Underscores are a spelling of Python's, not of data.
    if not isinstance(value, (int, float, Decimal, str)) or (
        isinstance(value, str) and "_" in value
    ):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_weights(value: Any) -> Weights | None:
    """Return a weight for each readable key, or None when there is none."""
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (list, tuple, set, frozenset)):
        pairs = (
            tuple(entry) if isinstance(entry, (list, tuple)) and len(entry) == 2 else (entry, 1)
            for entry in value
        )
    else:
        return None
    read = ((_key(key), to_number(weight)) for key, weight in pairs)
    weights = {key: weight for key, weight in read if key and weight is not None}
    return weights or None


def _key(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    # Ids that are numbers are compared with the text of catalog ids: 42, not 42.0.
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return str(int(value)) if value == int(value) else str(value)
