"""Who works on a build: a lease that is taken, renewed and given back by compare-and-set.

A message may arrive twice and a worker may die or pause at any line. Whoever
holds the lease works; every write of a worker compares the lease, the status
and the cursor it knows, so that one who lost the lease cannot change a thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from indexes.models import IndexBuild
from indexes.transitions import record

# Renewed about once a second while things go well. As long as this, so that a
# slow endpoint with its retries does not lose it; a killed worker costs no more.
LEASE = timedelta(seconds=60)


class LeaseLost(Exception):
    """Another worker took over, or the build was stopped: leave it alone."""


@dataclass
class Lease:
    """The right to work on ``build``, which holds what this worker knows of it."""

    build: IndexBuild
    until: datetime

    @classmethod
    def claim(cls, build_id: int) -> Lease | None:
        """Take the build if it is running and nobody works on it, else return None."""
        now = timezone.now()
        until = now + LEASE
        taken = (
            IndexBuild.objects.filter(pk=build_id, status__in=IndexBuild.RUNNING)
            .filter(Q(lease_until=None) | Q(lease_until__lt=now))
            .update(lease_until=until, heartbeat_at=now, setbacks=F("setbacks") + 1)
        )
        if not taken:
            return None
        return cls(IndexBuild.objects.get(pk=build_id), until)

    def save(self, *, why: str = "", **changes: Any) -> None:
        """Renew the lease and write the changes, or raise LeaseLost with nothing written.

        A new ``status`` goes into the timeline, with the reason given in ``why``.
        """
        self._write(timezone.now() + LEASE, why, changes)

    def release(self, *, why: str = "", **changes: Any) -> None:
        """Give the lease back and write the changes, or raise LeaseLost with nothing written."""
        self._write(None, why, changes)

    def _write(self, until: datetime | None, why: str, changes: dict[str, Any]) -> None:
        known = IndexBuild.objects.filter(
            pk=self.build.pk,
            status=self.build.status,
            cursor=self.build.cursor,
            lease_until=self.until,
        )
        with transaction.atomic():
            if known.update(lease_until=until, heartbeat_at=timezone.now(), **changes) != 1:
                raise LeaseLost(self.build.label)
            if "status" in changes:
                record(self.build, changes["status"], why=why)
        for name, value in changes.items():
            setattr(self.build, name, value)
        self.build.lease_until = until
        if until is not None:
            self.until = until
