"""What a gate is and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from indexes.models import GateResult
from indexes.validation.bench import Bench

Outcome = GateResult.Outcome


@dataclass(frozen=True)
class Result:
    """One figure against its threshold, in words for a merchandiser.

    ``saved`` are fields of the build that were measured on the way.
    """

    outcome: GateResult.Outcome
    message: str
    figure: float | None = None
    threshold: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """One check of a build; its measure is repeated from its beginning when it was cut off."""

    name: str
    title: str
    measure: Callable[[Bench], Result]


def skipped(why: str, **detail: Any) -> Result:
    """Return the result of a gate that does not apply to this build."""
    return Result(Outcome.SKIPPED, why, detail=detail)


def percent(share: float) -> str:
    """Return a share as people read it: ``99.2 %``; never rounded up to 100."""
    return f"{int(share * 1000 + 1e-6) / 10:g} %"
