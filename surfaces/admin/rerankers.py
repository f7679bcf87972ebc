"""Rerankers in the admin: how candidates are ordered, shared between surfaces."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from surfaces.admin import wording
from surfaces.admin.forms import term_form
from surfaces.models import Reranker, RerankTerm


class RerankTermInline(TabularInline):
    model = RerankTerm
    extra = 0
    fields = ["kind", "signal", "field", "weight", "position"]
    ordering_field = "position"
    hide_ordering_field = True
    hide_title = True
    verbose_name = "term"
    verbose_name_plural = "Terms: the score is their sum"

    class Media:
        js = ["surfaces/columns.js"]

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        return super().get_formset(request, obj, form=term_form(), **kwargs)


@admin.register(Reranker)
class RerankerAdmin(ModelAdmin):
    list_display = ["header", "formula", "used_by"]
    search_fields = ["slug", "name"]
    prepopulated_fields = {"slug": ["name"]}
    fields = [("name", "slug"), "kind"]
    inlines = [RerankTermInline]
    warn_unsaved_form = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Reranker]:
        rows: QuerySet[Reranker] = super().get_queryset(request)
        return rows.prefetch_related("terms", "surfaces")

    @display(description="Reranker", header=True, ordering="name")
    def header(self, obj: Reranker) -> list[str]:
        return [obj.name, obj.slug]

    @display(description="Score")
    def formula(self, obj: Reranker) -> str:
        if obj.kind == Reranker.Kind.NONE:
            return "similarity"
        return " + ".join(wording.term(term.to_spec()) for term in obj.terms.all())

    @display(description="Used by")
    def used_by(self, obj: Reranker) -> str:
        return ", ".join(surface.slug for surface in obj.surfaces.all()) or "–"

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        if isinstance(obj, Reranker) and message:
            self._tell_who_uses_it(request, obj)
        return super().log_change(request, obj, message)

    def _tell_who_uses_it(self, request: HttpRequest, reranker: Reranker) -> None:
        slugs = list(reranker.surfaces.values_list("slug", flat=True))
        if slugs:
            messages.info(request, f"Not served before it is published: {', '.join(slugs)}.")
