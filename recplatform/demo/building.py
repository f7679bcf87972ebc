"""Building the demo's index through a Celery worker, and watching it until it is live."""

import time
from collections.abc import Callable

from django.core.management.base import CommandError

from indexes import builds, valkey
from indexes.errors import BuildError, SearchError, SearchIndexMissing
from indexes.models import IndexBuild, IndexDefinition

POLL = 0.3
# A worker takes a task within a second; one that just starts needs some more.
PICK_UP_SECONDS = 60.0

Say = Callable[[str], None]


def is_searchable(build: IndexBuild) -> bool:
    """Return whether the engine has the build's index: another Valkey, or an emptied one, has not."""
    try:
        valkey.index_info(build.index_name)
    except SearchIndexMissing:
        return False
    except SearchError as error:
        raise CommandError(f"The search engine cannot be asked: {error}") from error
    return True


def build_and_wait(
    definition: IndexDefinition, say: Say, *, pick_up: float = PICK_UP_SECONDS
) -> None:
    """Start a build, or join the one that runs, and return when it is live. Raises CommandError."""
    build = definition.builds.filter(status__in=IndexBuild.RUNNING).first()
    if build is None:
        try:
            build = builds.start(definition)
        except BuildError as error:
            raise CommandError(f"The index {definition.slug} cannot be built: {error}") from error
    started = time.monotonic()
    told = ""
    while build.status in IndexBuild.RUNNING:
        waited = time.monotonic() - started
        if build.status == IndexBuild.Status.PENDING and waited > pick_up:
            raise CommandError(
                f"No Celery worker took up the build {build.label} within {pick_up:.0f} s. "
                "Start one with: celery -A recplatform worker"
            )
        if (line := progress(build)) != told:
            say(line)
            told = line
        time.sleep(POLL)
        build.refresh_from_db()
    if build.status != IndexBuild.Status.LIVE:
        raise CommandError(
            f"The build {build.label} ended as {build.get_status_display().lower()}: "
            f"{build.error or 'see it in the admin'}"
        )
    say(f"{build.label} is live: {build.indexed:,} items, {time.monotonic() - started:.1f} s")


def progress(build: IndexBuild) -> str:
    """Return where the build stands, in one line."""
    line = f"{build.label}: {build.get_status_display().lower()}"
    if build.status == IndexBuild.Status.LOADING:
        total = f" of {build.total_rows:,}" if build.total_rows else ""
        line += f", {build.written:,}{total} items"
    return line
