"""Celery entry points: an id in, a call to the module that owns the work, nothing else."""

from typing import Any

from celery import shared_task

from indexes import builds, changes, cutover, refresh, removal, schedules


@shared_task
def run_build(build_id: int) -> None:
    """Do one turn of a build and hand over to the next message, so that builds share the workers."""
    wait = builds.run(build_id)
    if wait is not None:
        run_build.apply_async((build_id,), countdown=wait)


@shared_task
def resume_stalled_builds() -> list[str]:
    """Start what a killed worker or a lost message left behind."""
    return builds.resume_stalled()


@shared_task
def retire_build(build_id: int) -> None:
    """Take a build that is over out of the engine."""
    removal.remove(build_id)


@shared_task
def remove_orphan(
    index_name: str, key_prefix: str, batch_job: dict[str, Any] | None = None
) -> None:
    """Take an index out of the engine whose build row is deleted."""
    removal.remove_orphan(index_name, key_prefix, batch_job)


@shared_task
def retire_expired_builds() -> list[str]:
    """Give up the builds that are kept for a roll back no longer."""
    return cutover.retire_expired()


@shared_task
def prune_item_changes() -> int:
    """Forget the changes of items that every build has from its source by now."""
    return changes.prune()


@shared_task
def run_refresh(refresh_id: int) -> None:
    """Do one turn of a refresh and hand over to the next message."""
    wait = refresh.run(refresh_id)
    if wait is not None:
        run_refresh.apply_async((refresh_id,), countdown=wait)


@shared_task
def resume_stalled_refreshes() -> list[str]:
    """Start the refreshes that a killed worker or a lost message left behind."""
    return refresh.resume_stalled()


@shared_task
def rebuild_index(definition_id: int) -> None:
    """Start the full build that a schedule asks for."""
    schedules.rebuild(definition_id)


@shared_task
def refresh_index(definition_id: int) -> None:
    """Start the refresh that a schedule asks for."""
    schedules.refresh(definition_id)


@shared_task
def keep_schedules() -> None:
    """Bring the scheduler's table in step with the indexes, whoever changed either."""
    schedules.sync_all()
