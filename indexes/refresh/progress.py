"""How far a refresh is, as people read it: the admin and the command show the same."""

from __future__ import annotations

from datetime import datetime

from indexes.models import IndexRefresh
from indexes.progress import PATIENCE, SILENCE, duration

Status = IndexRefresh.Status


def percent(refresh: IndexRefresh) -> int | None:
    """Return how much of the source is read; None where its number of rows is not known."""
    if refresh.status in (Status.REMOVING, Status.DONE):
        return 100
    if not refresh.total_rows:
        return None
    return min(100 * refresh.cursor // refresh.total_rows, 100)


def line(refresh: IndexRefresh, now: datetime) -> str:
    """Return a refresh at a moment as one line for a terminal."""
    parts = [str(refresh.get_status_display())]
    share = percent(refresh)
    if share is not None:
        parts.append(f"{share} %")
    if refresh.cursor:
        of = f" of {refresh.total_rows:,}" if refresh.total_rows else ""
        parts += [f"{refresh.cursor:,}{of} rows", f"{refresh.written:,} written"]
    return " · ".join(filter(None, [*parts, hint(refresh, now)]))


def outcome(refresh: IndexRefresh) -> str:
    """Return what a refresh has done, as a sentence."""
    if refresh.notice:
        return refresh.notice
    said = [
        f"{refresh.written:,} items written ({refresh.embedded:,} embedded)",
        f"{refresh.removed:,} removed",
        f"{refresh.unchanged:,} unchanged",
    ]
    if refresh.kept:
        said.append(f"{refresh.kept:,} newer than the source left alone")
    if refresh.rejected:
        said.append(f"{refresh.rejected:,} rows rejected")
    return f"{', '.join(said)}."


def hint(refresh: IndexRefresh, now: datetime) -> str:
    """Return what people should know about a refresh that is running, or nothing."""
    if not refresh.is_running:
        return ""
    if refresh.status == Status.PENDING and now - refresh.created_at > PATIENCE:
        return "No worker has taken it yet: is a Celery worker running?"
    silent = now - (refresh.heartbeat_at or refresh.created_at)
    if refresh.status != Status.PENDING and silent > SILENCE:
        return (
            f"No sign of its worker for {duration(silent.total_seconds())}. "
            "The scheduler hands it to another one: are Celery beat and a worker running?"
        )
    return refresh.notice
