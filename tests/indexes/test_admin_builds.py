"""The page of a build: progress, gates, timeline and rejected rows."""

import json
import re
from datetime import timedelta

import pytest

from indexes import builds, cutover, progress
from indexes.models import GateResult, IndexBuild, RejectedRow
from indexes.validation import GATES
from tests.indexes.admin_pages import FEW, address, built, ready
from tests.pages import text_of

Status = IndexBuild.Status


def test_progress_is_shown_in_numbers(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    now = build.created_at
    IndexBuild.objects.filter(pk=build.pk).update(
        status=Status.LOADING,
        started_at=now,
        loading_at=now,
        cursor=2000,
        total_rows=10_000,
        written=1990,
        embedded=490,
        reused=1500,
        indexed=1200,
        under_way=500,
        rejected=12,
        rejected_reasons={"missing_id": 10, "duplicate_id": 2},
        notice="The embedding endpoint is throttled. Trying again.",
    )
    RejectedRow.objects.create(build=build, row=3, reason="missing_id", message='"id" is missing.')
    response = admin_client.get(address("indexbuild_progress", build))
    said = text_of(response)
    assert 'data-running="1"' in response.content.decode()
    assert 'value="25"' in response.content.decode()
    assert "25 %" in said
    assert (
        "Rows read 2,500 of 10,000 Embedded 490 Reused 1,500 Written 1,990 Indexed 1,200 "
        "Rows rejected 12 Rows a second" in said
    )
    assert "The embedding endpoint is throttled. Trying again." in said
    assert 'missing id 10 Row 3: "id" is missing. duplicate id 2 Counted, not kept.' in said
    assert "The first 1 of them are kept, all are counted." in said


def test_progress_estimates_the_time_left(new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    build.status, build.loading_at = Status.LOADING, build.created_at
    build.cursor, build.total_rows = 3000, 12_000
    shown = progress.of(build, build.created_at + timedelta(seconds=30))
    assert (shown.percent, shown.rate, shown.seconds_left) == (25, 100, 90)
    assert shown.line() == "Loading items · 25 % · 3,000 of 12,000 rows · 100 rows/s · 2 min left"


def test_a_build_that_no_worker_takes_says_so(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    page = address("indexbuild_progress", build)
    assert "Is a Celery worker" not in text_of(admin_client.get(page))
    IndexBuild.objects.filter(pk=build.pk).update(
        created_at=build.created_at - progress.PATIENCE * 2
    )
    assert "is a Celery worker running?" in text_of(admin_client.get(page))


def test_a_build_whose_worker_is_gone_says_so(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    past = build.created_at - timedelta(minutes=5)
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.LOADING, heartbeat_at=past)
    said = text_of(admin_client.get(address("indexbuild_progress", build)))
    assert "No sign of its worker for 5 min." in said


def test_a_failure_is_told_in_words(admin_client, new_definition):
    definition = new_definition("/nowhere/c.jsonl")
    build = built(definition)
    for page in (
        address("indexbuild_change", build),
        address("indexdefinition_change", definition),
    ):
        said = text_of(admin_client.get(page))
        assert "Failed" in said
        assert "There is no file /nowhere/c.jsonl" in said


def test_gates_are_shown_with_figure_threshold_and_detail(admin_client, definition):
    build = definition.live_build
    GateResult.objects.create(
        build=build,
        gate="self_retrieval",
        outcome=GateResult.Outcome.FAILED,
        figure=0.8125,
        threshold=0.9,
        message="81 of 100 items are found by their own text.",
        detail={"missed": [{"id": "sku-1", "text": "<b>Cream</b>"}], "sampled": 100},
    )
    page = admin_client.get(address("indexbuild_change", build))
    said = text_of(page)
    assert (
        "Items found by their own text Failed 0.812 0.900 81 of 100 items are found by their own text."
        in said
    )
    assert re.search(
        r"Details of Items found by their own text Sampled: 100 Missed Id Text sku-1 <b>Cream</b>",
        said,
    )
    assert "<b>Cream</b>" not in page.content.decode()


def test_gates_appear_while_they_are_measured(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    page = address("indexbuild_progress", build)
    assert "Gates" not in text_of(admin_client.get(page))
    IndexBuild.objects.filter(pk=build.pk).update(status=Status.VALIDATING)
    assert "The first gate is being measured." in text_of(admin_client.get(page))
    GateResult.objects.create(
        build=build, gate="source", outcome=GateResult.Outcome.PASSED, message="8 of 8 items."
    )
    response = admin_client.get(page)
    assert "Items against the source Passed – – 8 of 8 items." in text_of(response)
    assert f"Gates: 1 of {len(GATES)} measured" in text_of(response)
    assert 'data-running="1"' in response.content.decode()


def test_the_timeline_tells_who_when_and_why(admin_client, admin_user, new_definition):
    build = builds.start(new_definition(FEW), requested_by=admin_user, enqueue=False)
    builds.cancel(build, by=admin_user, why="The catalog was yesterday's.")
    said = text_of(admin_client.get(address("indexbuild_change", build)))
    assert re.search(
        r"Timeline \w+ \d+, [\d:]+ Waiting → Cancelled by admin The catalog was yesterday's\. "
        r"\w+ \d+, [\d:]+ Waiting by admin",
        said,
    )


def test_engineers_see_what_it_was_tuned_to(admin_client, definition):
    build = definition.live_build
    page = address("indexbuild_change", build)
    assert "not tuned" in text_of(admin_client.get(page))
    IndexBuild.objects.filter(pk=build.pk).update(ef_runtime=180, memory_bytes=5 * 1024 * 1024)
    said = text_of(admin_client.get(page))
    assert re.search(r"EF_RUNTIME, tuned\W+180", said)
    assert "5.0 MB" in said
    assert build.fingerprint in said


def test_the_list_tells_what_the_gates_said_and_which_is_the_canary(admin_client, definition):
    cutover.start_canary(ready(definition), 25)
    IndexBuild.objects.filter(number=1).update(verdict=IndexBuild.Verdict.OVERRIDDEN)
    said = text_of(admin_client.get(address("indexbuild_changelist")))
    assert "products-v2 Ready Passed every gate 25 % 0 0" in said
    assert "products-v1 Live Failed a gate, overridden – 60 0" in said


def test_rejected_rows_are_shown_by_reason_and_downloaded(admin_client, new_definition):
    bad = [{**FEW[0], "id": f"b{n}", "price": "cheap"} for n in range(3)]
    build = built(new_definition([*FEW, *bad, {"title": "no <b>id</b>"}]))
    page = admin_client.get(address("indexbuild_change", build))
    said = text_of(page)
    assert 'bad numeric 3 Row 9: price: "cheap" is not a number.' in said
    assert "missing id 1 Row 12" in said
    assert "<b>id</b>" not in page.content.decode()

    response = admin_client.get(address("indexbuild_rejected", build))
    lines = [json.loads(line) for line in response.getvalue().decode().splitlines()]
    assert [line["row"] for line in lines] == [9, 10, 11, 12]
    assert json.loads(lines[0]["content"]) == bad[0]
    assert "products-v1-rejected.jsonl" in response["Content-Disposition"]


@pytest.mark.parametrize(
    "page", ["indexdefinition_panel", "indexdefinition_build", "indexbuild_progress"]
)
def test_strangers_are_sent_to_the_login(client, definition, page):
    obj = definition.live_build if "indexbuild" in page else definition
    for answer in (client.get(address(page, obj)), client.post(address(page, obj))):
        assert answer.status_code == 302
        assert "/login/" in answer["Location"]


def test_builds_are_never_edited_or_deleted_by_hand(admin_client, definition):
    build = definition.live_build
    assert admin_client.get(address("indexbuild_add")).status_code == 403
    assert (
        admin_client.post(address("indexbuild_change", build), {"status": "ready"}).status_code
        == 403
    )
    assert (
        admin_client.post(address("indexbuild_delete", build), {"post": "yes"}).status_code == 403
    )
