"""Embedding endpoints in the admin, with a page that tries one out."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Field as ModelField
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from indexes.admin.pages import found, page
from indexes.embedding import embed_passages, embed_query
from indexes.errors import EmbeddingError
from indexes.models import EmbeddingEndpoint
from indexes.schema import EndpointSpec

SHOWN_NUMBERS = 6


@admin.register(EmbeddingEndpoint)
class EmbeddingEndpointAdmin(ModelAdmin):
    list_display = ["slug", "endpoint_name", "region", "dimension", "used_by"]
    search_fields = ["slug", "endpoint_name"]
    actions_detail = ["test"]
    actions_row = ["test"]
    warn_unsaved_form = True
    fieldsets = [
        (None, {"fields": ["slug"]}),
        ("SageMaker endpoint", {"fields": [("endpoint_name", "region"), "model"]}),
        (
            "Vectors",
            {
                "fields": [("dimension", "normalize")],
                "description": "A change here takes effect with the next build of each index: "
                "queries keep to what the live build was made with.",
            },
        ),
        (
            "Request and answer",
            {
                "fields": [
                    ("request_key", "response_key"),
                    "request_extra",
                    ("query_prefix", "passage_prefix"),
                ]
            },
        ),
        (
            "Limits",
            {
                "fields": [("timeout_ms", "max_batch"), ("concurrency", "max_calls_per_second")],
                "description": "The timeout is for searches. The others keep builds from taking "
                "the endpoint away from them.",
            },
        ),
        (
            "Batch Transform",
            {
                "fields": [
                    ("batch_model", "batch_s3_uri"),
                    ("batch_instance_type", "batch_instance_count"),
                ],
                "classes": ["collapse"],
                "description": "For indexes that embed their items by a job instead of calls to the "
                "endpoint: the same model, on instances that run only as long as the job.",
            },
        ),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmbeddingEndpoint]:
        rows: QuerySet[EmbeddingEndpoint] = super().get_queryset(request)
        return rows.prefetch_related("indexes")

    def formfield_for_dbfield(
        self, db_field: ModelField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        field: forms.Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "request_extra" and field is not None:
            field.widget.attrs["rows"] = 2
        return field

    @display(description="Used by")
    def used_by(self, obj: EmbeddingEndpoint) -> str:
        return ", ".join(index.name for index in obj.indexes.all()) or "–"

    @action(
        description="Test endpoint", url_path="test", icon="network_check", permissions=["change"]
    )
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = found(self, request, object_id)
        form = TextForm(request.GET if "text" in request.GET else None)
        trials = None
        if form.is_valid():
            trials = try_endpoint(endpoint.to_spec(), form.cleaned_data["text"])
        return page(
            self,
            request,
            "embeddingendpoint/test.html",
            f"Test {endpoint}",
            endpoint,
            form=form,
            trials=trials,
        )


class TextForm(forms.Form):
    text = forms.CharField(
        label="Text",
        max_length=1000,
        initial="waterproof hiking boots",
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True}),
    )


@dataclass(frozen=True)
class Trial:
    """One call of an endpoint, told in words."""

    what: str
    ms: float
    vectors: int = 0
    dimension: int = 0
    beginning: str = ""
    error: str = ""


def try_endpoint(endpoint: EndpointSpec, text: str) -> list[Trial]:
    """Call an endpoint as a search and as a build does. Never raises for what it answers."""
    calls: list[tuple[str, Any]] = [
        ("One text, as a search sends it: first call", lambda: [embed_query(endpoint, text)]),
        ("The same again, on the open connection", lambda: [embed_query(endpoint, text)]),
        (
            "Two texts, as a build sends them",
            lambda: embed_passages(endpoint, [text, f"{text}, the other"]),
        ),
    ]
    trials = []
    for what, call in calls:
        started = perf_counter()
        try:
            vectors = call()
        except EmbeddingError as error:
            trials.append(Trial(what, _ms_since(started), error=str(error)))
            break
        numbers = ", ".join(f"{number:.4f}" for number in vectors[0][:SHOWN_NUMBERS])
        trials.append(
            Trial(what, _ms_since(started), len(vectors), len(vectors[0]), f"{numbers}, …")
        )
    return trials


def _ms_since(started: float) -> float:
    return round((perf_counter() - started) * 1000, 1)
