"""The doctor's page, and the capacity planner that follows the form of an index."""

from __future__ import annotations

from time import monotonic
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.decorators import permission_required
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from pydantic import ValidationError as SpecError

from indexes import capacity, doctor
from indexes.admin.pages import say
from indexes.doctor import Finding
from indexes.errors import IndexesError
from indexes.limits import in_words
from indexes.models import CatalogSource, EmbeddingEndpoint, IndexBuild, IndexDefinition
from indexes.schema import FieldSpec, IndexSpec

# A page does not wait longer for keys to be counted; the command does.
PAGE_S = 4.0
MAX_FIELDS = 2000

may_look = permission_required("indexes.view_indexbuild", raise_exception=True)
may_mend = permission_required("indexes.change_indexbuild", raise_exception=True)


@require_safe
@never_cache
@may_look
def doctor_view(request: HttpRequest) -> HttpResponse:
    """Show every finding, each with its repair, and the memory of every build."""
    started = monotonic()
    report = doctor.examine(PAGE_S)
    context = {
        **admin.site.each_context(request),
        "title": "Doctor",
        "report": report,
        "findings": [_shown(request, finding) for finding in report.findings],
        "rows": [
            {"row": row, "size": "–" if row.bytes is None else in_words(row.bytes)}
            for row in report.builds
        ],
        "total": in_words(report.total_bytes),
        "memory": _memory(report),
        "took": f"{monotonic() - started:.1f} s",
    }
    return TemplateResponse(request, "admin/indexes/fleet/doctor.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@may_mend
def repair_view(request: HttpRequest) -> HttpResponse:
    """Ask, then mend one finding. It is looked for again before each."""
    key = request.POST.get("finding") or request.GET.get("finding", "")
    back = HttpResponseRedirect(reverse("doctor"))
    report = doctor.examine(PAGE_S, endpoints=False)
    finding = next((found for found in report.findings if found.key == key), None)
    if finding is None or not finding.repair:
        messages.info(request, report.error or _gone(report))
        return back
    if request.method != "POST":
        context = {
            **admin.site.each_context(request),
            "title": "Repair",
            "finding": finding,
        }
        return TemplateResponse(request, "admin/indexes/fleet/repair.html", context)
    try:
        done = doctor.repair(finding.kind, finding.target, by=request.user)  # type: ignore[arg-type]  # the admin lets no one in who is not logged in
    except IndexesError as error:
        say(request, error)
    else:
        _log(request, finding, done)
        messages.success(request, done)
    return back


class CapacityMixin:
    """Gives the admin of indexes the address of its capacity planner."""

    admin_site: Any

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "capacity/",
            self.admin_site.admin_view(self.capacity_view),
            name="indexes_indexdefinition_capacity",
        )
        urls: list[URLPattern] = super().get_urls()  # type: ignore[misc]  # the admin's, which it is mixed into
        return [own, *urls]

    def capacity_view(self, request: HttpRequest) -> HttpResponse:
        """The memory of the index in the form: ``?index=`` its id where it is saved, and the form's values.

        They come by POST, as many fields make an address too long; nothing is changed.
        """
        if not self.has_view_permission(request):  # type: ignore[attr-defined]  # as above
            raise PermissionDenied
        form = CapacityForm(request.POST or request.GET)
        definition = _definition(request.GET.get("index", ""))
        context: dict[str, Any] = {"problem": ""}
        spec = form.spec(definition) if form.is_valid() else None
        if spec is None:
            context["problem"] = (
                "Choose a source and an endpoint to see the memory that a build takes."
            )
        else:
            plan = capacity.plan(spec, items=form.cleaned_data["items"], definition=definition)
            context |= {"plan": plan, "parts": _parts(plan), "measured": _measured(plan)}
        response = TemplateResponse(request, "admin/indexes/fleet/capacity.html", context)
        response["Cache-Control"] = "no-store"
        return response


class CapacityForm(forms.Form):
    """What the memory of an index depends on, as the form being edited has it; what is wrong is left out."""

    endpoint = forms.ModelChoiceField(EmbeddingEndpoint.objects.all())
    source = forms.ModelChoiceField(CatalogSource.objects.all())
    algorithm = forms.ChoiceField(choices=IndexDefinition.Algorithm.choices, required=False)
    m = forms.IntegerField(min_value=2, max_value=512, required=False)
    items = forms.IntegerField(min_value=1, max_value=10**10, required=False)
    fields_of_item = forms.JSONField(required=False)

    def spec(self, definition: IndexDefinition | None) -> IndexSpec | None:
        """Return the spec in the form, or None where it is none."""
        data = self.cleaned_data
        try:
            return IndexSpec(
                slug=definition.slug if definition is not None else "index",
                endpoint=data["endpoint"].to_spec(),
                catalog=data["source"].to_spec(),
                algorithm=data["algorithm"] or "HNSW",
                m=data["m"] or 16,
                fields=_fields(data["fields_of_item"]),
            )
        except SpecError:
            return None


def _fields(rows: Any) -> tuple[FieldSpec, ...]:
    found = []
    for row in rows[:MAX_FIELDS] if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not row.get("name"):
            continue
        known = {
            name: row[name] for name in ("name", "type", "separator", "multiple") if name in row
        }
        try:
            found.append(FieldSpec(source=row.get("source") or row["name"], **known))
        except SpecError:
            # A row that is being typed.
            continue
    return tuple(found)


def _definition(pk: str) -> IndexDefinition | None:
    # Not isdigit, which is true of "²" too.
    if not pk.isdecimal():
        return None
    return IndexDefinition.objects.select_related("live_build").filter(pk=int(pk)).first()


def _parts(plan: capacity.Plan) -> list[tuple[str, str]]:
    one = plan.one
    return [
        ("A build", in_words(one.total)),
        ("Items", in_words(one.hashes)),
        ("Vectors", in_words(one.vectors)),
        ("Graph", in_words(one.graph)),
        ("Fields", in_words(one.fields)),
    ]


def _measured(plan: capacity.Plan) -> list[str]:
    return [
        f"{row.label} measured {in_words(row.measured)} for {row.items:,} items: "
        f"the estimate is {row.off_percent:+d} % of that."
        for row in plan.measured
    ]


def _memory(report: doctor.Report) -> str:
    if report.facts is None:
        return ""
    memory = report.facts.memory
    of = f" of {in_words(memory.total)}" if memory.total else ""
    return f"{report.facts}: {in_words(memory.used)}{of} used."


def _shown(request: HttpRequest, finding: Finding) -> dict[str, Any]:
    mendable = bool(finding.repair) and request.user.has_perm("indexes.change_indexbuild")
    return {"finding": finding, "mendable": mendable}


def _gone(report: doctor.Report) -> str:
    if report.complete:
        return "That is not there any more: it was mended, or mended itself."
    return (
        "That was not found this time, but only part of the keys could be looked at. "
        "Open the doctor again; its command takes the time to look at all of them."
    )


def _log(request: HttpRequest, finding: Finding, done: str) -> None:
    build = IndexBuild.objects.filter(pk=finding.build_id).first() if finding.build_id else None
    LogEntry.objects.create(
        user_id=int(request.user.pk or 0),
        content_type=ContentType.objects.get_for_model(IndexBuild),
        object_id=str(build.pk) if build else None,
        object_repr=(build.label if build else finding.target)[:200],
        action_flag=CHANGE,
        change_message=f"Repaired: {done}",
    )
