"""The pages between a button and what it does: what will happen, who will notice, how to undo it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from indexes import builds, cutover
from indexes.admin.build_panels import canary_percent, gate_row, may_move, may_override
from indexes.admin.pages import ago, count, found, page, say
from indexes.errors import BuildError, IndexesError
from indexes.models import GateResult, IndexBuild, IndexDefinition
from indexes.transitions import MAX_WHY

Status = IndexBuild.Status


class WhyForm(forms.Form):
    """A reason for the timeline."""

    why = forms.CharField(
        label="Why",
        max_length=MAX_WHY,
        required=False,
        help_text="Kept in the timeline, for whoever asks later.",
        widget=UnfoldAdminTextInputWidget,
    )


class OverrideForm(WhyForm):
    """The reason is asked of whoever makes a build live against its gates."""

    why = forms.CharField(
        label="Why it may go live all the same",
        max_length=MAX_WHY,
        help_text="Kept in the timeline with your name.",
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True}),
    )


class RollBackForm(WhyForm):
    """Names the build that was shown: another one may be the way back by now."""

    to = forms.IntegerField(widget=forms.HiddenInput)


class CanaryForm(forms.Form):
    percent = forms.IntegerField(
        label="Share of the traffic (%)",
        validators=[MinValueValidator(1), MaxValueValidator(99)],
        help_text="1 to 99. A few percent are enough to see that nothing breaks.",
        widget=UnfoldAdminIntegerFieldWidget(attrs={"autofocus": True, "min": 1, "max": 99}),
    )


@dataclass(frozen=True)
class Question:
    """A page that asks before a move is made."""

    title: str
    ask: str
    happens: tuple[str, ...]
    undo: str
    button: str
    stay: str = "Leave it as it is"
    danger: bool = False


class MovesMixin:
    """The pages that move builds. Each asks on GET, acts on POST, and takes the permission to change builds."""

    # Of the ModelAdmin that this is mixed into.
    admin_site: Any
    log_change: Any

    def move_urls(self) -> list[URLPattern]:
        """Return the addresses of the pages, by the names that buttons use."""
        views = {
            "promote": self.promote_view,
            "override": self.override_view,
            "canary": self.canary_view,
            "stop_canary": self.stop_canary_view,
            "roll_back": self.roll_back_view,
            "cancel": self.cancel_view,
            "retire": self.retire_view,
        }
        return [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"indexes_indexbuild_{name}",
            )
            for name, view in views.items()
        ]

    def promote_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then make a ready build live."""
        build = self._to_move(request, object_id)
        form = WhyForm(_sent(request))
        question = Question(
            title=f"Make {build.label} live",
            ask=f"Search {build.label} from now on?",
            happens=(_takes_over(build), *_leaves(build)),
            undo=_way_back_from(build),
            button="Make live",
        )
        return self._ask(
            request,
            build,
            question,
            form,
            lambda: cutover.promote(build, by=person(request), why=form.cleaned_data["why"]),
            f"{build.label} is live.",
        )

    def override_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a reason, then make a build live that failed a gate."""
        if not may_override(request):
            raise PermissionDenied
        build = self._to_move(request, object_id)
        form = OverrideForm(_sent(request))
        question = Question(
            title=f"Override the gates of {build.label}",
            ask=f"Search {build.label} although it failed a gate?",
            happens=(_takes_over(build), *_leaves(build)),
            undo=_way_back_from(build),
            button="Override and make live",
            danger=True,
        )
        failed = build.gates.filter(outcome=GateResult.Outcome.FAILED)
        return self._ask(
            request,
            build,
            question,
            form,
            lambda: cutover.promote(
                build, by=person(request), why=form.cleaned_data["why"], override=True
            ),
            f"{build.label} is live, against its gates.",
            failed=[gate_row(gate) for gate in failed],
        )

    def canary_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a share, then let a ready build answer that much of the traffic."""
        build = self._to_move(request, object_id)
        definition = build.definition
        now = canary_percent(build)
        form = CanaryForm(_sent(request), initial={"percent": now or 10})
        live = definition.live_build.label if definition.live_build else "the live build"
        happens = [
            f"{build.label} answers that share of the traffic, and {live} the rest.",
            "A shopper stays on the same side from call to call, by session or else by user. "
            "Every answer names the build it came from.",
        ]
        other = definition.canary_build
        if other is not None and other.pk != build.pk:
            happens.append(
                f"The canary on {other.label} ({definition.canary_percent} %) ends: "
                "an index has one canary at a time."
            )
        question = Question(
            title=f"Canary on {build.label}",
            ask=f"Give {build.label} another share of the traffic? It has {now} %."
            if now
            else f"Try {build.label} on a share of the traffic?",
            happens=tuple(happens),
            undo=f"Stop canary gives everything back to {live} within a second.",
            button="Change the share" if now else "Start the canary",
        )
        return self._ask(
            request,
            build,
            question,
            form,
            lambda: cutover.start_canary(build, form.cleaned_data["percent"], by=person(request)),
            lambda: f"{build.label} answers {form.cleaned_data['percent']} % of the traffic.",
        )

    def stop_canary_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then give the live build all the traffic again."""
        build = self._to_move(request, object_id)
        definition = build.definition
        live = definition.live_build.label if definition.live_build else "the live build"
        question = Question(
            title=f"Stop the canary on {build.label}",
            ask=f"Give {live} all the traffic again?",
            happens=(
                f"Within a second, {build.label} answers nothing any more.",
                "It stays ready: it can be tried again, or made live.",
            ),
            undo="Start a canary again on the page of the build.",
            button="Stop the canary",
        )

        def act() -> None:
            if not canary_percent(_fresh(build)):
                raise BuildError(f"{build.label} is no canary any more.")
            cutover.stop_canary(definition, by=person(request))

        said = f"{live} answers all the traffic."
        return self._ask(request, build, question, forms.Form(_sent(request)), act, said)

    def roll_back_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then make the build live again that was live before this one."""
        build = self._to_move(request, object_id)
        back = cutover.way_back(build.definition)
        if build.status != Status.LIVE or back is None:
            messages.error(request, _no_way_back(build))
            return back_to(build)
        form = RollBackForm(_sent(request), initial={"to": back.pk})
        question = Question(
            title=f"Roll back to {back.label}",
            ask=f"Search {back.label} again instead of {build.label}?",
            happens=(_takes_over(back), *_leaves(back)),
            undo=f"{build.label} stays ready: make it live again on its page.",
            button="Roll back",
        )

        def act() -> None:
            now = _fresh(build)
            target = cutover.way_back(now.definition)
            if now.status != Status.LIVE or target is None:
                raise BuildError(_no_way_back(now))
            if target.pk != form.cleaned_data["to"]:
                raise BuildError(
                    f"The way back leads to {target.label} by now: look again before you take it."
                )
            cutover.roll_back(
                build.definition, by=person(request), why=form.cleaned_data["why"] or "Rolled back."
            )

        return self._ask(request, build, question, form, act, f"{back.label} is live again.")

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then end a running build."""
        build = self._to_move(request, object_id)
        form = WhyForm(_sent(request))
        live = build.definition.live_build
        question = Question(
            title=f"Cancel {build.label}",
            ask=f"Stop building {build.label}?",
            happens=(
                "What it has written is removed from the search engine.",
                f"{live.label} stays live." if live else "Nothing is live yet, and it stays so.",
            ),
            undo="It cannot be taken up again: start a new build instead.",
            button="Cancel the build",
            stay="Let it run",
            danger=True,
        )
        return self._ask(
            request,
            build,
            question,
            form,
            lambda: builds.cancel(build, by=person(request), why=form.cleaned_data["why"]),
            f"{build.label} is cancelled.",
        )

    def retire_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then give up a ready build."""
        build = self._to_move(request, object_id)
        form = WhyForm(_sent(request))
        frees = f", which frees {filesizeformat(build.memory_bytes)}" if build.memory_bytes else ""
        happens = [
            f"Its index and its {count(build.indexed)} items leave the search engine{frees}.",
            "Its page stays, with its gates and its timeline.",
        ]
        if percent := canary_percent(build):
            happens.insert(0, f"Its canary of {percent} % ends.")
        back = cutover.way_back(build.definition)
        if back is not None and back.pk == build.pk:
            happens.append(
                "It is the way back of the live build: a roll back will not be possible."
            )
        question = Question(
            title=f"Retire {build.label}",
            ask=f"Give up {build.label} for good?",
            happens=tuple(happens),
            undo="A retired build cannot come back: build again from the same settings.",
            button="Retire",
            danger=True,
        )
        return self._ask(
            request,
            build,
            question,
            form,
            lambda: cutover.retire(build, by=person(request), why=form.cleaned_data["why"]),
            f"{build.label} is retired.",
        )

    def _ask(
        self,
        request: HttpRequest,
        build: IndexBuild,
        question: Question,
        form: forms.Form,
        act: Callable[[], object],
        done: str | Callable[[], str],
        **context: Any,
    ) -> HttpResponse:
        """Show the question; on POST do it, say so and go back to the build."""
        if request.method != "POST" or not form.is_valid():
            return page(
                self,  # type: ignore[arg-type]  # a mixin of ModelAdmin
                request,
                "indexbuild/confirm.html",
                question.title,
                build,
                build=build,
                question=question,
                form=form,
                surfaces=surfaces_on(build.definition),
                **context,
            )
        try:
            act()
        except IndexesError as error:
            say(request, error)
        else:
            said = done if isinstance(done, str) else done()
            self.log_change(request, build, said)
            messages.success(request, said)
        return back_to(build)

    def _to_move(self, request: HttpRequest, object_id: str) -> IndexBuild:
        if not may_move(request):
            raise PermissionDenied
        build: IndexBuild = found(self, request, object_id)  # type: ignore[arg-type]  # a mixin of ModelAdmin
        return build


