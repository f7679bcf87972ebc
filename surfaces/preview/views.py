"""The preview's pages. They run the same pipeline as the API, on the draft or the live revision."""

import json
import secrets
import shlex
from dataclasses import dataclass, field
from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from indexes.schema import LiveIndex
from surfaces.admin.problems import Mendable, mendable
from surfaces.admin.states import state, with_drafts
from surfaces.contracts import RecommendRequest, RecommendResponse
from surfaces.errors import (
    BadRequest,
    CannotPublish,
    PlanInvalid,
    Problem,
    ServiceUnavailable,
)
from surfaces.models import Surface
from surfaces.pipeline import recommend
from surfaces.preview import plans, words
from surfaces.preview.plans import Version
from surfaces.preview.question import DRAFT, LIVE, QuestionForm
from surfaces.preview.result import cards, signals, waterfall
from surfaces.wiring import stages, warm

# Of the address, what is no part of the question.
PAGE_FIELDS = ("revision", "build")
# What a page may wait for a draft's endpoint and sources before it asks them.
WARM_S = 2.0

may_look = permission_required("surfaces.view_surface", raise_exception=True)


@require_safe
@may_look
def surfaces(request: HttpRequest) -> HttpResponse:
    """Show every surface, to choose one."""
    rows = [(surface, *state(surface)) for surface in with_drafts(Surface.objects.all())]
    context = {**admin.site.each_context(request), "title": "Preview", "rows": rows}
    return TemplateResponse(request, "preview/surfaces.html", context)


@require_safe
@may_look
def surface(request: HttpRequest, slug: str) -> HttpResponse:
    """Put the question in the address to a surface and show the answer."""
    surface = get_object_or_404(with_drafts(Surface.objects.all()), slug=slug)
    live = plans.live(surface)
    page = Page(
        surface,
        live,
        wants_draft=request.GET.get("revision") == DRAFT or live is None,
        build=request.GET.get("build", ""),
    )
    page.ask(request)
    context = {
        **admin.site.each_context(request),
        "title": f"Preview {surface}",
        "surface": surface,
        "surfaces": Surface.objects.values_list("slug", "name"),
        "state": state(surface),
        "page": page,
        "builds": plans.choices(surface),
        "DRAFT": DRAFT,
        "LIVE": LIVE,
    }
    return TemplateResponse(request, "preview/surface.html", context)


@dataclass
class Page:
    """What one request of the preview found out."""

    surface: Surface
    live: Version | None
    wants_draft: bool
    # The label of the build to search; any other text: what callers get.
    build: str = ""
    version: Version | None = None
    form: QuestionForm | None = None
    problems: list[Mendable] = field(default_factory=list)
    notes: list[words.Note] = field(default_factory=list)
    hint: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    def ask(self, request: HttpRequest) -> None:
        """Read the question and answer it, or note what keeps it from being answered."""
        try:
            self.version = plans.draft(self.surface) if self.wants_draft else self.live
        except CannotPublish as error:
            self._tell(error.problems)
        if self.version is None:
            return
        self.version = self.version.on(self.build)
        spec = self.version.index.spec if self.version.index else None
        self.form = QuestionForm(request.GET, self.version.document, spec)
        question = self.form.question()
        if question is None:
            return
        try:
            response = _run(self.version, question)
        except PlanInvalid as error:
            self._tell(error.problems)
        except BadRequest as error:
            if any(value for name, value in request.GET.items() if name not in PAGE_FIELDS):
                self.form.show(error.errors)
            else:
                self.hint = "Ask something: this surface has no start of its own."
        except ServiceUnavailable as error:
            self.notes.append(words.failed(error.reason, self.surface))
        else:
            self._show(request, self.version, question, response)

    @property
    def searched(self) -> LiveIndex | None:
        """The build that this page asks."""
        return self.version.index if self.version else None

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        self.problems = mendable(problems, self.surface)

    def _show(
        self,
        request: HttpRequest,
        version: Version,
        question: RecommendRequest,
        response: RecommendResponse,
    ) -> None:
        if response.fallback:
            self.notes.append(words.fallback(response.fallback, self.surface))
        self.notes += [words.degraded(entry, self.surface) for entry in response.degraded]
        live_ranks = self._live_ranks(question, response)
        debug = response.debug
        self.answer = {
            "response": response,
            "cards": cards(response, version.index.spec if version.index else None, live_ranks),
            "compared": bool(live_ranks),
            "retrieval": words.RETRIEVALS.get((debug and debug.retrieval) or "", ""),
            "waterfall": waterfall(response, version.document.deadline_ms),
            "signals": signals(response),
            "curl": _curl(request, self.surface, question),
        }

    def _live_ranks(
        self, question: RecommendRequest, response: RecommendResponse
    ) -> dict[str, int]:
        """Return where each item ranks live, to compare a draft or another build with."""
        if self.live is None or response.fallback:
            return {}
        if not self.wants_draft and self.live.index == self.searched:
            return {}
        everything = question.model_copy(update={"limit": self.live.document.max_limit})
        try:
            answer = _run(self.live, everything)
        except (PlanInvalid, BadRequest, ServiceUnavailable):
            return {}
        return {} if answer.fallback else {item.id: item.rank for item in answer.items}


def _run(version: Version, question: RecommendRequest) -> RecommendResponse:
    plan = version.plan()
    # A draft may name an endpoint or source that this process has not met yet.
    warm([plan], timeout_s=WARM_S)
    return recommend(plan, question, stages(), request_id=f"preview-{secrets.token_hex(6)}")


def _curl(request: HttpRequest, surface: Surface, question: RecommendRequest) -> str:
    """Return the same question as a call of the API, to be pasted into a shell."""
    address = request.build_absolute_uri(reverse("recommend", args=[surface.slug]))
    body = question.model_dump(exclude_defaults=True) | {"explain": True}
    return " ".join(
        (
            f"curl {shlex.quote(address)}",
            "-H 'Authorization: Api-Key YOUR-KEY' -H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        )
    )
