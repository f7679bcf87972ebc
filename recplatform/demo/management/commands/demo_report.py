"""Print what the running demo recommends, and how to reach it."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from recplatform.demo import credentials, report
from recplatform.demo.shop import Shop, Unreachable

# Where nobody looks at a terminal, tables still need room.
PLAIN_WIDTH = 140


class Command(BaseCommand):
    help = "Ask each demo surface through HTTP, print its best items, and write .local/demo.json."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-url", required=True, help="of the running web server")
        parser.add_argument("--credentials", type=Path, default=credentials.DEFAULT_PATH)
        parser.add_argument("--document", type=Path, default=report.DOCUMENT)

    def handle(self, *, base_url: str, document: Path, **options: Any) -> None:
        logins = credentials.read(options["credentials"])
        if logins is None:
            raise CommandError("The demo is not loaded: run manage.py load_demo first.")
        shop = Shop(base_url, logins.api_key)
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=PLAIN_WIDTH)
        try:
            silent = report.show(shop, console)
        except Unreachable as error:
            raise CommandError(str(error)) from error
        report.show_doors(shop, logins, console)
        report.write_document(document, shop, logins)
        if silent:
            raise CommandError(f"No answer from {', '.join(silent)}; see .local/log/web.log.")
