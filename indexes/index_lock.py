"""One lock an index, between calls that change items and builds that take those changes over.

Calls share it until they commit. Whoever holds it alone therefore sees every change
that is committed and none that is under way: that is when a build catches up.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import connection, transaction

# The first of the two numbers of the lock tells it from other uses of advisory locks.
_KIND: Final = 0x7270
# Of a call. Whoever holds the lock alone is done in less, but for a worker that hangs.
PATIENCE_MS: Final = 10_000


def share(definition_id: int) -> datetime:
    """Hold the lock with other calls until the open transaction ends; return the database's time then.

    Raises OperationalError when it, or a row locked later in the transaction, is not free in time.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}")
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", [_KIND, definition_id])
    return _now()


def hold(definition_id: int) -> datetime:
    """Hold the lock alone until the open transaction ends; return the database's time then."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_KIND, definition_id])
    return _now()


def wait_for_calls(definition_id: int) -> datetime:
    """Return a time: what began before it is committed, what begins now has a later ``changed_at``."""
    with transaction.atomic():
        return hold(definition_id)


def _now() -> datetime:
    with connection.cursor() as cursor:
        # Not NOW(), which is when the transaction began.
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now
