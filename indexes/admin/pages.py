"""What the pages beside the forms share: their frame, and how they say what cannot be done."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.timesince import timesince

from indexes.errors import IndexesError


def page(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    template: str,
    title: str,
    obj: models.Model,
    **context: Any,
) -> HttpResponse:
    """Render a page about one object inside the admin's frame."""
    frame = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": model_admin.opts,
        "original": obj,
        "object": obj,
    }
    return TemplateResponse(request, f"admin/indexes/{template}", frame | context)


def found(model_admin: ModelAdmin[Any], request: HttpRequest, object_id: str) -> Any:
    """Return the object of a page, or raise Http404."""
    obj = model_admin.get_object(request, object_id)
    if obj is None:
        raise Http404
    return obj


def say(request: HttpRequest, error: IndexesError) -> None:
    """Show why something was not done."""
    messages.error(request, str(error))


def count(number: int) -> str:
    """Return a number as people read it: ``19,406``."""
    return f"{number:,}"


def ago(moment: datetime | None) -> str:
    """Return how long ago a moment is: ``2 hours ago``, ``just now``."""
    if moment is None:
        return ""
    if timezone.now() - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, depth=1)} ago"
