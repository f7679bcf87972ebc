"""Surfaces in the admin: the draft, its state, and the way to publish it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Field as ModelField
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from indexes.admin.readonly import ReadOnly
from surfaces import publishing
from surfaces.admin.forms import NamesField, SurfaceForm, filter_form, tick_boxes
from surfaces.admin.problems import mendable
from surfaces.admin.publish_page import publish_page
from surfaces.admin.states import STATES, state, with_drafts
from surfaces.models import Surface, SurfaceFilter, SurfaceRevision
from surfaces.publishing import WHOLE_DRAFT


class SurfaceFilterInline(TabularInline):
    model = SurfaceFilter
    extra = 0
    fields = ["field", "value_from", "operator", "values", "key", "when_missing", "position"]
    ordering_field = "position"
    hide_ordering_field = True
    hide_title = True
    verbose_name = "filter"
    verbose_name_plural = "Filters"

    class Media:
        js = ["surfaces/columns.js"]

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        return super().get_formset(request, obj, form=filter_form(obj), **kwargs)

    def formfield_for_dbfield(
        self, db_field: ModelField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        if db_field.name == "values":
            kwargs["widget"] = UnfoldAdminTextareaWidget(attrs={"rows": 1})
        field: forms.Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        return field


class RevisionInline(ReadOnly, TabularInline):
    """What was published, newest first; a revision never changes."""

    model = SurfaceRevision
    fk_name = "surface"
    tab = True
    hide_title = True
    extra = 0
    per_page = 20
    fields = ["revision", "published_at", "published_by", "note"]
    readonly_fields = fields
    verbose_name_plural = "Revisions"

    @display(description="Revision")
    def revision(self, obj: SurfaceRevision) -> SafeString:
        link = reverse("admin:surfaces_surfacerevision_change", args=[obj.pk])
        return format_html('<a class="text-link" href="{}">{}</a>', link, obj.number)


@admin.register(Surface)
class SurfaceAdmin(ModelAdmin):
    form = SurfaceForm
    list_display = ["header", "index", "draft_state", "revision", "reranker", "look"]
    list_select_related = ["index", "reranker", "live_revision"]
    list_filter = ["index"]
    search_fields = ["slug", "name", "description"]
    prepopulated_fields = {"slug": ["name"]}
    inlines = [SurfaceFilterInline, RevisionInline]
    actions_detail = ["publish", "preview"]
    warn_unsaved_form = True
    change_form_before_template = "admin/surfaces/surface/state.html"
    fieldsets = [
        (None, {"fields": [("name", "slug"), "description"]}),
        (
            "What is shown",
            {"fields": [("limit", "max_limit"), "fields"]},
        ),
        (
            "From where",
            {
                "fields": [
                    ("index", "candidates"),
                    ("seed_signal", "default_query"),
                    ("browse_field", "browse_descending"),
                ],
                "description": "Items near the query, or near given items. Without either: "
                "near those that a signal weighs, else by the text below, else by a number field.",
            },
        ),
        (
            "Who for",
            {
                "fields": ["reranker", "sources"],
                "description": "What is known of the shopper and the moment, "
                "and how it changes the order.",
            },
        ),
        (
            "If it fails",
            {"fields": [("deadline_ms", "fallback"), "fallback_item_ids"]},
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Surface]:
        return with_drafts(super().get_queryset(request))

    def formfield_for_dbfield(
        self, db_field: ModelField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        if db_field.name == "fields":
            return NamesField(
                label="Fields returned",
                required=False,
                help_text="None ticked: every field that the index returns.",
            )
        field: forms.Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "sources" and field is not None:
            tick_boxes(field, "Where signals come from: the reranker's terms name them.")
        if db_field.name == "fallback_item_ids" and field is not None:
            field.widget.attrs["rows"] = 3
        return field

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        context = dict(extra_context or {})
        if (
            object_id
            and request.method == "GET"
            and (surface := self.get_object(request, object_id))
        ):
            problems = [p for p in publishing.check(surface) if p.field != WHOLE_DRAFT]
            context |= {
                "state": state(surface),
                "live": surface.live_revision,
                "problems": mendable(problems, surface),
                "may_publish": self.has_publish_permission(request),
            }
        return super().changeform_view(request, object_id, form_url, context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Revisions cannot be deleted one by one, but they go with their surface."""
        shown, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return shown, counts, lacking - {SurfaceRevision._meta.verbose_name}, protected

    @display(description="Surface", header=True, ordering="name")
    def header(self, obj: Surface) -> list[str]:
        return [obj.name, obj.slug]

    @display(description="State", label=STATES)
    def draft_state(self, obj: Surface) -> str:
        return state(obj)[0]

    @display(description="Live revision", empty_value="–")
    def revision(self, obj: Surface) -> int | None:
        return obj.live_revision.number if obj.live_revision else None

    @display(description="Preview")
    def look(self, obj: Surface) -> SafeString:
        link = reverse("preview-surface", args=[obj.slug])
        return format_html('<a class="text-link" href="{}">Preview</a>', link)

    @action(
        description="Publish…",
        url_path="publish",
        icon="publish",
        permissions=["publish"],
        variant=ActionVariant.PRIMARY,
    )
    def publish(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return publish_page(self, request, self._surface(request, object_id))

    @action(description="Preview", url_path="preview", icon="visibility")
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        surface = self._surface(request, object_id)
        return HttpResponseRedirect(reverse("preview-surface", args=[surface.slug]))

    def has_publish_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("surfaces.publish_surface")

    def _surface(self, request: HttpRequest, object_id: str) -> Surface:
        surface: Surface | None = self.get_object(request, object_id)
        if surface is None:
            raise Http404
        return surface
