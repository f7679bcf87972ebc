"""Index definitions in the admin: what they are built from, what is live, and the button that builds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import Field, OuterRef, ProtectedError, QuerySet, Subquery
from django.db.models.deletion import Collector
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display

from indexes import builds, progress
from indexes.admin.builds import STATUS_LABELS, BuildColumns
from indexes.admin.definition_panel import panel_context
from indexes.admin.fleet import CapacityMixin
from indexes.admin.judgments import JudgmentsMixin
from indexes.admin.moves import person
from indexes.admin.pages import ago, count, found, page, say
from indexes.admin.readonly import ReadOnly
from indexes.admin.refreshes import RefreshMixin
from indexes.errors import BuildError
from indexes.models import IndexBuild, IndexDefinition, IndexField
from indexes.sampling import sample


class IndexFieldInline(TabularInline):
    model = IndexField
    extra = 0
    fields = ["name", "type", "source_path", "multiple", "separator", "returned", "position"]
    ordering_field = "position"
    hide_ordering_field = True
    hide_title = True
    verbose_name = "field"
    verbose_name_plural = "Fields of an item"


class BuildInline(ReadOnly, BuildColumns, TabularInline):
    """The builds of an index, newest first."""

    model = IndexBuild
    fk_name = "definition"
    tab = True
    hide_title = True
    extra = 0
    per_page = 20
    fields = ["build", "state", "verdict", "canary", "items", "rows_rejected", "created_at"]
    readonly_fields = fields
    verbose_name_plural = "Builds"

    @display(description="Build")
    def build(self, obj: IndexBuild) -> SafeString:
        link = reverse("admin:indexes_indexbuild_change", args=[obj.pk])
        return format_html('<a class="rp-link" href="{}">{}</a>', link, obj.label)


@admin.register(IndexDefinition)
class IndexDefinitionAdmin(JudgmentsMixin, RefreshMixin, CapacityMixin, ModelAdmin):
    list_display = ["header", "live", "items", "age", "canary", "newest"]
    list_select_related = ["live_build", "canary_build", "endpoint", "source"]
    search_fields = ["slug", "name"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [IndexFieldInline, BuildInline]
    actions_detail = ["preview"]
    warn_unsaved_form = True
    change_form_outer_before_template = "admin/indexes/indexdefinition/panel.html"
    change_form_after_template = "admin/indexes/indexdefinition/capacity.html"
    # An exact search has no graph to tune.
    conditional_fields = dict.fromkeys(
        ("m", "ef_construction", "ef_runtime"), "algorithm == 'HNSW'"
    )
    fieldsets = [
        (None, {"fields": [("name", "slug")]}),
        (
            "From where",
            {
                "fields": [("source", "endpoint"), "embed_with"],
                "description": "Changes take effect with the next build; "
                "what is live keeps what it was built with.",
            },
        ),
        (
            "How it is searched",
            {"fields": [("metric", "algorithm"), ("m", "ef_construction"), "ef_runtime"]},
        ),
        (
            "What a build must pass",
            {
                "fields": [
                    "promotion",
                    ("max_rejected_percent", "min_items_percent"),
                    ("recall_target", "min_self_retrieval"),
                    ("min_overlap", "max_ndcg_drop"),
                    "max_latency_ratio",
                ],
                "description": "A build that fails one of these gates does not go live by itself.",
            },
        ),
        (
            "Keeping it up to date",
            {"fields": [("rebuild_cron", "refresh_cron"), "keep_hours"]},
        ),
    ]

    class Media:
        css = {"all": ["indexes/builds.css"]}
        js = ["indexes/progress.js", "indexes/once.js", "indexes/capacity.js"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[IndexDefinition]:
        newest = IndexBuild.objects.filter(definition=OuterRef("pk")).order_by("-number")
        rows: QuerySet[IndexDefinition] = super().get_queryset(request)
        return rows.annotate(newest_status=Subquery(newest.values("status")[:1]))

    def formfield_for_dbfield(
        self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        field: forms.Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name == "max_ndcg_drop":
            # Django would write its first letter large.
            field.label = str(db_field.verbose_name)
        return field

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        # Builds, and the surfaces that name it, go by the slug.
        return ["slug"] if obj else []

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {} if obj else {"slug": ["name"]}

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"indexes_indexdefinition_{name}",
            )
            for name, view in (("build", self.build_view), ("panel", self.panel_view))
        ]
        urls: list[URLPattern] = super().get_urls()
        return [*own, *urls]

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        return self.inlines if obj else [IndexFieldInline]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name what goes, without reading the rejected rows of every build.

        Builds cannot be deleted one by one, but they go with their index.
        """
        protected: list[str] = []
        try:
            Collector(using=router.db_for_write(IndexDefinition), origin=objs).collect(objs)
        except ProtectedError as error:
            protected = [str(obj) for obj in error.protected_objects]
        counts = {}
        for model in (IndexField, IndexBuild):
            rows = model._default_manager.filter(definition__in=objs).count()
            counts[model._meta.verbose_name_plural] = rows
        shown = [f"{obj}, with its builds and all that the search engine holds" for obj in objs]
        return shown, counts, set(), protected

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = dict(extra_context or {})
        if object_id and (definition := self.get_object(request, object_id)):
            context |= self._panel(request, definition)
        context["capacity_url"] = self._capacity_url(request, object_id)
        return super().changeform_view(request, object_id, form_url, context)

    def build_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Start a build of what is saved; POST only. Beside a running one, ask first."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        definition = found(self, request, object_id)
        if not self.has_change_permission(request, definition):
            raise PermissionDenied
        beside = request.POST.get("beside", "")
        with transaction.atomic():
            # Locked, so that the second of two clicks sees the build of the first.
            IndexDefinition.objects.select_for_update().get(pk=definition.pk)
            running = definition.builds.filter(status__in=IndexBuild.RUNNING)[:2]
            # Beside two, starting another is refused, with the reason.
            if len(running) != 1 or str(running[0].pk) == beside:
                self._start(request, definition)
                return _back_to(definition)
        return page(
            self,
            request,
            "indexdefinition/beside.html",
            f"Build {definition}",
            definition,
            running=running[0],
            progress=progress.of(running[0], timezone.now()),
        )

    def _start(self, request: HttpRequest, definition: IndexDefinition) -> None:
        try:
            build = builds.start(definition, requested_by=person(request))
        except BuildError as error:
            say(request, error)
        else:
            self.log_change(request, definition, f"Started build {build.label}.")
            messages.success(request, f"{build.label} is being built. What is live stays live.")

    def panel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while a build runs."""
        definition = found(self, request, object_id)
        if not self.has_view_permission(request, definition):
            raise PermissionDenied
        response = TemplateResponse(
            request, "admin/indexes/indexdefinition/state.html", self._panel(request, definition)
        )
        response["Cache-Control"] = "no-store"
        return response

    @action(
        description="Preview items", url_path="items", icon="table_rows", permissions=["change"]
    )
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        definition = found(self, request, object_id)
        spec = definition.to_spec()
        return page(
            self,
            request,
            "indexdefinition/preview.html",
            f"First items of {definition}",
            definition,
            fields=spec.fields,
            source=definition.source,
            sample=sample(spec.catalog, spec.fields),
        )

    def _capacity_url(self, request: HttpRequest, object_id: str | None) -> str:
        # Who may only look has no form that the planner could follow.
        may_edit = self.has_change_permission(request) or self.has_add_permission(request)
        url = reverse("admin:indexes_indexdefinition_capacity")
        return f"{url}?index={object_id or ''}" if may_edit else ""

    def _panel(self, request: HttpRequest, definition: IndexDefinition) -> dict[str, Any]:
        may_build = self.has_change_permission(request, definition)
        return {**panel_context(request, definition), "may_build": may_build}

    @display(description="Index", header=True, ordering="name")
    def header(self, obj: IndexDefinition) -> list[str]:
        return [obj.name, obj.slug]

    @display(description="Live build", empty_value="–")
    def live(self, obj: IndexDefinition) -> str | None:
        return obj.live_build.label if obj.live_build else None

    @display(description="Items", empty_value="–")
    def items(self, obj: IndexDefinition) -> str | None:
        return count(obj.live_build.indexed) if obj.live_build else None

    @display(description="Built", empty_value="–")
    def age(self, obj: IndexDefinition) -> str | None:
        return ago(obj.live_build.finished_at) if obj.live_build else None

    @display(description="Canary", empty_value="–")
    def canary(self, obj: IndexDefinition) -> str | None:
        return f"{obj.canary_build.label}: {obj.canary_percent} %" if obj.canary_build else None

    @display(description="Newest build", label=STATUS_LABELS)
    def newest(self, obj: Any) -> str:
        status = obj.newest_status
        return str(IndexBuild.Status(status).label) if status else "None yet"


def _back_to(definition: IndexDefinition) -> HttpResponseRedirect:
    return HttpResponseRedirect(
        reverse("admin:indexes_indexdefinition_change", args=[definition.pk])
    )
