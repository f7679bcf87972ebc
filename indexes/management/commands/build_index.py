"""Build an index and wait until it is live, or ready for a person: the same door as the admin's button."""

from __future__ import annotations

import shutil
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from indexes import builds, progress
from indexes.errors import BuildError
from indexes.models import GateResult, IndexBuild, IndexDefinition

POLL = 0.5
# Turns of an inline build are short, so that its progress is seen.
INLINE_TURN = 2.0


class Command(BaseCommand):
    help = (
        "Build an index and make it live, or ready where a person decides. "
        "Exits 1 with the reason when the build fails, is cancelled or is held back by a gate."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="Slug of the index definition.")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--no-wait", action="store_true", help="Return once it is enqueued.")
        how.add_argument(
            "--inline", action="store_true", help="Build in this process, without a Celery worker."
        )

    def handle(self, *, slug: str, no_wait: bool, inline: bool, **options: Any) -> None:
        try:
            build = builds.start(_definition(slug), enqueue=not inline)
        except BuildError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Building {build.label}")
        if no_wait:
            return
        try:
            self._follow(build, inline)
        except KeyboardInterrupt:
            going_on = "stops here" if inline else "goes on in the worker"
            raise CommandError(f"{build.label} {going_on}.", returncode=130) from None
        self._tell(build)

    def _tell(self, build: IndexBuild) -> None:
        """Say how the build ended. Raises CommandError where it is neither live nor ready to be."""
        blocked = build.verdict == IndexBuild.Verdict.BLOCKED
        if build.status == IndexBuild.Status.LIVE:
            end = "is live"
        elif build.status == IndexBuild.Status.READY and not blocked:
            end = "is ready"
        else:
            failed = build.gates.filter(outcome=GateResult.Outcome.FAILED)
            why = " ".join([build.error or build.notice, *(gate.message for gate in failed)])
            raise CommandError(
                f"{build.label} is {build.get_status_display().lower()}. {why}".strip()
            )
        rejected = f", {build.rejected:,} rows rejected" if build.rejected else ""
        self.stdout.write(
            self.style.SUCCESS(f"{build.label} {end}: {build.indexed:,} items{rejected}.")
        )
        if build.status == IndexBuild.Status.READY:
            self.stdout.write(f"{build.notice} Make it live on its page in the admin.".strip())

    def _follow(self, build: IndexBuild, inline: bool) -> None:
        """Show the progress until the build has ended; where inline, do its work in between."""
        shown = ""
        bar = self.stdout.isatty()
        while build.is_running:
            wait = builds.run(build.pk, seconds=INLINE_TURN) if inline else None
            build.refresh_from_db()
            now = progress.of(build, timezone.now())
            line = now.bar(shutil.get_terminal_size().columns) if bar else now.line()
            if line != shown:
                self._show(line, over=bar)
                shown = line
            if build.is_running:
                time.sleep(POLL if wait is None else wait)
        if bar:
            self.stdout.write("")

    def _show(self, line: str, *, over: bool) -> None:
        if over:
            self.stdout.write(f"\r\033[K{line}", ending="")
            self.stdout.flush()
        else:
            self.stdout.write(line)


def _definition(slug: str) -> IndexDefinition:
    try:
        return IndexDefinition.objects.get(slug=slug)
    except IndexDefinition.DoesNotExist:
        known = ", ".join(IndexDefinition.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f'There is no index "{slug}". There are: {known}.') from None
