"""Running gates: in order, in turns, each once; and what their results hold back."""

import re

import pytest

from indexes import builds, cutover, validation
from indexes.errors import BuildError
from indexes.lease import Lease, LeaseLost
from indexes.models import GateResult, IndexBuild, IndexField, Judgment
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import rows

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict
Outcome = GateResult.Outcome


def test_a_first_build_passes_and_goes_live(index):
    build = built(index())
    assert (build.status, build.verdict) == (Status.LIVE, Verdict.PASSED)
    assert {one.gate: one.outcome for one in build.gates.all()} == {
        "source": Outcome.PASSED,
        "live_items": Outcome.SKIPPED,
        "surfaces": Outcome.PASSED,
        "probe": Outcome.PASSED,
        "recall": Outcome.PASSED,
        "latency": Outcome.REPORTED,
        "self_retrieval": Outcome.PASSED,
        "overlap": Outcome.SKIPPED,
        "ndcg": Outcome.SKIPPED,
    }
    assert [one.gate for one in build.gates.all()] == [one.name for one in validation.GATES]


def test_a_second_build_is_measured_against_the_first(index):
    definition = index()
    built(definition)
    build = built(definition)
    assert (build.status, build.verdict) == (Status.LIVE, Verdict.PASSED)
    outcomes = {one.gate: one.outcome for one in build.gates.all()}
    assert (outcomes["live_items"], outcomes["latency"]) == (Outcome.PASSED, Outcome.PASSED)
    assert outcomes["overlap"] == Outcome.REPORTED
    assert gate(build, "overlap").figure > 0.9
    said = gate(build, "latency").message
    assert re.search(r"\d times as long as in products-v1", said), said


def validating(definition) -> Lease:
    """A build that is loaded and has its gates before it, with its lease."""
    build = builds.start(definition, enqueue=False)
    while build.status != Status.VALIDATING:
        # No time for anything: each turn does the least it can.
        builds.run(build.pk, seconds=0)
        build.refresh_from_db()
        if build.gates.exists():
            break
    build.gates.all().delete()
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.VALIDATING, verdict="")
    lease = Lease.claim(build.pk)
    assert lease is not None
    return lease


def test_a_turn_without_time_measures_one_gate_and_none_twice(index):
    lease = validating(index())
    turns = 0
    seen: set[int] = set()
    while not validation.run(lease, seconds=0):
        turns += 1
        now = set(lease.build.gates.values_list("pk", flat=True))
        assert len(now) == turns
        assert seen < now
        seen = now
    assert lease.build.gates.count() == len(validation.GATES)
    lease.build.refresh_from_db()
    assert lease.build.verdict == Verdict.PASSED


def test_a_worker_that_lost_its_build_leaves_no_result(index):
    lease = validating(index())
    builds.cancel(IndexBuild.objects.get(pk=lease.build.pk))
    with pytest.raises(LeaseLost):
        validation.run(lease, seconds=60)
    assert not lease.build.gates.exists()


def test_a_failed_gate_keeps_a_build_from_going_live(index, catalog_file):
    definition = index()
    live = built(definition)
    definition.source.uri = str(catalog_file(rows(20)))
    definition.source.save()
    build = built(definition)
    assert (build.status, build.verdict) == (Status.READY, Verdict.BLOCKED)
    assert definition.live_build == live
    assert gate(build, "live_items").outcome == Outcome.FAILED
    # The others were measured all the same.
    assert build.gates.count() == len(validation.GATES)
    with pytest.raises(BuildError, match="failed a gate"):
        cutover.promote(build)


def test_what_a_build_takes_in_the_engine_is_measured(index):
    build = built(index())
    assert build.memory_bytes is not None
    # At least its vectors, and not a multiple of what so few items can take.
    assert 60 * 16 * 4 < build.memory_bytes < 4_000_000


def test_a_rebuild_asks_the_endpoint_only_for_texts_that_changed(index, words, catalog_file):
    definition = index(200)
    Judgment.objects.create(definition=definition, query="boots", product_id="p6", grade=2)
    built(definition)
    words.calls.clear()
    IndexField.objects.create(definition=definition, name="added", type="stored")
    build = built(definition)
    assert (build.verdict, build.reused) == (Verdict.PASSED, 200)
    assert not words.calls

    changed = rows(200)
    for number in (3, 77):
        changed[number]["title"] += " renewed"
    definition.source.uri = str(catalog_file(changed))
    definition.source.save()
    build = built(definition)
    assert (build.verdict, build.embedded) == (Verdict.PASSED, 2)
    sent = [call.body["inputs"] for call in words.calls]
    flat = [text for texts in sent for text in ([texts] if isinstance(texts, str) else texts)]
    assert sorted(flat) == sorted(changed[number]["title"] for number in (3, 77))
