"""Calls of one embedding endpoint for many item texts: several at once, and with patience.

An endpoint that is busy, restarting or limited in calls a second is waited for; a text
that it refuses is told apart from its neighbours in the batch.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from types import TracebackType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from indexes.errors import (
    EmbeddingError,
    EmbeddingRejected,
    EmbeddingThrottled,
    EmbeddingTimeout,
)
from indexes.schema import EndpointSpec
from indexes.throttle import Gate, take_turn

Vectors = npt.NDArray[np.float32]
# The texts of one call and the seconds it may take, to their vectors.
Call = Callable[[EndpointSpec, Sequence[str], float], Vectors]

# Batches are larger than queries, and SageMaker itself ends a call after 60 s.
CALL_TIMEOUT_S: Final = 60.0
ATTEMPTS: Final = 6
# One that only says it is busy comes back: it is waited for 40 seconds.
THROTTLED_ATTEMPTS: Final = 10
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 8.0
BEAT_S: Final = 1.0


class Embedded(NamedTuple):
    """Vectors of the texts from ``start`` on, or why the one text there was refused."""

    start: int
    vectors: Vectors | EmbeddingRejected


class _Stopped(Exception):
    """Nobody waits for the answer any more."""


def _nothing() -> None:
    """Do nothing while a call is waited for."""


class PassageCalls:
    """Embeds texts with as many calls at once as the endpoint allows; ``beat`` runs about once a second.

    Use it as a context: leaving it gives up the calls under way. ``within_s``: the time that
    all of it may take. Without it an error is only raised after several attempts with pauses.
    """

    def __init__(
        self,
        endpoint: EndpointSpec,
        call: Call,
        *,
        beat: Callable[[], None] = _nothing,
        within_s: float | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._call = call
        self._beat = beat
        self._until = math.inf if within_s is None else time.monotonic() + within_s
        self._stop = Event()
        self._gate = Gate(endpoint.concurrency, self._stop)
        self._pool = ThreadPoolExecutor(endpoint.concurrency, "embed")

    def __enter__(self) -> PassageCalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stop.set()
        # A call may go on for a minute, and nobody needs its answer.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def embed(self, texts: Sequence[str], *, halve: bool = True) -> Iterator[Embedded]:
        """Yield the vectors of the texts in parts, as their calls end. Raises IndexesError.

        A batch that is refused is halved until the texts that are to blame stand alone;
        without ``halve`` it is an error.
        """
        size = self._endpoint.max_batch
        left = deque((start, texts[start : start + size]) for start in range(0, len(texts), size))
        running: dict[Future[Vectors], tuple[int, Sequence[str]]] = {}
        while left or running:
            # Few, so that an error is not behind a queue of calls.
            while left and len(running) < 2 * self._endpoint.concurrency:
                start, batch = left.popleft()
                running[self._pool.submit(self._patiently, batch)] = (start, batch)
            done, _ = wait(running, BEAT_S, return_when=FIRST_COMPLETED)
            self._beat()
            for future in done:
                start, batch = running.pop(future)
                try:
                    yield Embedded(start, future.result())
                except EmbeddingRejected as error:
                    if not halve:
                        raise
                    if len(batch) == 1:
                        yield Embedded(start, error)
                        continue
                    half = len(batch) // 2
                    left.appendleft((start + half, batch[half:]))
                    left.appendleft((start, batch[:half]))

    def _patiently(self, batch: Sequence[str]) -> Vectors:
        for attempt in range(1, THROTTLED_ATTEMPTS + 1):
            pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
            pause *= random.uniform(0.5, 1)
            with self._gate.passed():
                try:
                    vectors = self._in_turn(batch)
                except EmbeddingError as error:
                    throttled = isinstance(error, EmbeddingThrottled)
                    most = THROTTLED_ATTEMPTS if throttled else ATTEMPTS
                    late = time.monotonic() + pause >= self._until
                    if not error.retryable or attempt >= most or late:
                        raise
                    if throttled:
                        self._gate.throttled(pause)
                else:
                    self._gate.went_well()
                    return vectors
            self._stop.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _in_turn(self, batch: Sequence[str]) -> Vectors:
        self._stop.wait(min(take_turn(self._endpoint), self._left()))
        limit = min(CALL_TIMEOUT_S, self._left())
        if self._stop.is_set():
            raise _Stopped
        if limit <= 0:
            raise EmbeddingTimeout(
                f'The embedding endpoint "{self._endpoint.slug}" did not embed all texts in time.'
            )
        return self._call(self._endpoint, batch, limit)

    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0.0)
