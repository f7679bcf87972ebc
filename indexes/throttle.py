"""How fast an embedding endpoint is called: fewer calls while it is busy, and one rate for all workers.

The rate is one key in Valkey: the time of the next free turn, which each call takes
and moves on (the generic cell rate algorithm without a burst).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Event
from typing import Final

from django.conf import settings

from indexes.schema import EndpointSpec
from indexes.valkey_client import write

# Calls that went well, for each call at once, before one more at once is tried.
CALM: Final = 10
STEP_S: Final = 0.5
_TIMEOUT_S: Final = 5.0

# In microseconds of the server's clock, so that workers' clocks need not agree.
_TAKE_TURN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local turn = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local free = turn + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', math.ceil((free - now) / 1000) + 1000)
return turn - now
"""


def take_turn(endpoint: EndpointSpec) -> float:
    """Take the next free turn to call the endpoint, and return the seconds until it has come.

    0 without a limit. All workers of the installation share the turns. Raises SearchError.
    """
    if endpoint.max_calls_per_second <= 0:
        return 0.0
    key = f"{settings.VALKEY_NAMESPACE}:turn:{endpoint.region}:{endpoint.endpoint_name}".encode()
    interval = round(1_000_000 / endpoint.max_calls_per_second)
    command = (key, ("EVAL", _TAKE_TURN, 1, key, interval))
    [wait] = write(lambda servers: servers.pipeline([command]), _TIMEOUT_S)
    return float(wait) / 1_000_000


class Gate:
    """Lets so many calls through at once; half as many, and after a pause, once the endpoint was busy."""

    def __init__(self, limit: int, stop: Event) -> None:
        self._limit = self._open = limit
        self._stop = stop
        self._under_way = 0
        self._calm = 0
        self._not_before = 0.0
        self._changed = Condition()

    @property
    def open(self) -> int:
        """How many calls may be under way now."""
        return self._open

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for a place among the calls under way, and hold it."""
        with self._changed:
            while not self._stop.is_set():
                pause = self._not_before - time.monotonic()
                if pause <= 0 and self._under_way < self._open:
                    break
                self._changed.wait(min(pause, STEP_S) if pause > 0 else STEP_S)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def throttled(self, pause_s: float) -> None:
        """Take note that the endpoint said it is busy: nobody calls it for so long."""
        with self._changed:
            self._calm = 0
            self._open = max(1, self._open // 2)
            self._not_before = max(self._not_before, time.monotonic() + pause_s)

    def went_well(self) -> None:
        """Take note of an answer; after enough of them one more call at once is let through."""
        with self._changed:
            self._calm += 1
            if self._open < self._limit and self._calm >= CALM * self._open:
                self._calm = 0
                self._open += 1
                self._changed.notify_all()
