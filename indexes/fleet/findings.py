"""What the doctor can find, as values: how bad, what, why it matters, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """ERROR: something does not work, or is about to stop. WARNING: it costs, or will."""

    ERROR = "error"
    WARNING = "warning"


class Kind(StrEnum):
    """What was found; each with a repair of its own, or none."""

    ORPHAN_INDEX = "orphan-index"
    ORPHAN_KEYS = "orphan-keys"
    LEFTOVER = "leftover"
    MISSING_INDEX = "missing-index"
    ITEMS_LOST = "items-lost"
    NOT_INDEXED = "not-indexed"
    COUNTER = "counter"
    MODEL_CHANGED = "model-changed"
    ENDPOINT_AWAY = "endpoint-away"
    REPLICA = "replica"
    MEMORY = "memory"
    EVICTION = "eviction"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    ``target`` is the index name, key prefix or build that it is about. ``repair`` is what
    a repair would do, in words; where it is empty, ``advice`` says what a person has to do.
    """

    kind: Kind
    target: str
    severity: Severity
    what: str
    why: str
    repair: str = ""
    advice: str = ""
    build_id: int | None = None

    @property
    def key(self) -> str:
        """Return what tells it from others, on a page and in a command."""
        return f"{self.kind}:{self.target}"
