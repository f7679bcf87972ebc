"""Celery entry points of serving; the schedule is in ``recplatform.celery``."""

from celery import shared_task

from surfaces import default_lists, snapshot


@shared_task
def push_snapshot() -> None:
    """Close the gap that a process leaves which dies between its commit and its push."""
    snapshot.push_or_wait()


@shared_task
def refresh_default_lists() -> None:
    """Resolve every default list again, so that prices and stock in it do not age."""
    default_lists.refresh()
