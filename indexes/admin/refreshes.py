"""Refreshes in the admin: a read-only list, and the button that starts one on the page of an index."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from indexes import refresh as refreshes
from indexes.admin.moves import person
from indexes.admin.pages import count, found, say
from indexes.admin.readonly import ReadOnly
from indexes.errors import BuildError
from indexes.models import IndexDefinition, IndexRefresh
from indexes.progress import duration
from indexes.refresh import progress

Status = IndexRefresh.Status
STATUS_COLOURS: dict[str, str] = {
    Status.PENDING: "info",
    Status.READING: "info",
    Status.REMOVING: "info",
    Status.DONE: "success",
    Status.FAILED: "danger",
}


@admin.register(IndexRefresh)
class IndexRefreshAdmin(ReadOnly, ModelAdmin):
    list_display = ["refresh", "state", "written_items", "removed_items", "created_at", "took"]
    list_filter = ["build__definition", "status"]
    list_select_related = ["build"]
    list_filter_submit = False
    show_full_result_count = False
    ordering = ["-created_at"]
    fieldsets = [
        (None, {"fields": [("index", "of_build"), ("state", "result")]}),
        (
            "Items",
            {
                "fields": [
                    ("rows", "unchanged"),
                    ("written", "embedded"),
                    ("removed", "kept"),
                    ("rejected", "reasons"),
                ],
                "description": "Rejected rows are kept with their content by a full build.",
            },
        ),
        ("When", {"fields": [("created_at", "requested_by"), ("finished_at", "catalog_time")]}),
    ]
    readonly_fields = [
        "index",
        "of_build",
        "state",
        "result",
        "rows",
        "unchanged",
        "written",
        "embedded",
        "removed",
        "kept",
        "rejected",
        "reasons",
        "created_at",
        "requested_by",
        "finished_at",
        "catalog_time",
    ]

    @display(description="Refresh")
    def refresh(self, obj: IndexRefresh) -> str:
        return f"{obj.build.label}, {timezone.localtime(obj.created_at):%d %b %H:%M}"

    @display(
        description="Status",
        label={str(Status(s).label): colour for s, colour in STATUS_COLOURS.items()},
    )
    def state(self, obj: IndexRefresh) -> str:
        return str(obj.get_status_display())

    @display(description="Written")
    def written_items(self, obj: IndexRefresh) -> str:
        return count(obj.written)

    @display(description="Removed")
    def removed_items(self, obj: IndexRefresh) -> str:
        return count(obj.removed)

    @display(description="Took", empty_value="–")
    def took(self, obj: IndexRefresh) -> str | None:
        if obj.finished_at is None:
            return None
        return duration((obj.finished_at - obj.created_at).total_seconds())

    @display(description="Index")
    def index(self, obj: IndexRefresh) -> SafeString:
        definition = obj.build.definition
        return _link("indexdefinition", definition.pk, str(definition))

    @display(description="Build")
    def of_build(self, obj: IndexRefresh) -> SafeString:
        return _link("indexbuild", obj.build.pk, obj.build.label)

    @display(description="Result")
    def result(self, obj: IndexRefresh) -> str:
        if obj.status == Status.FAILED:
            return obj.error
        if obj.status == Status.DONE:
            return progress.outcome(obj)
        return progress.line(obj, timezone.now())

    @display(description="Rows read")
    def rows(self, obj: IndexRefresh) -> str:
        return count(obj.cursor)

    @display(description="Rejected because of", empty_value="–")
    def reasons(self, obj: IndexRefresh) -> str | None:
        found = sorted(obj.rejected_reasons.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name.replace('_', ' ')}: {count(rows)}" for name, rows in found) or None


class RefreshMixin:
    """Adds the button's address to the admin of indexes: ``admin:indexes_indexdefinition_refresh``."""

    admin_site: Any

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<path:object_id>/refresh/",
            self.admin_site.admin_view(self.refresh_view),
            name="indexes_indexdefinition_refresh",
        )
        urls: list[URLPattern] = super().get_urls()  # type: ignore[misc]  # of the admin it is mixed into
        return [own, *urls]

    def refresh_view(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """Start a refresh of the live build; POST only."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        definition: IndexDefinition = found(self, request, object_id)
        if not self.has_change_permission(request, definition):
            raise PermissionDenied
        try:
            refresh = refreshes.start(definition, requested_by=person(request))
        except BuildError as error:
            say(request, error)
        else:
            label = refresh.build.label
            self.log_change(request, definition, f"Started a refresh of {label}.")
            messages.success(
                request,
                format_html(
                    '{} is being refreshed. <a class="rp-link" href="{}">See how far it is</a>.',
                    label,
                    reverse("admin:indexes_indexrefresh_change", args=[refresh.pk]),
                ),
            )
        return HttpResponseRedirect(
            reverse("admin:indexes_indexdefinition_change", args=[definition.pk])
        )


def _link(model: str, pk: Any, text: str) -> SafeString:
    address = reverse(f"admin:indexes_{model}_change", args=[pk])
    return format_html('<a class="rp-link" href="{}">{}</a>', address, text)
