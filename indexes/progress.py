"""How far a build is, as people read it: the admin page and the command show the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from indexes.models import IndexBuild

Status = IndexBuild.Status
# A worker takes a waiting build within a second; after this it is worth saying that none does.
PATIENCE = timedelta(seconds=15)
# Longer than a worker is silent when it waits for an endpoint that is down.
SILENCE = timedelta(seconds=90)
# Columns of the bar in a terminal.
BAR = 24


@dataclass(frozen=True)
class Progress:
    """A build at one moment: ``rate`` in rows a second, ``fraction`` None where the rows are not counted.

    ``embedded``, ``reused`` and ``given`` say where vectors came from.
    """

    status: str
    running: bool
    fraction: float | None
    rows: int
    total_rows: int | None
    embedded: int
    reused: int
    given: int
    written: int
    indexed: int
    rejected: int
    rate: float | None
    seconds_left: float | None
    elapsed: timedelta | None
    hint: str

    @property
    def percent(self) -> int | None:
        return None if self.fraction is None else int(self.fraction * 100)

    def counts(self) -> list[tuple[str, int]]:
        """Return what became of the rows, each a word and its number."""
        names = ("embedded", "reused", "given", "written", "indexed", "rejected")
        return [(name, getattr(self, name)) for name in names]

    def line(self) -> str:
        """Return it as one line for a terminal."""
        parts = [self.status]
        if self.percent is not None:
            parts.append(f"{self.percent} %")
        if self.rows:
            of = f" of {self.total_rows:,}" if self.total_rows else ""
            parts.append(f"{self.rows:,}{of} rows")
        counts = dict(self.counts())
        if self.indexed == self.written:
            # The engines index while they take a write, so that this is the rule.
            del counts["indexed"]
        parts += [f"{count:,} {name}" for name, count in counts.items() if count]
        if self.rate:
            parts.append(f"{self.rate:,.0f} rows/s")
        if self.seconds_left:
            parts.append(f"{duration(self.seconds_left)} left")
        return " · ".join(filter(None, [*parts, self.hint]))

    def bar(self, columns: int) -> str:
        """Return it as one line of so many columns, with a bar."""
        line = self.line()
        if self.fraction is not None:
            done = int(self.fraction * BAR)
            line = f"{'█' * done}{'░' * (BAR - done)} {line}"
        # A line that wraps would not be drawn over.
        return line if len(line) < columns else f"{line[: columns - 2]}…"


def of(build: IndexBuild, now: datetime) -> Progress:
    """Return the progress of a build at a moment."""
    rate = left = None
    # The cursor moves a shard at a time; what the shard under way has done counts too.
    rows = build.cursor + build.under_way
    if build.status == Status.LOADING and build.loading_at and rows:
        rate = rows / max((now - build.loading_at).total_seconds(), 0.1)
        if build.total_rows:
            left = max(build.total_rows - rows, 0) / rate
    ended = build.finished_at or (now if build.is_running else None)
    return Progress(
        status=build.get_status_display(),
        running=build.is_running,
        fraction=_fraction(build, rows),
        rows=rows,
        total_rows=build.total_rows,
        embedded=build.embedded,
        reused=build.reused,
        given=build.given,
        written=build.written,
        indexed=build.indexed,
        rejected=build.rejected,
        rate=rate,
        seconds_left=left,
        elapsed=ended - build.created_at if ended else None,
        hint=_hint(build, now),
    )


def duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``3 min`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _fraction(build: IndexBuild, rows: int) -> float | None:
    match build.status:
        case Status.PENDING | Status.CREATING:
            return 0.0
        case Status.INDEXING | Status.VALIDATING | Status.READY | Status.LIVE | Status.RETIRED:
            return 1.0
        case _ if build.total_rows:
            return min(rows / build.total_rows, 1.0)
    return None


def _hint(build: IndexBuild, now: datetime) -> str:
    if build.status == Status.PENDING and now - build.created_at > PATIENCE:
        return "No worker has taken it yet: is a Celery worker running?"
    if not build.is_running:
        return ""
    silent = now - (build.heartbeat_at or build.created_at)
    if build.status != Status.PENDING and silent > SILENCE:
        return (
            f"No sign of its worker for {duration(silent.total_seconds())}. "
            "The scheduler hands it to another one: are Celery beat and a worker running?"
        )
    return build.notice
