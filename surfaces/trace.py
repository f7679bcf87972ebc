"""What happened in one run: how long each stage took, and what was degraded."""

from surfaces.contracts import Degraded, Span
from surfaces.deadline import Deadline

STAGES = ("embed", "enrich", "search", "rerank")


class Trace:
    """Written by the request's own thread only."""

    def __init__(self, deadline: Deadline) -> None:
        self.degraded: list[Degraded] = []
        self._deadline = deadline
        self._spans: list[tuple[str, float, float, str]] = []

    def add(self, stage: str, started: float, ended: float, reason: str = "") -> None:
        """Record a stage that ran; moments are those of ``perf_counter``."""
        self._spans.append((stage, started, ended, reason))

    def degrade(self, stage: str, reason: str, spent_s: float) -> None:
        """Record a stage that the answer is made without."""
        self.degraded.append(
            Degraded(stage=stage, reason=reason, spent_ms=round(spent_s * 1000, 3))
        )

    def timings_ms(self) -> dict[str, float]:
        """Return ``total`` and each stage; a stage that did not run took 0.

        ``enrich`` is from the first source's start to the last one's end; ``search``
        includes reading the vectors of given items.
        """
        timings = dict.fromkeys(("total", *STAGES), 0.0)
        fetched: list[tuple[float, float]] = []
        for stage, started, ended, _ in self._spans:
            if stage.startswith("enrichment:"):
                fetched.append((started, ended))
            else:
                timings["search" if stage == "seed" else stage] += (ended - started) * 1000
        if fetched:
            first, last = min(s for s, _ in fetched), max(e for _, e in fetched)
            timings["enrich"] = (last - first) * 1000
        timings["total"] = self._deadline.elapsed_ms
        return {stage: round(ms, 3) for stage, ms in timings.items()}

    def spans(self) -> list[Span]:
        """Return the stages in the order of their start."""
        return [
            Span(
                stage=stage,
                start_ms=round(self._deadline.since_start_ms(started), 3),
                ms=round((ended - started) * 1000, 3),
                reason=reason,
            )
            for stage, started, ended, reason in sorted(self._spans, key=lambda span: span[1])
        ]
