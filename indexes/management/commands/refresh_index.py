"""Refresh the live build of an index from its source: the same door as the admin's button."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from indexes import refresh as refreshes
from indexes.errors import BuildError
from indexes.models import IndexDefinition, IndexRefresh
from indexes.refresh import progress

POLL = 0.5
# Turns of an inline refresh are short, so that its progress is seen.
INLINE_TURN = 2.0


class Command(BaseCommand):
    help = (
        "Write what changed in the source of an index to its live build. "
        "Exits 1 with the reason when the refresh fails."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug", help="Slug of the index definition.")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--no-wait", action="store_true", help="Return once it is enqueued.")
        how.add_argument(
            "--inline", action="store_true", help="Refresh in this process, without a worker."
        )

    def handle(self, *, slug: str, no_wait: bool, inline: bool, **options: Any) -> None:
        try:
            refresh = refreshes.start(_definition(slug), enqueue=not inline)
        except BuildError as error:
            raise CommandError(str(error)) from error
        label = refresh.build.label
        self.stdout.write(f"Refreshing {label}")
        if no_wait:
            return
        try:
            self._follow(refresh, inline)
        except KeyboardInterrupt:
            going_on = "is taken up by a worker" if inline else "goes on in the worker"
            raise CommandError(f"The refresh of {label} {going_on}.", returncode=130) from None
        if refresh.status != IndexRefresh.Status.DONE:
            raise CommandError(f"{label} could not be refreshed. {refresh.error}")
        self.stdout.write(self.style.SUCCESS(f"{label} is up to date: {progress.outcome(refresh)}"))

    def _follow(self, refresh: IndexRefresh, inline: bool) -> None:
        """Show the progress until the refresh has ended; where inline, do its work in between."""
        shown = ""
        over = self.stdout.isatty()
        while refresh.is_running:
            wait = refreshes.run(refresh.pk, seconds=INLINE_TURN) if inline else None
            refresh.refresh_from_db()
            line = progress.line(refresh, timezone.now())
            if line != shown:
                self._show(line, over=over)
                shown = line
            if refresh.is_running:
                time.sleep(POLL if wait is None else wait)
        if over:
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
