"""Checks, beside the requests, that endpoints answer with the models that indexes were built with.

The check of a plan is one call to its endpoint, which also opens the connection that
its first request would wait for. What answers with another model is refused to
requests (``Stages.refused``) until a later check finds the right one. An endpoint
that gives no answer is not refused: requests find out for themselves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from threading import Lock, Thread
from time import monotonic

import structlog

from indexes.errors import EmbeddingError, EmbeddingOtherModel, IndexesError
from indexes.probe import check_model
from indexes.schema import EndpointSpec, LiveIndex
from surfaces.plan import Plan

# One call in a process for each model, which costs nothing beside the requests.
AGAIN_S = 60.0
# After a check that had no answer.
RETRY_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Check:
    """The last check of a model within one time limit."""

    thread: Thread
    due: float
    unanswered: bool = False


class Probes:
    """What the checks of this process found. Doors are safe to call from any thread."""

    def __init__(
        self,
        check: Callable[[LiveIndex, EndpointSpec], None] = check_model,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.refused: dict[str, EmbeddingError] = {}
        self._check = check
        self._clock = clock
        # By time limit too: each has a client of its own.
        self._checks: dict[tuple[str, int], _Check] = {}
        self._lock = Lock()

    def begin(self, plans: Iterable[Plan]) -> list[Thread]:
        """Begin the checks that are due, and return the threads of all that the plans need."""
        found: dict[tuple[str, int], _Check] = {}
        for plan in plans:
            if plan.index is None or plan.endpoint is None:
                continue
            key = (plan.model, plan.endpoint.timeout_ms)
            if key not in found:
                found[key] = self._begun(key, plan.index, plan.endpoint)
        return [check.thread for check in found.values()]

    def _begun(self, key: tuple[str, int], index: LiveIndex, endpoint: EndpointSpec) -> _Check:
        with self._lock:
            known = self._checks.get(key)
            if known is not None and (known.thread.is_alive() or self._clock() < known.due):
                return known
            run = (key, index, endpoint, known is not None and known.unanswered)
            # A daemon: a process may end while an endpoint hangs.
            thread = Thread(target=self._run, args=run, name="probe", daemon=True)
            # Without a probe there is nothing to compare, only a connection to open.
            due = self._clock() + AGAIN_S if index.probe else inf
            check = self._checks[key] = _Check(thread, due)
            thread.start()
            return check

    def _run(
        self, key: tuple[str, int], index: LiveIndex, endpoint: EndpointSpec, unanswered: bool
    ) -> None:
        model, _ = key
        try:
            self._check(index, endpoint)
        except EmbeddingOtherModel as error:
            if model not in self.refused:
                log.error("endpoint has another model", endpoint=endpoint.slug, message=str(error))
            self.refused[model] = error
        except IndexesError as error:
            check = self._checks[key]
            check.due, check.unanswered = self._clock() + RETRY_S, True
            if not unanswered:
                log.warning("endpoint not checked", endpoint=endpoint.slug, reason=error.reason)
        else:
            if self.refused.pop(model, None) is not None:
                log.info("endpoint has its model again", endpoint=endpoint.slug)
