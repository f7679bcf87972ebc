"""The page between a draft and its publication: what changes, and what keeps it from going live."""

from __future__ import annotations

import hashlib

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
from surfaces.errors import CannotPublish, Problem
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
    digest = _digest(surface)
    problems = publishing.check(surface)
    form = PublishForm(request.POST or None, initial={"draft": digest})
    if request.method == "POST" and form.is_valid():
        if form.cleaned_data["draft"] != digest:
            messages.warning(
                request, "The draft was changed after this page was opened. Look again."
            )
            return HttpResponseRedirect(request.path)
        user = request.user if request.user.is_authenticated else None
        note = form.cleaned_data["note"].strip()
        try:
            revision = publishing.publish(surface, user=user, note=note)
        except CannotPublish as error:
            problems = list(error.problems)
        else:
            return _published(model_admin, request, surface, revision)
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


def _digest(surface: Surface) -> str:
    """Return what tells one draft from another, so that only what was looked at goes live."""
    try:
        document = publishing.draft_document(surface)
    except CannotPublish:
        return "none"
    return hashlib.sha256(document.model_dump_json().encode()).hexdigest()
