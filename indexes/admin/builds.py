"""Builds in the admin: read-only, with live progress, gates, a timeline, and the moves that people make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from indexes import progress
from indexes.admin.build_panels import (
    STATUS_COLOURS,
    VERDICT_COLOURS,
    canary_percent,
    page_context,
)
from indexes.admin.moves import MovesMixin
from indexes.admin.pages import count, found
from indexes.admin.readonly import ReadOnly
from indexes.models import IndexBuild, RejectedRow

STATUS_LABELS = {str(IndexBuild.Status(s).label): c for s, c in STATUS_COLOURS.items()}
VERDICT_LABELS = {str(IndexBuild.Verdict(v).label): c for v, c in VERDICT_COLOURS.items()}


class BuildColumns:
    """What lists of builds show alike: a mixin."""

    @display(description="Items")
    def items(self, obj: IndexBuild) -> str:
        return count(obj.indexed or obj.written)

    @display(description="Rejected rows")
    def rows_rejected(self, obj: IndexBuild) -> str:
        return count(obj.rejected)

    @display(description="Status", label=STATUS_LABELS, ordering="status")
    def state(self, obj: IndexBuild) -> str:
        return str(obj.get_status_display())

    @display(description="Canary", empty_value="–")
    def canary(self, obj: IndexBuild) -> str | None:
        percent = canary_percent(obj)
        return f"{percent} %" if percent else None


@admin.register(IndexBuild)
class IndexBuildAdmin(ReadOnly, BuildColumns, MovesMixin, ModelAdmin):
    list_display = [
        "build",
        "state",
        "gates_said",
        "canary",
        "items",
        "rows_rejected",
        "created_at",
        "took",
    ]
    list_filter = ["definition", "status", "verdict"]
    list_select_related = ["definition"]
    list_filter_submit = False
    show_full_result_count = False
    ordering = ["-created_at"]
    change_form_outer_before_template = "admin/indexes/indexbuild/panel.html"
    readonly_fields = [
        "definition",
        "requested_by",
        "created_at",
        "started_at",
        "loading_at",
        "finished_at",
        "live_at",
        "superseded_at",
        "removed_at",
        "catalog_time",
        "catalog_version",
        "tuned_ef",
        "memory",
        "fingerprint",
        "vectors_from",
        "index_name",
        "key_prefix",
        "made_from",
    ]
    fieldsets = [
        (
            "For engineers",
            {
                "classes": ["collapse"],
                "fields": [
                    ("definition", "vectors_from"),
                    ("created_at", "started_at"),
                    ("loading_at", "finished_at"),
                    ("live_at", "superseded_at"),
                    ("removed_at", "requested_by"),
                    ("tuned_ef", "memory"),
                    ("index_name", "key_prefix"),
                    ("catalog_time", "catalog_version"),
                    "fingerprint",
                    "made_from",
                ],
            },
        ),
    ]

    class Media:
        css = {"all": ["indexes/builds.css"]}
        js = ["indexes/progress.js", "indexes/once.js"]

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"indexes_indexbuild_{name}",
            )
            for name, view in (("progress", self.progress_view), ("rejected", self.rejected_view))
        ]
        urls: list[URLPattern] = super().get_urls()
        return [*own, *self.move_urls(), *urls]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = dict(extra_context or {})
        if object_id and (build := self.get_object(request, object_id)):
            context |= {**page_context(request, build), "title": build.label, "subtitle": None}
        return super().changeform_view(request, object_id, form_url, context)

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while a build runs."""
        build = found(self, request, object_id)
        if not self.has_view_permission(request, build):
            raise PermissionDenied
        response = TemplateResponse(
            request, "admin/indexes/indexbuild/progress.html", page_context(request, build)
        )
        response["Cache-Control"] = "no-store"
        return response

    def rejected_view(
        self, request: HttpRequest, object_id: str
    ) -> HttpResponse | StreamingHttpResponse:
        """Every rejected row that was kept, as JSON lines."""
        build = found(self, request, object_id)
        if not self.has_view_permission(request, build):
            raise PermissionDenied
        response = StreamingHttpResponse(
            _json_lines(build), content_type="application/x-ndjson; charset=utf-8"
        )
        name = f"{build.label}-rejected.jsonl"
        response["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    @display(description="Build", ordering="number")
    def build(self, obj: IndexBuild) -> str:
        return obj.label

    @display(description="Gates", label=VERDICT_LABELS, empty_value="–", ordering="verdict")
    def gates_said(self, obj: IndexBuild) -> str | None:
        return str(obj.get_verdict_display()) if obj.verdict else None

    @display(description="Took", empty_value="–")
    def took(self, obj: IndexBuild) -> str | None:
        elapsed = progress.of(obj, timezone.now()).elapsed
        return progress.duration(elapsed.total_seconds()) if elapsed else None

    @display(description="EF_RUNTIME, tuned")
    def tuned_ef(self, obj: IndexBuild) -> str:
        return "not tuned" if obj.ef_runtime is None else count(obj.ef_runtime)

    @display(description="Memory in the engine")
    def memory(self, obj: IndexBuild) -> str:
        return "not measured" if obj.memory_bytes is None else filesizeformat(obj.memory_bytes)

    @display(description="Made from")
    def made_from(self, obj: IndexBuild) -> SafeString:
        spec = json.dumps(obj.spec, indent=2, ensure_ascii=False)
        return format_html('<pre class="rp-spec">{}</pre>', spec)


def _json_lines(build: IndexBuild) -> Iterator[str]:
    rows = RejectedRow.objects.filter(build=build).order_by("row")
    for row in rows.values("row", "reason", "message", "content").iterator(chunk_size=500):
        yield json.dumps(row, ensure_ascii=False) + "\n"
