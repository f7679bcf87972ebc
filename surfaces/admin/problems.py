"""Problems of a draft as its form shows them: the field's label and where to mend it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from django.db.models import Model
from django.urls import reverse

from surfaces.errors import Problem
from surfaces.models import Surface, SurfaceFilter

# Paths of surfaces.publishing, such as filters[2].values.
FILTER_PATH = re.compile(r"filters\[(\d+)\](?:\.(\w+))?")


class Mendable(NamedTuple):
    """A problem with the name of its field as the form shows it, and a link to that field."""

    label: str
    message: str
    link: str


def mendable(problems: Sequence[Problem], surface: Surface) -> list[Mendable]:
    """Return the problems in their order, each with where to mend it."""
    shown = []
    for problem in problems:
        label, link = _place(problem.field, surface)
        shown.append(Mendable(label, problem.message, link))
    return shown


def _place(path: str, surface: Surface) -> tuple[str, str]:
    form = reverse("admin:surfaces_surface_change", args=[surface.pk])
    if match := FILTER_PATH.fullmatch(path):
        position, column = int(match[1]), match[2] or "field"
        # What is live may have filters that the draft has not.
        names = [f" ({item.field})" for item in surface.filters.all()][position : position + 1]
        label = f"Filter {position + 1}{''.join(names)}: {_verbose(SurfaceFilter, column)}"
        return label, f"{form}#id_filters-{position}-{column}"
    if path == "reranker" and surface.reranker_id:
        reranker = reverse("admin:surfaces_reranker_change", args=[surface.reranker_id])
        return f"Reranker {surface.reranker}", reranker
    # Tick boxes have no element of the field's own name: the first box stands for all.
    anchor = f"id_{path}_0" if path in ("fields", "sources") else f"id_{path}"
    return _verbose(Surface, path).capitalize(), f"{form}#{anchor}"


def _verbose(model: type[Model], name: str) -> str:
    return str(getattr(model._meta.get_field(name), "verbose_name", name))
