"""Check the running demo through HTTP."""

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from recplatform.demo import credentials, report
from recplatform.demo.check import CheckFailed, checks
from recplatform.demo.shop import Shop, Unreachable


class Command(BaseCommand):
    help = "Ask the running demo everything it promises; exit 1 with what to look at."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-url", help="of the web server; default: the reported one")
        parser.add_argument("--credentials", type=Path, default=credentials.DEFAULT_PATH)

    def handle(self, *, base_url: str | None, **options: Any) -> None:
        logins = credentials.read(options["credentials"])
        if logins is None:
            raise CommandError("The demo is not loaded: run manage.py load_demo first.")
        shop = Shop(base_url or reported_base_url(), logins.api_key)
        failed = 0
        for text, check in checks(shop, logins):
            try:
                check()
            except (CheckFailed, Unreachable) as error:
                failed += 1
                self.stdout.write(f"✗ {text}: {error}")
            else:
                self.stdout.write(f"✓ {text}")
        if failed:
            raise CommandError(f"{failed} checks failed; the logs are in .local/log.")
        self.stdout.write("The demo keeps all its promises.")


def reported_base_url() -> str:
    """Return where the last reported demo runs."""
    try:
        document = json.loads(report.DOCUMENT.read_bytes())
    except FileNotFoundError as error:
        raise CommandError("Name the web server with --base-url.") from error
    return str(document["base_url"])
