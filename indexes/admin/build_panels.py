"""What the pages of builds show, as plain values: progress, gates, timeline, rejected rows, buttons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import Min
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from indexes import cutover, progress
from indexes.admin.gate_words import detail_parts, gate_title, number
from indexes.admin.pages import count
from indexes.models import BuildTransition, GateResult, IndexBuild
from indexes.validation import GATES

Status = IndexBuild.Status
Verdict = IndexBuild.Verdict
Outcome = GateResult.Outcome

STATUS_COLOURS: dict[str, str] = {
    Status.PENDING: "info",
    Status.CREATING: "info",
    Status.LOADING: "info",
    Status.INDEXING: "info",
    Status.VALIDATING: "info",
    Status.READY: "primary",
    Status.LIVE: "success",
    Status.FAILED: "danger",
}
VERDICT_COLOURS: dict[str, str] = {
    Verdict.PASSED: "success",
    Verdict.BLOCKED: "danger",
    Verdict.OVERRIDDEN: "warning",
}
OUTCOME_COLOURS: dict[str, str] = {Outcome.PASSED: "success", Outcome.FAILED: "danger"}
SHOWN_ROWS = 50


@dataclass(frozen=True)
class Button:
    """A way to the page that asks before a build is moved."""

    label: str
    link: str
    variant: str = "default"


def may_move(request: HttpRequest) -> bool:
    """Tell whether the user may make builds live, cancel and retire them."""
    return request.user.has_perm("indexes.change_indexbuild")


def may_override(request: HttpRequest) -> bool:
    """Tell whether the user may make a build live that failed a gate."""
    return may_move(request) and request.user.has_perm("indexes.override_gates")


def build_context(request: HttpRequest, build: IndexBuild) -> dict[str, Any]:
    """Return what the progress of a build is rendered from."""
    shown = progress.of(build, timezone.now())
    return {
        "build": build,
        "progress": shown,
        "colour": STATUS_COLOURS.get(build.status, "default"),
        "verdict_colour": VERDICT_COLOURS.get(build.verdict, "default"),
        "elapsed": progress.duration(shown.elapsed.total_seconds()) if shown.elapsed else "",
        "left": progress.duration(shown.seconds_left) if shown.seconds_left else "",
        "counters": _counters(build, shown) if build.loading_at else [],
        "canary_percent": canary_percent(build),
        "buttons": buttons(request, build),
        "progress_url": reverse("admin:indexes_indexbuild_progress", args=[build.pk]),
    }


def page_context(request: HttpRequest, build: IndexBuild) -> dict[str, Any]:
    """Return all of a build's page that changes while it runs."""
    return {
        **build_context(request, build),
        **gates_context(build),
        **rejected_context(build),
        "timeline": timeline(build),
    }


def canary_percent(build: IndexBuild) -> int:
    """Return the share of the traffic that the build has as a canary; 0 where it is none."""
    definition = build.definition
    return definition.canary_percent if definition.canary_build_id == build.pk else 0


def buttons(request: HttpRequest, build: IndexBuild) -> list[Button]:
    """Return what this user may do with the build as it is now."""
    if not may_move(request):
        return []
    found: list[tuple[str, str, str]] = []
    if build.is_running:
        found = [("cancel", "Cancel…", "default")]
    elif build.status == Status.LIVE:
        if (back := cutover.way_back(build.definition)) is not None:
            found = [("roll_back", f"Roll back to {back.label}…", "default")]
    elif build.status == Status.READY:
        if build.verdict != Verdict.BLOCKED:
            found = [("promote", "Make live…", "primary"), *_canary_buttons(build)]
        elif may_override(request):
            found = [("override", "Override…", "danger")]
        if build.verdict == Verdict.BLOCKED and canary_percent(build):
            found.append(("stop_canary", "Stop canary…", "default"))
        found.append(("retire", "Retire…", "default"))
    return [Button(label, move_url(build, name), variant) for name, label, variant in found]


def _canary_buttons(build: IndexBuild) -> list[tuple[str, str, str]]:
    if build.definition.live_build_id is None:
        return []
    if not canary_percent(build):
        return [("canary", "Canary…", "default")]
    return [
        ("canary", "Change canary…", "default"),
        ("stop_canary", "Stop canary…", "default"),
    ]


def move_url(build: IndexBuild, name: str) -> str:
    """Return the address of the page that asks before this move."""
    return reverse(f"admin:indexes_indexbuild_{name}", args=[build.pk])


def _counters(build: IndexBuild, shown: progress.Progress) -> list[tuple[str, str]]:
    of = f" of {shown.total_rows:,}" if shown.total_rows else ""
    counters = [
        ("Rows read", f"{shown.rows:,}{of}"),
        ("Embedded", count(build.embedded)),
        ("Reused", count(build.reused)),
        ("Given by the source", count(build.given)),
        ("Written", count(build.written)),
        ("Indexed", count(build.indexed)),
        ("Rows rejected", count(build.rejected)),
    ]
    if shown.rate:
        counters.append(("Rows a second", f"{shown.rate:,.0f}"))
    # Within its first shard a build has counted nothing but rows.
    hidden = _COUNTED if build.is_running and not build.cursor else _RARE
    return [(name, value) for name, value in counters if value != "0" or name not in hidden]


# Most builds take no vectors from elsewhere.
_RARE = ("Reused", "Given by the source")
_COUNTED = (*_RARE, "Embedded", "Written", "Indexed")


def gates_context(build: IndexBuild) -> dict[str, Any]:
    """Return the results of the validation gates so far, and how many there will be."""
    return {"gates": [gate_row(gate) for gate in build.gates.all()], "all_gates": len(GATES)}


def gate_row(gate: GateResult) -> dict[str, Any]:
    """Return one gate as a row of the table."""
    return {
        "key": gate.gate,
        "title": gate_title(gate.gate),
        "figure": number(gate.figure),
        "threshold": number(gate.threshold),
        "outcome": gate.get_outcome_display(),
        "colour": OUTCOME_COLOURS.get(gate.outcome, "default"),
        "message": gate.message,
        "detail": detail_parts(gate.detail),
    }


def timeline(build: IndexBuild) -> list[dict[str, Any]]:
    """Return the moves of a build, the last one first."""
    moves = build.transitions.select_related("by").order_by("-at", "-id")
    return [
        {
            "at": move.at,
            # The first line of a build is its request.
            "from": "" if move.from_status == move.to_status else move.get_from_status_display(),
            "to": move.get_to_status_display(),
            "colour": STATUS_COLOURS.get(move.to_status, "default"),
            "by": _who(move),
            "why": move.why,
        }
        for move in moves
    ]


def _who(move: BuildTransition) -> str:
    by: AbstractBaseUser | AnonymousUser | None = move.by
    return by.get_username() if by is not None else "the platform"


def rejected_context(build: IndexBuild) -> dict[str, Any]:
    """Return the rejected rows by reason, each with its first kept row, and the first rows of all."""
    if not build.rejected:
        return {"reasons": []}
    rows = build.rejected_rows
    firsts = rows.values("reason").annotate(first=Min("row")).values_list("first", flat=True)
    examples = {row.reason: row for row in rows.filter(row__in=list(firsts))}
    counted = sorted(build.rejected_reasons.items(), key=lambda item: (-item[1], item[0]))
    return {
        "reasons": [
            {
                "name": reason.replace("_", " "),
                "rows": count(times),
                "example": examples.get(reason),
            }
            for reason, times in counted
        ],
        "rejected": rows.all()[:SHOWN_ROWS],
        "kept": rows.count(),
    }
