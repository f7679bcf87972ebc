"""Load the demo: stores, rows, index build, published surfaces and logins."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from enrichment.errors import EnrichmentError
from recplatform.demo import content, credentials
from recplatform.demo.building import build_and_wait, is_searchable
from surfaces import publishing
from surfaces.errors import CannotPublish
from surfaces.models import Surface


class Command(BaseCommand):
    help = (
        "Load the demo catalog, its shoppers and its surfaces. May be run again: it makes what "
        "is missing and keeps what was changed in the admin, unless --reset is given. "
        "The index is built by a Celery worker, which must be running."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--reset", action="store_true", help="put every demo row back to the demo's state"
        )
        parser.add_argument(
            "--rebuild",
            action="store_true",
            help="build the index even if one is live (--reset does so where its fields changed)",
        )
        parser.add_argument(
            "--credentials",
            type=Path,
            default=credentials.DEFAULT_PATH,
            help="file that keeps the demo's logins (%(default)s)",
        )

    def handle(self, *, reset: bool, rebuild: bool, **options: Any) -> None:
        self._load_stores()
        index, written = content.ensure(reset=reset)
        live = index.live_build
        stale = reset and live is not None and live.to_live().spec != index.to_spec()
        lost = live is not None and not is_searchable(live)
        if lost:
            self.stdout.write(f"{live} is not in this Valkey: it is built again")
        if rebuild or stale or lost or live is None:
            build_and_wait(index, self.stdout.write)
        else:
            self.stdout.write(f"{live.label} is live already")
        unpublished = Surface.objects.filter(slug__in=content.SURFACES, live_revision=None)
        for surface in {*written, *unpublished}:
            self._publish(surface)
        credentials.ensure(options["credentials"], index)
        self.stdout.write(f"logins are in {options['credentials']}")

    def _load_stores(self) -> None:
        try:
            products, shoppers = content.load_stores()
        except EnrichmentError as error:
            raise CommandError(f"The demo's DynamoDB tables cannot be written: {error}") from error
        self.stdout.write(f"{products:,} products in the catalog, {shoppers} shoppers in DynamoDB")

    def _publish(self, surface: Surface) -> None:
        # Fresh, so that the draft is made from the build that has just gone live.
        surface = Surface.objects.get(pk=surface.pk)
        if not publishing.has_unpublished_changes(surface):
            return
        try:
            revision = publishing.publish(surface, user=None, note="Demo content")
        except CannotPublish as error:
            raise CommandError(f"{surface.slug} cannot be published: {error}") from error
        self.stdout.write(f"{surface.slug}: published revision {revision.number}")
