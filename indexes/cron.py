"""Five-field cron: what a schedule says, when it is due next, and how people read it.

Read by Celery's own parser, so that what is accepted here is what the scheduler
runs. As there, the days of the month and of the week must both agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from celery.schedules import ParseException
from django.utils import timezone
from django_celery_beat.tzcrontab import TzAwareCrontab

# What the scheduler's table holds of each part; nothing sensible is longer.
MAX_PART: Final = 60
# So many moments of a day are named one by one.
MAX_TIMES: Final = 4

# The parts in their order: Celery's name, ours, and what may stand there.
_PARTS: Final = (
    ("minute", "minute", "0 to 59"),
    ("hour", "hour", "0 to 23"),
    ("day_of_month", "day of the month", "1 to 31"),
    ("month_of_year", "month", "1 to 12, or jan to dec"),
    ("day_of_week", "day of the week", "0 (Sunday) to 6, or sun to sat"),
)
_NAMED: Final = ("month_of_year", "day_of_week")
# Celery takes some broken parts by their beginning, such as "1-5-7".
_ENTRY: Final = r"(\*|{value}(-{value})?)(/[0-9]+)?"
_DAYS: Final = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def parse(text: str) -> TzAwareCrontab:
    """Return the schedule, in the time zone of the installation. Raises ValueError in words."""
    parts = text.split()
    if len(parts) != len(_PARTS):
        names = ", ".join(label for _, label, _ in _PARTS)
        raise ValueError(
            f"A schedule has five parts ({names}), and this has {len(parts)}: "
            'write one such as "0 3 * * *".'
        )
    given = {}
    for part, (name, label, range_) in zip(parts, _PARTS, strict=True):
        given[name] = part
        try:
            _check_form(name, part)
            TzAwareCrontab(**{name: part})
        except (ValueError, ParseException):
            raise ValueError(
                f'The {label} "{part[:MAX_PART]}" cannot be read: write *, or numbers from {range_}, '
                'such as "1,3", "1-5" or "*/2".'
            ) from None
    try:
        return TzAwareCrontab(**given, tz=timezone.get_default_timezone())
    except ValueError:
        raise ValueError(
            f'No month "{given["month_of_year"]}" has a day "{given["day_of_month"]}": '
            "it would never be due."
        ) from None


def next_after(text: str, moment: datetime) -> datetime:
    """Return when the schedule is due next after a moment. Raises ValueError as ``parse``."""
    since, step, _ = parse(text).remaining_delta(moment.astimezone(timezone.get_default_timezone()))
    due: datetime = since + step
    return due


def in_words(text: str) -> str:
    """Return the schedule as people read it: ``Daily at 03:00``. Raises ValueError as ``parse``."""
    schedule = parse(text)
    minutes, hours = sorted(schedule.minute), sorted(schedule.hour)
    days = _days(schedule)
    if len(minutes) * len(hours) > MAX_TIMES:
        said = f"{_repeated(minutes, hours)} {days}".rstrip()
    else:
        times = _listed([f"{hour:02}:{minute:02}" for hour in hours for minute in minutes])
        said = f"at {times} {days}" if days else f"daily at {times}"
    return said[0].upper() + said[1:]


def _check_form(name: str, part: str) -> None:
    entry = _ENTRY.format(value="[0-9A-Za-z]+" if name in _NAMED else "[0-9]+")
    if len(part) > MAX_PART or not re.fullmatch(f"{entry}(,{entry})*", part):
        raise ValueError(part)


def _repeated(minutes: Sequence[int], hours: Sequence[int]) -> str:
    if len(hours) < 24:
        step = _step(hours, 24) if len(minutes) == 1 else None
        if step:
            return _repeated(minutes, range(24)).replace("hour", f"{step} hours", 1)
        hour = "hours" if len(hours) > 1 else "hour"
        return f"{_repeated(minutes, range(24))} in the {hour} {_ranges(hours)}"
    step = _step(minutes, 60)
    if step:
        return "every minute" if step == 1 else f"every {step} minutes"
    return "every hour" if minutes == [0] else f"every hour at minute {_ranges(minutes)}"


def _step(values: Sequence[int], end: int) -> int | None:
    """Return the even step from 0 to the end by which these values go on, or None."""
    step = end // len(values)
    even = len(values) > 1 and list(values) == list(range(0, end, step))
    return step if even and end % step == 0 else None


def _days(schedule: TzAwareCrontab) -> str:
    """Return on which days, in which months; empty for all."""
    said = []
    if len(schedule.day_of_week) < len(_DAYS):
        said.append(f"on {_ranges(sorted(schedule.day_of_week), _DAYS)}")
    if len(schedule.day_of_month) < 31:
        if said:
            said.append("that are")
        said.append(f"on day {_ranges(sorted(schedule.day_of_month))} of the month")
    if len(schedule.month_of_year) < len(_MONTHS):
        said.append(f"in {_ranges(sorted(schedule.month_of_year), ('', *_MONTHS))}")
    return " ".join(said)


def _ranges(values: Sequence[int], names: Sequence[str] = ()) -> str:
    """Return values with three and more neighbours drawn together: ``1, 3 to 5 and 9``."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    said = []
    for run in runs:
        words = [names[value] if names else str(value) for value in run]
        said += words if len(run) < 3 else [f"{words[0]} to {words[-1]}"]
    return _listed(said)


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
