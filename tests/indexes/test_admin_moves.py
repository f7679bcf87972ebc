"""The pages that ask before a build is moved: what they say, what they do, and for whom."""

import pytest

from indexes import builds, cutover, valkey
from indexes.models import GateResult, IndexBuild, IndexDefinition
from surfaces.models import Surface
from tests.indexes.admin_pages import FEW, address, staff
from tests.indexes.admin_pages import ready as ready_build
from tests.pages import text_of

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict
MOVES = ["promote", "override", "canary", "stop_canary", "roll_back", "cancel", "retire"]


@pytest.fixture
def two(definition):
    """A live build, and a newer one that waits for a person."""
    return definition.live_build, ready_build(definition)


def blocked(build: IndexBuild) -> IndexBuild:
    GateResult.objects.filter(build=build).delete()
    GateResult.objects.create(
        build=build,
        gate="overlap",
        outcome=GateResult.Outcome.FAILED,
        figure=0.2,
        threshold=0.5,
        message="2 of 10 first items stay.",
    )
    IndexBuild.objects.filter(pk=build.pk).update(verdict=Verdict.BLOCKED)
    build.refresh_from_db()
    return build


def live_label(build: IndexBuild) -> str:
    live = IndexDefinition.objects.get(pk=build.definition_id).live_build
    return live.label if live else ""


def test_making_a_build_live_asks_first(admin_client, two):
    live, ready = two
    Surface.objects.create(slug="home", name="Home row", index=live.definition)
    page = address("indexbuild_promote", ready)
    said = text_of(admin_client.get(page))
    assert "Search products-v2 from now on?" in said
    assert "every search finds the items of products-v2: 0 items, built just now." in said
    assert "products-v1 stays ready for 24 hours." in said
    assert "Surfaces on this index Home row" in said
    assert "Roll back to products-v1" in said
    assert live_label(ready) == "products-v1"

    assert "products-v2 is live." in text_of(
        admin_client.post(page, {"why": "New prices."}, follow=True)
    )
    assert live_label(ready) == "products-v2"
    last = ready.transitions.last()
    assert (last.to_status, last.by.username, last.why) == (Status.LIVE, "admin", "New prices.")


def test_a_newer_build_that_was_live_goes_too_and_is_said_before(admin_client, two):
    live, slow = two
    IndexBuild.objects.filter(pk=slow.pk).update(status=Status.VALIDATING)
    newest = ready_build(live.definition)
    cutover.promote(newest)
    cutover.roll_back(live.definition)
    IndexBuild.objects.filter(pk=slow.pk).update(status=Status.READY)
    said = text_of(admin_client.get(address("indexbuild_promote", slow)))
    assert f"Retired, as nothing leads back to them: {newest.label}." in said
    slow.refresh_from_db()
    cutover.promote(slow)
    newest.refresh_from_db()
    assert newest.status == Status.RETIRED


def test_what_becomes_of_older_builds_is_said_before(admin_client, two):
    live, ready = two
    cutover.start_canary(ready, 10)
    newest = ready_build(live.definition)
    said = text_of(admin_client.get(address("indexbuild_promote", newest)))
    assert "Retired, as nothing leads back to them: products-v2." in said
    assert "The canary on products-v2 (10 %) ends." in said
    cutover.promote(newest)
    ready.refresh_from_db()
    definition = IndexDefinition.objects.get(pk=live.definition_id)
    assert (ready.status, definition.canary_build) == (Status.RETIRED, None)


def test_what_cannot_be_made_live_says_why(admin_client, two):
    _, ready = two
    valkey.drop_index(ready.index_name)
    response = admin_client.post(address("indexbuild_promote", ready), follow=True)
    assert "Start a new build." in text_of(response)
    assert live_label(ready) == "products-v1"


