"""Builds in the admin: read-only, with live progress, rejected rows, and the moves that people make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from indexes import builds, cutover, progress
from indexes.admin.pages import ago, count, found, page, say
from indexes.admin.readonly import ReadOnly
from indexes.errors import IndexesError
from indexes.models import IndexBuild, RejectedRow

Status = IndexBuild.Status
STATUS_COLOURS: dict[str, str] = {
    Status.PENDING: "info",
    Status.CREATING: "info",
    Status.LOADING: "info",
    Status.INDEXING: "info",
    Status.READY: "primary",
    Status.LIVE: "success",
    Status.FAILED: "danger",
}
SHOWN_ROWS = 50


class BuildColumns:
    """What lists of builds show alike: a mixin."""

    @display(description="Items")
    def items(self, obj: IndexBuild) -> str:
        return count(obj.indexed or obj.written)

    @display(description="Rejected rows")
    def rows_rejected(self, obj: IndexBuild) -> str:
        return count(obj.rejected)


@admin.register(IndexBuild)
class IndexBuildAdmin(ReadOnly, BuildColumns, ModelAdmin):
    list_display = ["build", "state", "items", "rows_rejected", "created_at", "took"]
    list_filter = ["definition", "status"]
    list_select_related = ["definition"]
    list_filter_submit = False
    show_full_result_count = False
    ordering = ["-created_at"]
    change_form_outer_before_template = "admin/indexes/indexbuild/panel.html"
    readonly_fields = [
        "definition",
        "index_name",
        "key_prefix",
        "requested_by",
        "created_at",
        "started_at",
        "loading_at",
        "finished_at",
        "removed_at",
        "made_from",
    ]
    fieldsets = [
        (
            "When",
            {
                "fields": [
                    ("created_at", "requested_by"),
                    ("started_at", "loading_at"),
                    ("finished_at", "removed_at"),
                ]
            },
        ),
        (
            "For engineers",
            {
                "classes": ["collapse"],
                "fields": ["definition", ("index_name", "key_prefix"), "made_from"],
            },
        ),
    ]

    class Media:
        css = {"all": ["indexes/builds.css"]}
        js = ["indexes/progress.js"]

    def get_urls(self) -> list[URLPattern]:
        views = {
            "progress": self.progress_view,
            "promote": self.promote_view,
            "stop": self.stop_view,
            "rejected": self.rejected_view,
        }
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"indexes_indexbuild_{name}",
            )
            for name, view in views.items()
        ]
        urls: list[URLPattern] = super().get_urls()
        return [*own, *urls]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = dict(extra_context or {})
        if object_id and (build := self.get_object(request, object_id)):
            context |= {
                **build_context(request, build),
                **rejected_context(build),
                "title": build.label,
                "subtitle": None,
            }
        return super().changeform_view(request, object_id, form_url, context)

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while a build runs."""
        build = found(self, request, object_id)
        if not self.has_view_permission(request, build):
            raise PermissionDenied
        context = {**build_context(request, build), **rejected_context(build)}
        response = TemplateResponse(request, "admin/indexes/indexbuild/progress.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def promote_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then make a ready build live."""
        build = self._to_move(request, object_id)
        if request.method != "POST":
            return page(
                self,
                request,
                "indexbuild/promote.html",
                f"Make {build.label} live",
                build,
                build=build,
                live=build.definition.live_build,
                age=ago(build.finished_at),
            )
        try:
            cutover.promote(build, by=person(request))
        except IndexesError as error:
            say(request, error)
        else:
            self.log_change(request, build, "Made live.")
            messages.success(request, f"{build.label} is live.")
        return _back_to(build)

    def stop_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then stop a running build."""
        build = self._to_move(request, object_id)
        if request.method != "POST":
            title = f"Stop {build.label}"
            return page(self, request, "indexbuild/stop.html", title, build, build=build)
        try:
            builds.cancel(build, by=person(request))
        except IndexesError as error:
            say(request, error)
        else:
            self.log_change(request, build, "Stopped.")
            messages.success(request, f"{build.label} is stopped.")
        return _back_to(build)

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

    def _to_move(self, request: HttpRequest, object_id: str) -> IndexBuild:
        build: IndexBuild = found(self, request, object_id)
        if not may_move(request):
            raise PermissionDenied
        return build

    @display(description="Build", ordering="number")
    def build(self, obj: IndexBuild) -> str:
        return obj.label

    @display(
        description="Status",
        label={str(Status(s).label): colour for s, colour in STATUS_COLOURS.items()},
    )
    def state(self, obj: IndexBuild) -> str:
        return str(obj.get_status_display())

    @display(description="Took", empty_value="–")
    def took(self, obj: IndexBuild) -> str | None:
        elapsed = progress.of(obj, timezone.now()).elapsed
        return progress.duration(elapsed.total_seconds()) if elapsed else None

    @display(description="Made from")
    def made_from(self, obj: IndexBuild) -> SafeString:
        spec = json.dumps(obj.spec, indent=2, ensure_ascii=False)
        return format_html('<pre class="rp-spec">{}</pre>', spec)


def person(request: HttpRequest) -> User | None:
    """Return who asks, for the timeline."""
    return request.user if isinstance(request.user, User) else None


def may_move(request: HttpRequest) -> bool:
    """Tell whether the user may make builds live and stop them: builds themselves are read-only."""
    return request.user.has_perm("indexes.change_indexbuild")


def build_context(request: HttpRequest, build: IndexBuild) -> dict[str, Any]:
    """Return what the progress of a build is rendered from."""
    now = timezone.now()
    shown = progress.of(build, now)
    return {
        "build": build,
        "progress": shown,
        "colour": STATUS_COLOURS.get(build.status, "default"),
        "elapsed": progress.duration(shown.elapsed.total_seconds()) if shown.elapsed else "",
        "left": progress.duration(shown.seconds_left) if shown.seconds_left else "",
        "counters": _counters(build, shown) if build.loading_at else [],
        "may_promote": build.status == Status.READY and may_move(request),
        "may_stop": build.is_running and may_move(request),
        "progress_url": reverse("admin:indexes_indexbuild_progress", args=[build.pk]),
    }


def _counters(build: IndexBuild, shown: progress.Progress) -> list[tuple[str, str]]:
    of = f" of {shown.total_rows:,}" if shown.total_rows else ""
    counters = [
        ("Rows done", f"{shown.rows:,}{of}"),
        ("Items", count(max(build.written, build.embedded))),
        ("Rows rejected", count(build.rejected)),
    ]
    if shown.rate:
        counters.append(("Rows a second", f"{shown.rate:,.0f}"))
    return counters


def rejected_context(build: IndexBuild) -> dict[str, Any]:
    """Return the rejected rows by reason, each with its first row, and the first rows of all."""
    if not build.rejected:
        return {"reasons": []}
    rows = build.rejected_rows
    reasons = list(
        rows.values("reason").annotate(rows=Count("id"), first=Min("row")).order_by("-rows")
    )
    firsts = {row.row: row for row in rows.filter(row__in=[r["first"] for r in reasons])}
    return {
        "reasons": [
            {
                "name": reason["reason"].replace("_", " "),
                "rows": count(reason["rows"]),
                "example": firsts[reason["first"]],
            }
            for reason in reasons
        ],
        "rejected": rows.all()[:SHOWN_ROWS],
        "kept": sum(reason["rows"] for reason in reasons),
    }


def _back_to(build: IndexBuild) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("admin:indexes_indexbuild_change", args=[build.pk]))


def _json_lines(build: IndexBuild) -> Iterator[str]:
    rows = RejectedRow.objects.filter(build=build).order_by("row")
    for row in rows.values("row", "reason", "message", "content").iterator(chunk_size=500):
        yield json.dumps(row, ensure_ascii=False) + "\n"
