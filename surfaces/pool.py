"""The threads that slow stages run in, so that a request can stop waiting for them.

The pool has no queue: a call gets a free thread or is refused at once. What is
refused could only have started after threads came back that others have
abandoned, past the deadline of whoever asked.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from time import perf_counter
from typing import Any, Generic, NoReturn, TypeVar

import structlog

from enrichment.errors import EnrichmentError
from indexes.errors import IndexesError

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a call gave: a value, or the reason it has none."""

    value: T | None
    reason: str
    started: float
    ended: float


class Call(Generic[T]):
    """A call that runs in the pool, or has the reason why it does not."""

    __slots__ = ("_ended", "_function", "_future", "_refusal", "stage", "started")

    def __init__(self, stage: str, function: Callable[..., T]) -> None:
        self.stage = stage
        self._function = function
        self._refusal = ""
        self._future: Future[T] | None = None
        self.started = perf_counter()
        self._ended = 0.0

    @classmethod
    def refused(cls, stage: str, reason: str) -> "Call[T]":
        """Return a call that is not made, for this reason."""
        call: Call[T] = cls(stage, _never)
        call._refusal = reason
        return call

    def outcome(self, timeout_s: float) -> Outcome[T]:
        """Wait for at most so long; a call that is not done then is abandoned (``timeout``)."""
        if self._future is None:
            return self._failed(self._refusal or "overloaded")
        try:
            error = self._future.exception(timeout_s)
        except TimeoutError:
            return self._failed("timeout")
        if error is None:
            return Outcome(self._future.result(), "", self.started, self._ended)
        if isinstance(error, (IndexesError, EnrichmentError)):
            return self._failed(error.reason)
        log.error("stage broke", stage=self.stage, exc_info=error)
        return self._failed("error")

    def _failed(self, reason: str) -> Outcome[T]:
        return Outcome(None, reason, self.started, self._ended or perf_counter())


def _never(*_: object) -> NoReturn:
    raise AssertionError("a refused call was made")


class Pool:
    """A fixed number of threads, each of which runs one call at a time."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._free = BoundedSemaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="stage")

    def start(self, stage: str, function: Callable[..., T], *args: Any) -> Call[T]:
        """Run the function now; without a free thread the outcome is ``overloaded``."""
        call = Call(stage, function)
        if self._free.acquire(blocking=False):
            call._future = self._executor.submit(self._run, call, args)
        return call

    def _run(self, call: Call[T], args: tuple[Any, ...]) -> T:
        try:
            return call._function(*args)
        finally:
            call._ended = perf_counter()
            self._free.release()
