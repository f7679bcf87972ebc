"""What a row of a catalog brings along for its item by itself: a ready vector, and a version."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from indexes.embedding import unit_length
from indexes.errors import RowError
from indexes.schema import EndpointSpec
from indexes.values import as_number

Vector = npt.NDArray[np.float32]

# The square of a unit vector differs from 1 by no more than 32 bits can tell.
_UNIT = 1e-6


def given_vector(value: Any, field: str, endpoint: EndpointSpec) -> Vector | None:
    """Return the vector that a row holds in ``field``, of shape (dimension,), or None without one.

    Takes a list of numbers, an array, or JSON text as CSV has it. Raises RowError ``bad_vector``.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    numbers = _numbers(value)
    if numbers is None:
        raise _bad(field, "it is no list of numbers")
    if len(numbers) != endpoint.dimension:
        raise _bad(
            field,
            f"it has {len(numbers):,} numbers, and vectors of the endpoint "
            f'"{endpoint.slug}" have {endpoint.dimension:,}',
        )
    with np.errstate(over="ignore"):
        vector = numbers.astype(np.float32, copy=False)
        # Finite only if every number is, and not too large for its square.
        square = float(np.dot(vector, vector))
    if not math.isfinite(square) and not np.isfinite(vector).all():
        raise _bad(field, "it holds NaN, or numbers too large for 32 bits")
    if not endpoint.normalize or abs(square - 1) < _UNIT:
        return vector
    if not vector.any():
        raise _bad(field, "it is all zeros and cannot be scaled to length 1")
    scaled: Vector = unit_length(vector[np.newaxis])[0]
    return scaled


def given_version(value: Any, field: str) -> float | None:
    """Return the version that a row holds in ``field``: a number, or an ISO date in epoch seconds.

    None without one. Raises RowError ``bad_version``.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError("it is true or false, not a number or a date")
        return float(as_number(value))
    except ValueError as error:
        raise RowError("bad_version", f"{field}: {error}.") from error


def _numbers(value: Any) -> npt.NDArray[Any] | None:
    """Return a flat array of numbers, None where the value is anything else."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        # Lists of different lengths in it, or an integer that no number of the array holds.
        return None
    return array if array.ndim == 1 and array.dtype.kind in "fiu" else None


def _bad(field: str, problem: str) -> RowError:
    return RowError("bad_vector", f"{field}: {problem}.")
