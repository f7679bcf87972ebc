"""The first page of the admin: every surface with its state, every index with its live build."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from indexes.models import IndexDefinition
from surfaces.admin.states import state, with_drafts
from surfaces.models import Surface

ENVIRONMENT_COLOURS = {"production": "danger", "staging": "warning"}


def environment(request: HttpRequest) -> list[str]:
    """Return the label in the admin's corner and its colour."""
    name = settings.ENVIRONMENT
    return [name.capitalize(), ENVIRONMENT_COLOURS.get(name.lower(), "info")]


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the first page's context with what this user may see."""
    context["title"] = "Overview"
    if request.user.has_perm("surfaces.view_surface"):
        surfaces = with_drafts(Surface.objects.all())
        context["surfaces"] = [(surface, *state(surface)) for surface in surfaces]
    if request.user.has_perm("indexes.view_indexdefinition"):
        context["indexes"] = IndexDefinition.objects.select_related("live_build")
    return context
