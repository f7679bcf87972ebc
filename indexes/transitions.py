"""Moves of builds from status to status: each a compare-and-set that leaves its line in the timeline."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from indexes.models import BuildTransition, IndexBuild

MAX_WHY = 500


def move(
    build: IndexBuild,
    to: str,
    *,
    only_from: Collection[str],
    by: User | None = None,
    why: str = "",
    **changes: Any,
) -> bool:
    """Move the build if it is in one of these states, with the changes; False when it is not.

    On success ``build`` is read again from the database.
    """
    with transaction.atomic():
        # Locked, so that the timeline names the state it came from.
        row = IndexBuild.objects.select_for_update().filter(pk=build.pk).first()
        if row is None or row.status not in only_from:
            return False
        IndexBuild.objects.filter(pk=build.pk).update(status=to, **changes)
        record(row, to, by=by, why=why)
        build.refresh_from_db()
    return True


def record(build: IndexBuild, to: str, *, by: User | None = None, why: str = "") -> None:
    """Write the line of a move from the build's status, in the transaction of the move."""
    BuildTransition.objects.create(
        build=build, from_status=build.status, to_status=to, by=by, why=why[:MAX_WHY]
    )


def note(build: IndexBuild, *, by: User | None = None, why: str) -> None:
    """Write a line of what happened to a build that stays in its state, such as a canary's share."""
    record(build, build.status, by=by, why=why)
