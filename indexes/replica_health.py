"""How a replica has answered of late, so that one which is down or hangs does not hold up every read."""

from __future__ import annotations

from time import monotonic
from typing import Final

# For so long nobody waits for a replica that could not be reached, or that was
# too slow so many times in a row: the primary answers meanwhile.
REST_S: Final = 5.0
SLOW_TIMES: Final = 3


class Health:
    """One replica: it rests for a while once it was away, or slow several times in a row."""

    def __init__(self) -> None:
        self._slow = 0
        self._until = 0.0

    @property
    def rests(self) -> bool:
        """Tell whether it is not to be asked now."""
        return monotonic() < self._until

    def answered(self) -> None:
        self._slow = 0

    def was_slow(self) -> None:
        self._slow += 1
        if self._slow >= SLOW_TIMES:
            self.was_away()

    def was_away(self) -> None:
        self._slow = 0
        self._until = monotonic() + REST_S
