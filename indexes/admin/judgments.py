"""The page of an index's judgments: what is there, and a file in its place."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminFileFieldWidget

from indexes import judgments
from indexes.admin.pages import count, found, page
from indexes.judgments import JudgmentError
from indexes.models import IndexDefinition

SHOWN_QUERIES = 20


class UploadForm(forms.Form):
    """A CSV of judgments."""

    file = forms.FileField(
        label="CSV file",
        widget=UnfoldAdminFileFieldWidget,
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
    )

    def clean_file(self) -> judgments.Sheet:
        try:
            return judgments.read(self.cleaned_data["file"].file)
        except JudgmentError as error:
            raise forms.ValidationError(error.problems) from error


class JudgmentsMixin:
    """Adds the page to the admin of indexes, at ``admin:indexes_indexdefinition_judgments``."""

    admin_site: Any

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<path:object_id>/judgments/",
            self.admin_site.admin_view(self.judgments_view),
            name="indexes_indexdefinition_judgments",
        )
        urls: list[URLPattern] = super().get_urls()  # type: ignore[misc]  # of the admin it is mixed into
        return [own, *urls]

    def judgments_view(self: Any, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the judgments of an index; POST replaces them by a file, or removes them."""
        definition: IndexDefinition = found(self, request, object_id)
        may_change = self.has_change_permission(request, definition)
        if not (may_change or self.has_view_permission(request, definition)):
            raise PermissionDenied
        form = UploadForm()
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            if "remove" in request.POST:
                removed = judgments.remove(definition)
                self.log_change(request, definition, f"Removed {count(removed)} judgments.")
                messages.success(request, f"{count(removed)} judgments are removed.")
                return _back_to(definition)
            form = UploadForm(request.POST, request.FILES)
            if form.is_valid():
                sheet = form.cleaned_data["file"]
                judgments.replace(definition, sheet)
                said = _said(sheet)
                self.log_change(request, definition, f"Uploaded {said}")
                messages.success(request, f"The index has {said}")
                return _back_to(definition)
        rows = definition.judgments.all()
        queries = rows.values("query").annotate(products=Count("id"), best=Max("grade"))
        return page(
            self,
            request,
            "indexdefinition/judgments.html",
            f"Judgments of {definition}",
            definition,
            form=form,
            may_change=may_change,
            judgments=count(rows.count()),
            queries=count(queries.count()),
            sample=queries.order_by("query")[:SHOWN_QUERIES],
            columns=judgments.COLUMNS,
            most=count(judgments.MAX_ROWS),
        )


def _said(sheet: judgments.Sheet) -> str:
    said = f"{count(len(sheet.grades))} judgments of {count(sheet.queries)} queries."
    if sheet.duplicates:
        said += f" {count(sheet.duplicates)} lines said a pair again: the last one counts."
    return said


def _back_to(definition: IndexDefinition) -> HttpResponseRedirect:
    return HttpResponseRedirect(
        reverse("admin:indexes_indexdefinition_judgments", args=[definition.pk])
    )
