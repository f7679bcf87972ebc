"""The page between a draft and its publication: what changes, and what keeps it from going live."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from surfaces import publishing, snapshot
from surfaces.admin.problems import mendable
from surfaces.admin.wording import Change, differences
from surfaces.errors import CannotPublish, DraftChanged, Problem
from surfaces.models import Surface, SurfaceRevision
from surfaces.publishing import WHOLE_DRAFT


class PublishForm(forms.Form):
    """A note on the revision, and the draft that was looked at."""

    note = forms.CharField(
        max_length=300,
        required=False,
        label="What changes, and why",
        help_text="Kept with the revision, for whoever asks later.",
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True}),
    )
    draft = forms.CharField(widget=forms.HiddenInput)


def publish_page(
    model_admin: ModelAdmin[Surface], request: HttpRequest, surface: Surface
) -> HttpResponse:
    """Show the draft's differences and problems; publish it when it is the draft that was shown."""
    form = PublishForm(request.POST or None, initial={"draft": publishing.draft_digest(surface)})
    if request.method == "POST" and form.is_valid():
        user = request.user if request.user.is_authenticated else None
        note = form.cleaned_data["note"].strip()
        try:
            revision = publishing.publish(
                surface, user=user, note=note, expected=form.cleaned_data["draft"]
            )
        except DraftChanged as error:
            messages.warning(request, error.problems[0].message)
            return HttpResponseRedirect(request.path)
        except CannotPublish as error:
            problems = list(error.problems)
        else:
            return _published(model_admin, request, surface, revision)
    else:
        problems = publishing.check(surface)
    return _render(model_admin, request, surface, problems, form)


def _published(
    model_admin: ModelAdmin[Surface],
    request: HttpRequest,
    surface: Surface,
    revision: SurfaceRevision,
) -> HttpResponse:
    model_admin.log_change(request, surface, f"Published revision {revision.number}.")
    messages.success(request, f"Revision {revision.number} of {surface} is live.")
    if not snapshot.is_pushed():
        messages.warning(
            request,
            "Valkey cannot be reached: web processes will serve it as soon as it is back.",
        )
    return HttpResponseRedirect(reverse("admin:surfaces_surface_change", args=[surface.pk]))


def _render(
    model_admin: ModelAdmin[Surface],
    request: HttpRequest,
    surface: Surface,
    problems: list[Problem],
    form: PublishForm,
) -> HttpResponse:
    unchanged = any(problem.field == WHOLE_DRAFT for problem in problems)
    shown = [problem for problem in problems if problem.field != WHOLE_DRAFT]
    return TemplateResponse(
        request,
        "admin/surfaces/surface/publish.html",
        {
            **model_admin.admin_site.each_context(request),
            "title": f"Publish {surface}",
            "opts": model_admin.opts,
            "original": surface,
            "surface": surface,
            "live": surface.live_revision,
            "problems": mendable(shown, surface),
            "unchanged": unchanged,
            "changes": _changes(surface),
            "form": form,
        },
        status=200 if request.method == "GET" else 409,
    )


def _changes(surface: Surface) -> list[Change]:
    try:
        draft = publishing.draft_document(surface)
    except CannotPublish:
        return []
    return differences(snapshot.live_document(surface), draft)
