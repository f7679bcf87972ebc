"""Published revisions in the admin: read-only, each described in words."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from pydantic import ValidationError
from unfold.admin import ModelAdmin
from unfold.decorators import display

from indexes.admin.readonly import ReadOnly
from surfaces.admin.wording import describe
from surfaces.document import SurfaceDocument
from surfaces.models import SurfaceRevision


@admin.register(SurfaceRevision)
class SurfaceRevisionAdmin(ReadOnly, ModelAdmin):
    list_display = ["surface", "number", "published_at", "published_by", "note"]
    list_filter = ["surface"]
    list_select_related = ["surface", "published_by"]
    fields = ["surface", ("number", "published_at", "published_by"), "note", "configuration"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["configuration"]

    @display(description="Configuration")
    def configuration(self, obj: SurfaceRevision) -> str:
        try:
            parts = describe(SurfaceDocument.model_validate(obj.document)).items()
        except ValidationError:
            return "Another release wrote it, in a form that cannot be read here."
        rows = (
            (label, format_html_join("", "<li>{}</li>", ((line,) for line in lines or ("none",))))
            for label, lines in parts
        )
        return format_html(
            '<dl class="rp-parts">{}</dl>',
            format_html_join("", "<dt>{}</dt><dd><ul>{}</ul></dd>", rows),
        )
