"""Changes of single items: kept in the database, written to the live build and to those under way."""

from __future__ import annotations

from typing import Any

from indexes.lease import Lease


def catch_up(lease: Lease, **saved: Any) -> None:
    """Write the changes that came during the load over what the source gave, and save ``saved``."""
    lease.save(**saved)
