"""Schedules: what is accepted is what the scheduler runs, and people read what it does."""

from datetime import UTC, datetime

import pytest
from celery.schedules import crontab
from hypothesis import given
from hypothesis import strategies as st

from indexes import cron

pytestmark = pytest.mark.unit
# A Monday.
NOON = datetime(2024, 1, 15, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 3 * * *", "Daily at 03:00"),
        ("30 2,14 * * *", "Daily at 02:30 and 14:30"),
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 * * * *", "Every hour"),
        ("5,35 * * * *", "Every hour at minute 5 and 35"),
        ("7 */2 * * *", "Every 2 hours at minute 7"),
        ("0 */6 * * *", "Daily at 00:00, 06:00, 12:00 and 18:00"),
        ("*/20 8-18 * * *", "Every 20 minutes in the hours 8 to 18"),
        ("*/5 9 * * *", "Every 5 minutes in the hour 9"),
        ("0 3 * * 1", "At 03:00 on Mondays"),
        ("0 3 * * mon-fri", "At 03:00 on Mondays to Fridays"),
        ("0 3 * * sat,sun", "At 03:00 on Sundays and Saturdays"),
        ("0 3 1 * *", "At 03:00 on day 1 of the month"),
        ("0 3 1-7 * 1", "At 03:00 on Mondays that are on day 1 to 7 of the month"),
        ("0 3 1 jan,jul *", "At 03:00 on day 1 of the month in January and July"),
        ("1,13,30-33 * * * *", "Every hour at minute 1, 13 and 30 to 33"),
    ],
)
def test_a_schedule_in_words(text, words):
    assert cron.in_words(text) == words


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("0 3 * * *", datetime(2024, 1, 16, 3, 0, tzinfo=UTC)),
        ("*/15 * * * *", datetime(2024, 1, 15, 12, 15, tzinfo=UTC)),
        ("0 12 * * *", datetime(2024, 1, 16, 12, 0, tzinfo=UTC)),
        ("0 3 * * sun", datetime(2024, 1, 21, 3, 0, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2024, 2, 29, 0, 0, tzinfo=UTC)),
    ],
)
def test_when_a_schedule_is_due_next(text, due):
    assert cron.next_after(text, NOON) == due


def test_times_are_those_of_the_installation(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    assert cron.next_after("0 3 * * *", NOON) == datetime(2024, 1, 15, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * *", "five parts .*this has 4"),
        ("@daily", "five parts .*this has 1"),
        ("60 * * * *", 'The minute "60" cannot be read: .*0 to 59'),
        ("0 24 * * *", 'The hour "24" cannot be read: .*0 to 23'),
        ("0 0 0 * *", 'The day of the month "0" cannot be read: .*1 to 31'),
        ("0 0 * foo *", 'The month "foo" cannot be read: .*jan to dec'),
        ("0 0 * * 7", r'The day of the week "7" cannot be read: .*0 \(Sunday\) to 6'),
        ("mon * * * *", 'The minute "mon"'),
        ("*/0 * * * *", r'The minute "\*/0"'),
        ("1-5-7 * * * *", 'The minute "1-5-7"'),
        ("*/15!x * * * *", "The minute"),
        (", * * * *", 'The minute ","'),
        (f"{'1,' * 40}1 * * * *", "The minute"),
        ("0 0 31 4 *", 'No month "4" has a day "31"'),
    ],
)
def test_what_is_wrong_names_the_part(text, said):
    with pytest.raises(ValueError, match=said):
        cron.parse(text)


_numbers = st.integers(0, 70).map(str)
_entries = st.one_of(
    st.just("*"),
    _numbers,
    st.builds("{}-{}".format, _numbers, _numbers),
    st.text("*/-,109amon", max_size=6),
)
_stepped = st.one_of(_entries, st.builds("{}/{}".format, _entries, _numbers))
_parts = st.lists(_stepped, min_size=1, max_size=3).map(",".join)


@given(parts=st.tuples(_parts, _parts, _parts, _parts, _parts))
def test_whatever_is_accepted_celery_takes_and_can_be_read(parts):
    text = " ".join(parts)
    try:
        cron.parse(text)
    except ValueError:
        return
    minute, hour, day, month, weekday = text.split()
    assert crontab(minute, hour, weekday, day, month)
    assert cron.in_words(text)
    assert cron.next_after(text, NOON) > NOON
