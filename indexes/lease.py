"""Who works on a build or a refresh: a lease that is taken, renewed and given back by compare-and-set.

A message may arrive twice and a worker may die or pause at any line. Whoever
holds the lease works; every write of a worker compares the lease, the status
and the cursor it knows, so that one who lost the lease cannot change a thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from indexes.models import IndexBuild, IndexRefresh
from indexes.transitions import record

Work = TypeVar("Work", IndexBuild, IndexRefresh)

# Renewed about once a second while things go well. As long as this, so that a
# slow endpoint with its retries does not lose it; a killed worker costs no more.
LEASE = timedelta(seconds=60)


class LeaseLost(Exception):
    """Another worker took over, or the work was stopped: leave it alone."""


@dataclass
class _Lease(Generic[Work]):
    """The right to work on a row, which holds what this worker knows of it."""

    work: Work
    until: datetime

    def save(self, *, why: str = "", **changes: Any) -> None:
        """Renew the lease and write the changes, or raise LeaseLost with nothing written.

        A new ``status`` of a build goes into its timeline, with the reason given in ``why``.
        """
        self._write(timezone.now() + LEASE, why, changes)

    def release(self, *, why: str = "", **changes: Any) -> None:
        """Give the lease back and write the changes, or raise LeaseLost with nothing written."""
        self._write(None, why, changes)

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held; it stays so until the open transaction ends.

        Other than by ``save``, nothing is taken back when that transaction is given up.
        """
        rows = self._known().select_for_update(no_key=True)
        if not list(rows.values_list("pk")):
            raise LeaseLost(str(self.work))

    def _known(self) -> QuerySet[Any]:
        return type(self.work)._default_manager.filter(
            pk=self.work.pk,
            status=self.work.status,
            cursor=self.work.cursor,
            lease_until=self.until,
        )

    def _write(self, until: datetime | None, why: str, changes: dict[str, Any]) -> None:
        with transaction.atomic():
            known = self._known()
            if known.update(lease_until=until, heartbeat_at=timezone.now(), **changes) != 1:
                raise LeaseLost(str(self.work))
            if "status" in changes:
                self._record(changes["status"], why)
        for name, value in changes.items():
            setattr(self.work, name, value)
        self.work.lease_until = until
        if until is not None:
            self.until = until

    def _record(self, status: str, why: str) -> None:
        """Write down a new status, in the transaction of its move."""


class Lease(_Lease[IndexBuild]):
    """The right to work on a build."""

    @property
    def build(self) -> IndexBuild:
        return self.work

    @classmethod
    def claim(cls, build_id: int) -> Lease | None:
        """Take the build if it is running and nobody works on it, else return None."""
        until = _claim(IndexBuild, build_id)
        return None if until is None else cls(IndexBuild.objects.get(pk=build_id), until)

    def _record(self, status: str, why: str) -> None:
        record(self.build, status, why=why)


class RefreshLease(_Lease[IndexRefresh]):
    """The right to work on a refresh."""

    @property
    def refresh(self) -> IndexRefresh:
        return self.work

    @classmethod
    def claim(cls, refresh_id: int) -> RefreshLease | None:
        """Take the refresh if it is running and nobody works on it, else return None."""
        until = _claim(IndexRefresh, refresh_id)
        return None if until is None else cls(IndexRefresh.objects.get(pk=refresh_id), until)


def _claim(model: type[IndexBuild] | type[IndexRefresh], pk: int) -> datetime | None:
    now = timezone.now()
    until = now + LEASE
    taken = (
        model._default_manager.filter(pk=pk, status__in=model.RUNNING)
        .filter(Q(lease_until=None) | Q(lease_until__lt=now))
        .update(lease_until=until, heartbeat_at=now, setbacks=F("setbacks") + 1)
    )
    return until if taken else None