def person(request: HttpRequest) -> User | None:
    """Return who asks, for the timeline."""
    return request.user if isinstance(request.user, User) else None


def back_to(build: IndexBuild) -> HttpResponseRedirect:
    """Return to the page of a build."""
    return HttpResponseRedirect(reverse("admin:indexes_indexbuild_change", args=[build.pk]))


def surfaces_on(definition: IndexDefinition) -> list[str]:
    """Return the names of the surfaces that search an index."""
    return [str(surface) for surface in definition.surfaces.all()]


def _sent(request: HttpRequest) -> QueryDict | None:
    # An empty POST is an answer too: every field of some forms may be left out.
    return request.POST if request.method == "POST" else None


def _fresh(build: IndexBuild) -> IndexBuild:
    return IndexBuild.objects.select_related("definition").get(pk=build.pk)


def _takes_over(build: IndexBuild) -> str:
    return (
        f"Within a second, every search finds the items of {build.label}: "
        f"{count(build.indexed)} items, built {ago(build.finished_at)}."
    )


def _leaves(build: IndexBuild) -> list[str]:
    """Say what becomes of the other builds when this one goes live."""
    definition = build.definition
    live = definition.live_build
    said = []
    if live is not None and live.fingerprint != build.fingerprint:
        endpoint = build.to_spec().endpoint
        said.append(
            f"Queries are embedded by {endpoint.endpoint_name} ({endpoint.dimension} numbers) "
            "from then on, in the same moment."
        )
    if live is not None:
        said.append(f"{live.label} {_kept(definition)}.")
    given_up = cutover.given_up(definition, build)
    if labels := [each.label for each in given_up]:
        said.append(f"Retired, as nothing leads back to them: {', '.join(labels)}.")
    canary = definition.canary_build
    if canary is not None:
        ends = canary.pk == build.pk or canary in given_up
        share = f"{definition.canary_percent} %"
        said.append(
            f"Its canary of {share} ends: it has all the traffic."
            if canary.pk == build.pk
            else f"The canary on {canary.label} ({share}) {'ends' if ends else 'goes on'}."
        )
    return said


def _kept(definition: IndexDefinition) -> str:
    hours = definition.keep_hours
    if not hours:
        return "is given up at once: the index keeps nothing for a roll back"
    return f"stays ready for {hours} hour{'' if hours == 1 else 's'}"


def _way_back_from(build: IndexBuild) -> str:
    live = build.definition.live_build
    if live is None:
        return (
            "Nothing was live before, so there is nothing to go back to: a next build replaces it."
        )
    if not build.definition.keep_hours:
        return "The index keeps nothing for a roll back: build again from the earlier settings."
    return f"Roll back to {live.label}, on the page of the index, while it stays ready."


def _no_way_back(build: IndexBuild) -> str:
    if build.status != Status.LIVE:
        return f"{build.label} is not live any more."
    return "No earlier build is kept: build again from the earlier settings."
