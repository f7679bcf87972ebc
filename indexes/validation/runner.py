"""Running the gates of a build, one after another, a few in each turn."""

from __future__ import annotations

import time
from typing import Final

from django.db import transaction

from indexes.lease import Lease
from indexes.models import GateResult, IndexBuild
from indexes.validation import (
    counts,
    latency,
    memory,
    ndcg,
    overlap,
    probe,
    recall,
    self_retrieval,
    surfaces_fit,
)
from indexes.validation.bench import Bench
from indexes.validation.result import Gate, Outcome, Result

MAX_MESSAGE: Final = 500

# Recall comes before what is measured by searching: it sets EF_RUNTIME.
GATES: Final = (
    Gate("source", "Items against the source", counts.against_source),
    Gate("live_items", "Items against the live build", counts.against_live),
    Gate(surfaces_fit.NAME, "Published surfaces fit", surfaces_fit.measure),
    Gate("probe", "Same embedding model from start to end", probe.measure),
    Gate("recall", "Recall against exact search", recall.measure),
    Gate("latency", "Search time against the live build", latency.measure),
    Gate("self_retrieval", "Items found by their own text", self_retrieval.measure),
    Gate("overlap", "First items shared with the live build", overlap.measure),
    Gate("ndcg", "Ranking against judgments", ndcg.measure),
)


def run(lease: Lease, *, seconds: float) -> bool:
    """Run the gates that have no result yet; True when the verdict is saved on the build.

    Each result is committed when it is there, so that a killed worker costs one gate.
    A gate that failed keeps the others from nothing: people see every figure.
    """
    until = time.monotonic() + seconds
    build = lease.build
    bench = Bench(lease)
    known = set(build.gates.values_list("gate", flat=True))
    worked = False
    for position, gate in enumerate(GATES):
        if gate.name in known:
            continue
        if worked and time.monotonic() > until:
            return False
        bench.say(f"Checking: {gate.title[0].lower()}{gate.title[1:]}.")
        _save(lease, gate, position, gate.measure(bench))
        worked = True
    failed = build.gates.filter(outcome=Outcome.FAILED).exists()
    verdict = IndexBuild.Verdict.BLOCKED if failed else IndexBuild.Verdict.PASSED
    lease.save(verdict=verdict, memory_bytes=memory.measure(bench), notice="")
    return True


def _save(lease: Lease, gate: Gate, position: int, result: Result) -> None:
    with transaction.atomic():
        # First, as it locks the build and tells whether this worker still has it.
        lease.save(setbacks=0, **result.saved)
        GateResult.objects.create(
            build=lease.build,
            gate=gate.name,
            outcome=result.outcome,
            figure=result.figure,
            threshold=result.threshold,
            message=result.message[:MAX_MESSAGE],
            detail=result.detail,
            position=position,
        )