def test_another_embedding_model_is_named_before_it_serves(admin_client, two):
    _, ready = two
    IndexBuild.objects.filter(pk=ready.pk).update(fingerprint="another-cosine")
    said = text_of(admin_client.get(address("indexbuild_promote", ready)))
    assert "Queries are embedded by minilm-l6-v2 (384 numbers) from then on" in said


def test_a_canary_is_started_changed_and_stopped(admin_client, two):
    live, ready = two
    definition = live.definition
    page = address("indexbuild_canary", ready)
    assert "products-v2 answers that share of the traffic, and products-v1 the rest." in text_of(
        admin_client.get(page)
    )
    for wrong in ("", "0", "100", "ten"):
        asked = admin_client.post(page, {"percent": wrong})
        assert asked.status_code == 200, wrong
        assert asked.context["form"].errors["percent"], wrong
    definition.refresh_from_db()
    assert definition.canary_build is None

    said = text_of(admin_client.post(page, {"percent": 10}, follow=True))
    assert "products-v2 answers 10 % of the traffic." in said
    assert "10 % canary" in said
    assert "It has 10 %." in text_of(admin_client.get(page))
    admin_client.post(page, {"percent": 50})
    definition.refresh_from_db()
    assert (definition.canary_build, definition.canary_percent) == (ready, 50)

    stop = address("indexbuild_stop_canary", ready)
    assert "Give products-v1 all the traffic again?" in text_of(admin_client.get(stop))
    assert "products-v1 answers all the traffic." in text_of(admin_client.post(stop, follow=True))
    definition.refresh_from_db()
    assert (definition.canary_build, definition.canary_percent) == (None, 0)
    assert "is no canary any more" in text_of(admin_client.post(stop, follow=True))


def test_rolling_back_asks_first(admin_client, two):
    live, ready = two
    cutover.promote(ready)
    assert "Roll back to products-v1…" in text_of(
        admin_client.get(address("indexbuild_change", ready))
    )
    page = address("indexbuild_roll_back", ready)
    said = text_of(admin_client.get(page))
    assert "Search products-v1 again instead of products-v2?" in said
    assert live_label(ready) == "products-v2"
    response = admin_client.post(page, {"to": live.pk, "why": "Odd results."}, follow=True)
    assert "products-v1 is live again." in text_of(response)
    assert live_label(ready) == "products-v1"
    assert live.transitions.last().why == "Odd results."


def test_a_way_back_that_was_not_shown_is_not_taken(admin_client, two):
    live, ready = two
    cutover.promote(ready)
    other = ready_build(live.definition)
    response = admin_client.post(
        address("indexbuild_roll_back", ready), {"to": other.pk}, follow=True
    )
    assert "The way back leads to products-v1 by now" in text_of(response)
    assert live_label(ready) == "products-v2"


def test_without_a_way_back_the_page_says_so(admin_client, two):
    live, ready = two
    for build, said in ((live, "No earlier build is kept"), (ready, "is not live any more")):
        response = admin_client.get(address("indexbuild_roll_back", build), follow=True)
        assert said in text_of(response)


def test_cancelling_a_build_asks_first(admin_client, new_definition):
    build = builds.start(new_definition(FEW), enqueue=False)
    page = address("indexbuild_cancel", build)
    said = text_of(admin_client.get(page))
    assert "Stop building products-v1?" in said
    assert "Nothing is live yet, and it stays so." in said
    build.refresh_from_db()
    assert build.is_running
    assert "Cancelled" in text_of(admin_client.post(page, {"why": "Mistake."}, follow=True))
    build.refresh_from_db()
    assert build.status == Status.CANCELLED
    last = build.transitions.get(to_status=Status.CANCELLED)
    assert (str(last.by), last.why) == ("admin", "Mistake.")
    assert "is not running any more" in text_of(admin_client.post(page, follow=True))


