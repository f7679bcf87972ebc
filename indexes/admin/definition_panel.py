"""What the page of an index shows above its form: what serves, what is being built, what changed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format

from indexes import cutover, limits, preconditions, refresh, schedules
from indexes.admin.build_panels import Button, build_context, may_move, move_url
from indexes.admin.pages import ago, count
from indexes.admin.refreshes import STATUS_COLOURS as REFRESH_COLOURS
from indexes.models import IndexBuild, IndexDefinition, IndexRefresh
from indexes.refresh import progress as refreshing

Status = IndexBuild.Status
SHOWN_REFRESHES = 3

# Parts of a spec in the words of the form.
PARTS = {
    "endpoint": "the embedding endpoint",
    "catalog": "the catalog source",
    "embed_with": "how items are embedded",
    "metric": "the metric",
    "algorithm": "the algorithm",
    "m": "M",
    "ef_construction": "EF_CONSTRUCTION",
    "ef_runtime": "EF_RUNTIME",
    "fields": "the fields",
}


def panel_context(request: HttpRequest, definition: IndexDefinition) -> dict[str, Any]:
    """Return what the state panel is rendered from."""
    live, back = definition.live_build, cutover.way_back(definition)
    return {
        "definition": definition,
        "live": live,
        "live_items": count(live.indexed) if live else "",
        "live_age": ago(live.finished_at) if live else "",
        "canary": definition.canary_build,
        "way_back": back if live else None,
        "kept_until": _kept_until(back),
        "changed": changed_parts(definition),
        "built_with": built_with(definition),
        "schedules": schedule_lines(definition, timezone.now()),
        "refresh_problems": refresh.problems(definition),
        "refreshes": last_refreshes(definition, timezone.now()),
        "judged_queries": definition.judgments.values("query").distinct().count(),
        "warnings": limits.warnings(definition),
        "problems": preconditions.problems(definition),
        "builds": [build_context(request, build) for build in shown_builds(definition)],
        "buttons": _buttons(request, definition, back),
        "panel_url": reverse("admin:indexes_indexdefinition_panel", args=[definition.pk]),
    }


def shown_builds(definition: IndexDefinition) -> list[IndexBuild]:
    """Return the builds that need eyes: those under way, and the newest where it is not live."""
    builds = definition.builds.order_by("-number").select_related("definition")
    running = list(builds.filter(status__in=IndexBuild.RUNNING))
    newest = builds.first()
    live = definition.live_build
    over = (Status.LIVE, Status.RETIRED)
    if newest is None or newest in running or newest.status in over:
        return running
    # A ready build beside a newer live one is a way back, and no news.
    if newest.status == Status.READY and live is not None and newest.superseded_at is not None:
        return running
    return [newest, *running]


def changed_parts(definition: IndexDefinition) -> list[str]:
    """Return what was changed since the live build, in the words of the form."""
    live = definition.live_build
    if live is None:
        return []
    draft = definition.to_spec()
    built = live.to_spec()
    return [words for part, words in PARTS.items() if getattr(draft, part) != getattr(built, part)]


def built_with(definition: IndexDefinition) -> IndexBuild | None:
    """Return the newest build beside the live one that was made from what is saved now, or None."""
    open_ones = definition.builds.filter(status__in=(*IndexBuild.RUNNING, Status.READY))
    draft = definition.to_spec()
    return next(
        (build for build in open_ones.order_by("-number") if build.to_spec() == draft), None
    )


def schedule_lines(definition: IndexDefinition, now: datetime) -> list[str]:
    """Return when the index is rebuilt and refreshed, each a sentence with the next time."""
    crons = {
        "Full rebuild": definition.rebuild_cron,
        "Refresh of changes": definition.refresh_cron,
    }
    lines = []
    for what, text in crons.items():
        # One that cannot be read is told of by the index's notice.
        if (due := schedules.next_run(text, now)) is not None:
            said = schedules.in_words(text)
            on = date_format(timezone.localtime(due), "M j, H:i")
            lines.append(f"{what}: {said[0].lower()}{said[1:]}, next on {on}.")
    return lines


def last_refreshes(definition: IndexDefinition, now: datetime) -> list[dict[str, Any]]:
    """Return the newest refreshes of an index, each with what came of it in words."""
    rows = IndexRefresh.objects.filter(build__definition=definition).select_related("build")
    return [
        {
            "refresh": row,
            "status": row.get_status_display(),
            "colour": REFRESH_COLOURS[row.status],
            "said": _came_of(row, now),
            "age": ago(row.finished_at or row.created_at),
        }
        for row in rows.order_by("-created_at")[:SHOWN_REFRESHES]
    ]


def _came_of(row: IndexRefresh, now: datetime) -> str:
    if row.is_running:
        return refreshing.line(row, now)
    return row.error or refreshing.outcome(row)


def _buttons(
    request: HttpRequest, definition: IndexDefinition, back: IndexBuild | None
) -> list[Button]:
    if not may_move(request):
        return []
    live, canary = definition.live_build, definition.canary_build
    buttons = []
    if live is not None and back is not None:
        buttons.append(Button("Roll back…", move_url(live, "roll_back")))
    if canary is not None:
        buttons.append(Button("Stop canary…", move_url(canary, "stop_canary")))
    return buttons


def _kept_until(build: IndexBuild | None) -> datetime | None:
    if build is None or build.superseded_at is None:
        return None
    until: datetime = build.superseded_at + timedelta(hours=build.definition.keep_hours)
    return until
