"""The sources of one request, fetched side by side while its query is embedded."""

from collections.abc import Mapping, Sequence
from time import perf_counter

from enrichment.signals import Signals, Weights
from surfaces.deadline import Deadline
from surfaces.errors import StageFailed
from surfaces.plan import PlannedSource
from surfaces.pool import Call
from surfaces.stages import Stages
from surfaces.trace import Trace


class Enrichment:
    """Calls that run, and the signals of those that were waited for."""

    def __init__(self, stages: Stages, deadline: Deadline, trace: Trace) -> None:
        self.signals: dict[str, float | Weights] = {}
        self._stages = stages
        self._deadline = deadline
        self._trace = trace
        self._calls: list[tuple[PlannedSource, Call[Signals]]] = []

    def start(self, sources: Sequence[PlannedSource], values: Mapping[str, str]) -> None:
        """Start fetching every source; returns at once."""
        for source in sources:
            call = self._stages.pool.start(source.stage, self._stages.fetch, source.spec, values)
            self._calls.append((source, call))

    def signal(self, name: str) -> float | Weights | None:
        """Wait for the source that gives this signal, if the request has one."""
        for source, call in self._calls:
            if any(signal.name == name for signal in source.spec.signals):
                self._calls.remove((source, call))
                self._take(source, call)
                break
        return self.signals.get(name)

    def collect(self) -> Signals:
        """Wait for all sources, each within its own time; a required one that failed raises StageFailed."""
        for source, call in self._calls:
            self._take(source, call)
        self._calls = []
        return self.signals

    def _take(self, source: PlannedSource, call: Call[Signals]) -> None:
        own_time = call.started + source.spec.timeout_ms / 1000 - perf_counter()
        outcome = call.outcome(max(0.0, min(own_time, self._deadline.remaining())))
        self._trace.add(source.stage, outcome.started, outcome.ended, outcome.reason)
        if outcome.value is not None:
            self.signals.update(outcome.value)
        elif source.spec.required:
            raise StageFailed(source.stage, outcome.reason)
        else:
            self._trace.degrade(source.stage, outcome.reason, outcome.ended - outcome.started)
