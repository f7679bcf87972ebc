"""Enrichment sources in the admin, with a page that tries one out."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from enrichment.errors import KeyTemplateInvalid
from enrichment.models import EnrichmentSource, Signal
from enrichment.sources import key_names
from enrichment.spec import SourceSpec
from enrichment.trial import Trial, try_source


class SignalInline(TabularInline):
    model = Signal
    extra = 0
    min_num = 1
    hide_title = True
    fields = ["name", "kind", "attribute"]
    verbose_name_plural = "Signals: what the item's attributes become"

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        return super().get_formset(request, obj, **{"validate_min": True, **kwargs})


@admin.register(EnrichmentSource)
class EnrichmentSourceAdmin(ModelAdmin):
    list_display = ["slug", "table", "item", "signal_names", "timeout_ms", "required"]
    search_fields = ["slug", "table"]
    inlines = [SignalInline]
    actions_detail = ["try_it"]
    actions_row = ["try_it"]
    warn_unsaved_form = True
    fieldsets = [
        (None, {"fields": ["slug"]}),
        (
            "Table",
            {"fields": [("table", "region"), ("partition_key", "sort_key")]},
        ),
        (
            "Item of a request",
            {
                "fields": ["key_template", "sort_key_template"],
                "description": "A request that lacks a value the key needs goes without this "
                "source, and is refused where the source is required.",
            },
        ),
        ("If it is slow or down", {"fields": [("timeout_ms", "required")]}),
    ]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("signals")

    @display(description="Item")
    def item(self, obj: EnrichmentSource) -> str:
        return " / ".join(filter(None, (obj.key_template, obj.sort_key_template)))

    @display(description="Signals")
    def signal_names(self, obj: EnrichmentSource) -> str:
        return ", ".join(signal.name for signal in obj.signals.all()) or "–"

    @action(description="Try it", url_path="try", icon="science", permissions=["try"])
    def try_it(self, request: HttpRequest, object_id: str) -> HttpResponse:
        source: EnrichmentSource | None = self.get_object(request, object_id)
        if source is None:
            raise Http404
        return try_page(self, request, source)

    def has_try_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        # It shows what is stored of people, so seeing the configuration is not enough.
        return bool(self.has_change_permission(request))


class SampleForm(forms.Form):
    """One text for each value that the source's key is made of."""

    def __init__(self, spec: SourceSpec, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in key_names(spec):
            self.fields[f"value.{name}"] = forms.CharField(
                label=name, max_length=1000, widget=UnfoldAdminTextInputWidget()
            )

    def values(self) -> dict[str, str]:
        """Return the texts by the names that the key template uses."""
        return {name.removeprefix("value."): text for name, text in self.cleaned_data.items()}


def try_page(
    model_admin: ModelAdmin, request: HttpRequest, source: EnrichmentSource
) -> HttpResponse:
    """Show the form; with values in the address also what the source gives for them."""
    spec = source.to_spec()
    trial: Trial | None = None
    form: SampleForm | None = None
    broken = ""
    try:
        form = SampleForm(spec, request.GET if "try" in request.GET else None)
    except KeyTemplateInvalid as error:
        broken = str(error)
    if form is not None and form.is_valid():
        trial = try_source(spec, form.values())
    return TemplateResponse(
        request,
        "admin/enrichment/enrichmentsource/try.html",
        {
            **model_admin.admin_site.each_context(request),
            "title": f"Try {source}",
            "opts": model_admin.opts,
            "original": source,
            "source": source,
            "spec": spec,
            "form": form,
            "broken": broken,
            "trial": trial,
            "slow": trial is not None and trial.ms > spec.timeout_ms / 2,
        },
    )
