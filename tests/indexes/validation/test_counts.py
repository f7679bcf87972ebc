"""Gates over the number of items."""

import pytest

from indexes import valkey
from indexes.lease import Lease
from indexes.models import GateResult, IndexBuild
from indexes.validation import counts
from indexes.validation.bench import Bench
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import rows

Outcome = GateResult.Outcome


@pytest.mark.parametrize(
    ("percent", "outcome"), [(51, Outcome.FAILED), (50, Outcome.PASSED), (0, Outcome.PASSED)]
)
def test_a_smaller_build_is_held_back_by_the_threshold_of_the_index(
    index, catalog_file, percent, outcome
):
    definition = index(min_items_percent=percent)
    built(definition)
    definition.source.uri = str(catalog_file(rows(30)))
    definition.source.save()
    result = gate(built(definition), "live_items")
    assert (result.outcome, result.figure, result.threshold) == (outcome, 50, percent)
    assert "30 items, 50 % of the 60 that are live" in result.message


def test_rejected_rows_count_as_read(index):
    build = built(index([*rows(30), {"title": "no id"}, {"id": "p3", "title": "twice"}]))
    result = gate(build, "source")
    assert result.outcome == Outcome.PASSED
    assert result.message == "All 30 items are in the engine, 2 rows were rejected."
    assert result.detail == {"rows_read": 32, "written": 30, "rejected": 2, "indexed": 30}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"cursor": 61, "total_rows": 61}, "1 of 61 rows are neither items nor rejected."),
        ({"total_rows": 70}, "10 rows of the source were not read."),
        ({"written": 64, "cursor": 64, "total_rows": 64}, "The engine holds 60 of 64 items."),
    ],
)
def test_what_is_missing_is_said(index, changes, problem):
    definition = index()
    build = built(definition)
    later = {"status": IndexBuild.Status.VALIDATING, **changes}
    IndexBuild.objects.filter(pk=build.pk).update(**later)
    lease = Lease.claim(build.pk)
    assert lease is not None
    result = counts.against_source(Bench(lease))
    assert (result.outcome, result.figure) == (Outcome.FAILED, 60)
    assert result.message.startswith(problem)


def test_a_live_build_that_the_engine_lost_is_nothing_to_compare_with(index):
    definition = index()
    live = built(definition)
    valkey.drop_index(live.index_name)
    build = built(definition)
    assert gate(build, "live_items").outcome == Outcome.SKIPPED
    assert gate(build, "latency").outcome == Outcome.REPORTED
    assert build.verdict == "passed"
