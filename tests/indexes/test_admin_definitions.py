"""The page of an index: its state, the button that builds, and its deletion."""

import re
from datetime import UTC, datetime

from indexes import builds, cutover, valkey
from indexes.admin.definition_panel import schedule_lines
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh
from surfaces.models import Surface
from tests.indexes.admin_pages import FEW, address, built, ready, staff
from tests.pages import text_of

Status = IndexBuild.Status


def test_the_button_builds_what_is_saved(
    admin_client, admin_user, new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    with django_capture_on_commit_callbacks(execute=True):
        response = admin_client.post(address("indexdefinition_build", definition), follow=True)
    build = definition.builds.get()
    assert (build.status, build.requested_by) == (Status.LIVE, admin_user)
    said = text_of(response)
    assert "products-v1 is being built. What is live stays live." in said


def test_the_button_is_disabled_with_the_reason(admin_client, new_definition):
    definition = new_definition(FEW, fields=[])
    page = admin_client.get(address("indexdefinition_change", definition))
    button = re.search(r"<button[^>]*>\s*Build", page.content.decode())
    assert button is not None
    assert "disabled" in button[0]
    assert "Build The index has no fields" in text_of(page)

    response = admin_client.post(address("indexdefinition_build", definition), follow=True)
    assert "The index has no fields" in text_of(response)
    assert not definition.builds.exists()


def test_looking_at_the_build_address_builds_nothing(admin_client, new_definition):
    definition = new_definition(FEW)
    assert admin_client.get(address("indexdefinition_build", definition)).status_code == 405
    assert not definition.builds.exists()


def test_a_second_build_beside_a_running_one_is_asked_for(
    admin_client, new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    page = address("indexdefinition_build", definition)
    admin_client.post(page)
    # The second click of a double click, or another person.
    asked = admin_client.post(page)
    first = definition.builds.get()
    assert "Start a second build beside products-v1?" in text_of(asked)
    assert f'name="beside" value="{first.pk}"' in asked.content.decode()

    said = text_of(admin_client.post(page, {"beside": first.pk}, follow=True))
    assert "products-v2 is being built." in said
    said = text_of(admin_client.post(page, {"beside": first.pk}, follow=True))
    assert "products-v1 and products-v2 are still being built" in said
    assert definition.builds.count() == 2


def test_both_builds_under_way_show_their_progress(admin_client, new_definition):
    definition = new_definition(FEW)
    builds.start(definition, enqueue=False)
    builds.start(definition, enqueue=False)
    said = text_of(admin_client.get(address("indexdefinition_panel", definition)))
    assert re.search(r"products-v2 Waiting .* products-v1 Waiting", said)


def test_the_panel_names_the_canary_and_the_way_back(admin_client, definition):
    panel = address("indexdefinition_panel", definition)
    second = ready(definition)
    cutover.promote(second)
    said = text_of(admin_client.get(panel))
    assert "The way back leads to products-v1, which is kept until" in said
    assert "Roll back…" in said
    assert "Stop canary…" not in said

    third = ready(definition)
    assert "products-v3 Ready" in text_of(admin_client.get(panel))
    cutover.start_canary(third, 15)
    said = text_of(admin_client.get(panel))
    assert "products-v3 answers 15 % of the traffic." in said
    assert "Stop canary…" in said
    assert f"{second.label} is searched: 0 items" in said


def test_an_index_that_was_never_built_says_what_its_surfaces_do(admin_client, new_definition):
    said = text_of(admin_client.get(address("indexdefinition_change", new_definition(FEW))))
    assert "Surfaces on this index serve their fallback until it is built." in said
    assert "The way back" not in said


def test_the_panel_follows_a_build_to_its_end(admin_client, new_definition):
    definition = new_definition(FEW)
    panel = address("indexdefinition_panel", definition)
    build = builds.start(definition, enqueue=False)
    running = admin_client.get(panel)
    assert 'data-running="1"' in running.content.decode()
    builds.run_to_end(build.pk)
    ended = admin_client.get(panel)
    assert 'data-running="1"' not in ended.content.decode()
    assert "products-v1 is searched: 8 items, built just now." in text_of(ended)


def test_the_panel_names_what_was_changed_since(admin_client, definition):
    definition.ef_runtime = 50
    definition.save()
    definition.fields.filter(name="image").delete()
    said = text_of(admin_client.get(address("indexdefinition_change", definition)))
    assert "Changed since the live build: EF_RUNTIME, the fields." in said


def test_an_index_is_deleted_with_its_builds(
    admin_client, new_definition, django_capture_on_commit_callbacks
):
    definition = new_definition(FEW)
    build = built(definition)
    page = address("indexdefinition_delete", definition)
    assert "all that the search engine holds" in text_of(admin_client.get(page))
    with django_capture_on_commit_callbacks(execute=True):
        admin_client.post(page, {"post": "yes"})
    assert not IndexDefinition.objects.exists()
    assert valkey.drop_index(build.index_name) is False


def test_an_index_that_a_surface_names_cannot_be_deleted(admin_client, definition):
    Surface.objects.create(slug="home", name="Home row", index=definition)
    page = address("indexdefinition_delete", definition)
    assert "Home row" in text_of(admin_client.get(page))
    admin_client.post(page, {"post": "yes"})
    assert IndexDefinition.objects.filter(pk=definition.pk).exists()


def test_a_build_that_has_the_changes_is_named(admin_client, definition):
    definition.ef_construction = 80
    definition.save()
    panel = address("indexdefinition_panel", definition)
    said = text_of(admin_client.get(panel))
    assert re.search(r"Changed since .* EF_CONSTRUCTION.*\. Build the index for it", said)
    ready(definition)
    assert re.search(r"EF_CONSTRUCTION.*\. products-v2 is made", text_of(admin_client.get(panel)))


def test_the_planner_follows_the_form_of_whoever_may_edit(admin_client, definition):
    planner = f"{address('indexdefinition_capacity')}?index="
    for page, named in (
        (address("indexdefinition_change", definition), str(definition.pk)),
        (address("indexdefinition_add"), ""),
    ):
        assert f'data-rp-capacity="{planner}{named}"' in admin_client.get(page).content.decode()
    said = staff("viewer").get(address("indexdefinition_change", definition)).content.decode()
    assert "data-rp-capacity" not in said


def test_limits_are_warned_of_on_the_page(admin_client, new_definition):
    fields = [{"name": f"f{n}", "type": "tag"} for n in range(60)]
    said = text_of(
        admin_client.get(address("indexdefinition_change", new_definition(FEW, fields=fields)))
    )
    assert "61 fields with the vector" in said


def test_the_panel_leads_to_the_judgments(admin_client, definition):
    panel = address("indexdefinition_panel", definition)
    page = admin_client.get(panel)
    assert "there are none yet" in text_of(page)
    assert address("indexdefinition_judgments", definition) in page.content.decode()
    for query, product in (("boots", "sku-1"), ("boots", "sku-2"), ("tent", "sku-3")):
        definition.judgments.create(query=query, product_id=product, grade=1)
    assert "compared by their ranking of 2 judged queries" in text_of(admin_client.get(panel))


def test_the_panel_says_when_the_index_is_rebuilt_next(definition):
    definition.rebuild_cron, definition.refresh_cron = "30 3 * * *", "*/15 * * * *"
    now = datetime(2026, 5, 4, 12, 5, tzinfo=UTC)
    assert schedule_lines(definition, now) == [
        "Full rebuild: daily at 03:30, next on May 5, 03:30.",
        "Refresh of changes: every 15 minutes, next on May 4, 12:15.",
    ]


def test_a_schedule_is_shown_on_the_page(admin_client, definition):
    definition.rebuild_cron = "30 3 * * *"
    definition.schedule_notice = "The full rebuild of yesterday could not start."
    definition.save()
    said = text_of(admin_client.get(address("indexdefinition_change", definition)))
    assert "Full rebuild: daily at 03:30, next on" in said
    assert "The full rebuild of yesterday could not start." in said


def test_the_panel_tells_of_the_last_refreshes(admin_client, definition):
    page = address("indexdefinition_panel", definition)
    assert "Last refreshes" not in text_of(admin_client.get(page))
    refresh = definition.live_build.refreshes
    refresh.create(status=IndexRefresh.Status.FAILED, error="The catalog is gone.")
    running = refresh.create(status=IndexRefresh.Status.READING)
    shown = admin_client.get(page)
    assert re.search(
        r"Reading the source products-v1, .* Failed .*The catalog is gone\.", text_of(shown)
    )
    assert 'data-running="1"' in shown.content.decode()
    # One at a time.
    button = re.search(r"<button[^>]*>\s*Refresh", shown.content.decode())
    assert button is not None
    assert "disabled" in button[0]
    running.delete()
    again = admin_client.get(page).content.decode()
    assert 'data-running="1"' not in again
    assert re.search(r"<button(?![^>]*disabled)[^>]*>\s*Refresh", again)


def test_without_a_live_build_there_is_nothing_to_refresh(admin_client, new_definition):
    page = address("indexdefinition_panel", new_definition(FEW))
    assert "Refresh" not in text_of(admin_client.get(page))
