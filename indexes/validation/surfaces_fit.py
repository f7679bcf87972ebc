"""Gate: every published surface works on the build, as it does on the live one."""

from __future__ import annotations

from typing import Final

from django.db import transaction

from indexes.models import GateResult, IndexBuild, IndexDefinition
from indexes.signals import surfaces_asked
from indexes.validation.bench import Bench
from indexes.validation.result import Outcome, Result

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict

NAME: Final = "surfaces"
NAMED: Final = 3
_ADVICE: Final = "Publish without it what needs it, or change the index and build again."


def measure(bench: Bench) -> Result:
    """A surface that does not fit would go on with a build that soon leaves the engine."""
    return _judged(bench.build)


def look_again(build: IndexBuild) -> None:
    """Measure the gate anew on a validated build, and keep result and verdict where they are others by now.

    A surface may have been published since.
    """
    result = _judged(build)
    with transaction.atomic():
        # The index before the build, as every move does.
        list(IndexDefinition.objects.select_for_update().filter(pk=build.definition_id))
        row = (
            IndexBuild.objects.select_for_update()
            .filter(pk=build.pk, status__in=(Status.VALIDATING, Status.READY))
            .first()
        )
        before = GateResult.objects.filter(build=build, gate=NAME).first()
        if row is None or not _differs(before, result):
            return
        values = {
            "outcome": result.outcome,
            "figure": result.figure,
            "threshold": result.threshold,
            "message": result.message,
            "detail": result.detail,
        }
        GateResult.objects.update_or_create(build=build, gate=NAME, defaults=values)
        row.verdict = _verdict(row, result)
        row.save(update_fields=["verdict"])
    build.verdict = row.verdict


def look_again_at(definition_id: int) -> None:
    """Measure the gate anew on every ready build of an index."""
    for build in IndexBuild.objects.filter(definition_id=definition_id, status=Status.READY):
        look_again(build)


def _judged(build: IndexBuild) -> Result:
    answers = surfaces_asked.send(sender=IndexBuild, build=build)
    sentences: list[str] = [sentence for _, said in answers for sentence in said or ()]
    if not sentences:
        return Result(Outcome.PASSED, "Every published surface fits it.", 0, 0)
    more = len(sentences) - NAMED
    said = " ".join([*sentences[:NAMED], *([f"And {more:,} more."] if more > 0 else [])])
    detail = {"misfits": sentences}
    # A name may be long; the advice is to be read all the same.
    room = 500 - len(_ADVICE) - 1
    message = f"{said if len(said) <= room else f'{said[: room - 1]}…'} {_ADVICE}"
    return Result(Outcome.FAILED, message, len(sentences), 0, detail)


def _differs(before: GateResult | None, result: Result) -> bool:
    # Builds of an older release have no result.
    if before is None:
        return result.outcome == Outcome.FAILED
    return (before.outcome, before.detail) != (result.outcome, result.detail)


def _verdict(build: IndexBuild, result: Result) -> str:
    """Return the verdict with this result in its place; an override stands until the gate says something new."""
    if result.outcome == Outcome.FAILED:
        return Verdict.BLOCKED
    if build.verdict == Verdict.OVERRIDDEN:
        return build.verdict
    failed = build.gates.filter(outcome=Outcome.FAILED).exists()
    return Verdict.BLOCKED if failed else Verdict.PASSED
