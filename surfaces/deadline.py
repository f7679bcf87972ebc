"""The one clock of a request."""

from time import perf_counter


class Deadline:
    """Seconds that a request may take, counted from now."""

    __slots__ = ("_ends", "_started")

    def __init__(self, seconds: float) -> None:
        self._started = perf_counter()
        self._ends = self._started + seconds

    def remaining(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self._ends - perf_counter())

    @property
    def elapsed_ms(self) -> float:
        return (perf_counter() - self._started) * 1000

    def since_start_ms(self, moment: float) -> float:
        """Return when a moment of ``perf_counter`` was, in milliseconds after the start."""
        return (moment - self._started) * 1000