def test_retiring_a_build_asks_first(admin_client, two):
    live, ready = two
    IndexBuild.objects.filter(pk=ready.pk).update(memory_bytes=3 * 1024 * 1024)
    cutover.start_canary(ready, 5)
    page = address("indexbuild_retire", ready)
    said = text_of(admin_client.get(page))
    assert "Its canary of 5 % ends." in said
    assert "frees 3.0 MB" in said
    assert "cannot come back" in said
    admin_client.post(page)
    ready.refresh_from_db()
    assert (ready.status, live_label(live)) == (Status.RETIRED, "products-v1")


def test_retiring_the_way_back_is_warned_of(admin_client, two):
    live, ready = two
    cutover.promote(ready)
    said = text_of(admin_client.get(address("indexbuild_retire", live)))
    assert "a roll back will not be possible" in said


def test_a_blocked_build_needs_a_reason_to_go_live(admin_client, two):
    _, ready = two
    blocked(ready)
    shown = text_of(admin_client.get(address("indexbuild_change", ready)))
    assert "Override…" in shown
    assert "Make live…" not in shown
    assert "Canary…" not in shown
    refused = admin_client.post(address("indexbuild_promote", ready), follow=True)
    assert "override with a reason" in text_of(refused)

    page = address("indexbuild_override", ready)
    said = text_of(admin_client.get(page))
    assert (
        "First items shared with the live build Failed 0.200 0.500 2 of 10 first items stay."
        in said
    )
    for reason in ("", "   "):
        assert "required" in text_of(admin_client.post(page, {"why": reason}))
    assert live_label(ready) == "products-v1"

    admin_client.post(page, {"why": "The new range is meant to differ."})
    ready.refresh_from_db()
    assert (ready.status, ready.verdict) == (Status.LIVE, Verdict.OVERRIDDEN)
    assert ready.transitions.last().why == "The new range is meant to differ."


def test_who_may_move_builds_may_not_override_gates(two):
    _, ready = two
    blocked(ready)
    mover = staff("mover", "change_indexbuild")
    assert "Override…" not in text_of(mover.get(address("indexbuild_change", ready)))
    for answer in (
        mover.get(address("indexbuild_override", ready)),
        mover.post(address("indexbuild_override", ready), {"why": "Because."}),
    ):
        assert answer.status_code == 403
    assert live_label(ready) == "products-v1"

    head = staff("head", "change_indexbuild", "override_gates")
    head.post(address("indexbuild_override", ready), {"why": "Looked at, and fine."})
    assert live_label(ready) == "products-v2"


def test_who_may_move_builds_makes_them_live(two):
    _, ready = two
    mover = staff("mover", "change_indexbuild")
    assert "Make live…" in text_of(mover.get(address("indexbuild_change", ready)))
    mover.post(address("indexbuild_promote", ready))
    assert live_label(ready) == "products-v2"


def test_who_may_only_look_changes_nothing(two):
    live, ready = two
    viewer = staff("viewer")
    definition = live.definition
    for page in (
        address("indexdefinition_change", definition),
        address("indexdefinition_panel", definition),
        address("indexbuild_change", ready),
        address("indexbuild_progress", ready),
        address("indexbuild_rejected", ready),
    ):
        response = viewer.get(page)
        assert response.status_code == 200, page
        if not response.streaming:
            assert "/build/" not in response.content.decode()
            assert "…" not in text_of(response).replace("Search…", "")
    assert viewer.post(address("indexdefinition_build", definition)).status_code == 403
    for move in MOVES:
        page = address(f"indexbuild_{move}", ready)
        assert viewer.get(page).status_code == 403, page
        assert viewer.post(page, {"why": "x", "percent": 5}).status_code == 403, page
    assert (live_label(ready), definition.builds.count()) == ("products-v1", 2)


@pytest.mark.parametrize("move", MOVES)
def test_strangers_are_sent_to_the_login(client, definition, move):
    page = address(f"indexbuild_{move}", definition.live_build)
    for answer in (client.get(page), client.post(page)):
        assert answer.status_code == 302
        assert "/login/" in answer["Location"]
