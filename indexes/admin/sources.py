"""Catalog sources in the admin, with a page that shows what their first rows become."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from indexes.admin.pages import found, page
from indexes.catalog import check_address
from indexes.errors import CatalogError
from indexes.items import PLACEHOLDER
from indexes.models import CatalogSource
from indexes.sampling import sample
from indexes.schema import CatalogSpec


class CatalogSourceForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic when it runs
    """Refuses what no build could read, on the field that has to change."""

    def clean_text_template(self) -> str:
        template: str = self.cleaned_data["text_template"]
        if not PLACEHOLDER.search(template):
            raise ValidationError("Name at least one field in braces, such as {title}.")
        return template

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "uri" in cleaned and "format" in cleaned:
            spec = CatalogSpec(
                uri=cleaned["uri"], format=cleaned["format"], text_template="{title}"
            )
            try:
                check_address(spec)
            except CatalogError as error:
                self.add_error("uri", str(error))
        return cleaned


@admin.register(CatalogSource)
class CatalogSourceAdmin(ModelAdmin):
    form = CatalogSourceForm
    list_display = ["slug", "uri", "id_field", "text_template", "used_by"]
    search_fields = ["slug", "uri"]
    actions_detail = ["preview"]
    actions_row = ["preview"]
    warn_unsaved_form = True
    fieldsets = [
        (None, {"fields": ["slug"]}),
        ("File", {"fields": ["uri", "format"]}),
        (
            "From a row to an item",
            {
                "fields": [("id_field", "version_field"), "text_template", "vector_field"],
                "description": "Preview rows shows the fields that the file has.",
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[CatalogSource]:
        rows: QuerySet[CatalogSource] = super().get_queryset(request)
        return rows.prefetch_related("indexes")

    @display(description="Used by")
    def used_by(self, obj: CatalogSource) -> str:
        return ", ".join(index.name for index in obj.indexes.all()) or "–"

    @action(description="Preview rows", url_path="rows", icon="table_rows", permissions=["change"])
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        source = found(self, request, object_id)
        return page(
            self,
            request,
            "catalogsource/preview.html",
            f"First rows of {source}",
            source,
            sample=sample(source.to_spec()),
        )
