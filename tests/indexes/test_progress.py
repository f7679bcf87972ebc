"""How far a build is, in words and as a bar."""

from datetime import timedelta

import pytest
from django.utils import timezone

from indexes import progress
from indexes.models import IndexBuild

NOW = timezone.now()


def loading(**changes: object) -> IndexBuild:
    """A build that has loaded for ten seconds."""
    given = {
        "status": IndexBuild.Status.LOADING,
        "created_at": NOW - timedelta(seconds=12),
        "loading_at": NOW - timedelta(seconds=10),
        "heartbeat_at": NOW,
        "total_rows": 1000,
        "cursor": 400,
        "under_way": 100,
        "written": 380,
        "indexed": 380,
        "rejected": 20,
        "embedded": 80,
        "reused": 290,
        "given": 10,
    }
    return IndexBuild(**given | changes)


def test_a_load_shows_what_became_of_its_rows():
    shown = progress.of(loading(), NOW)
    assert (shown.rows, shown.rate, shown.seconds_left) == (500, 50, 10)
    assert (shown.embedded, shown.reused, shown.given) == (80, 290, 10)
    assert shown.line() == (
        "Loading items · 50 % · 500 of 1,000 rows · 80 embedded · 290 reused · 10 given · "
        "380 written · 20 rejected · 50 rows/s · 10 s left"
    )


def test_an_engine_that_is_behind_is_seen():
    assert "380 written · 300 indexed" in progress.of(loading(indexed=300), NOW).line()


@pytest.mark.parametrize(
    ("cursor", "bar"), [(0, "░" * 24), (500, "█" * 12 + "░" * 12), (1000, "█" * 24)]
)
def test_a_bar_shows_the_share_that_is_done(cursor, bar):
    line = progress.of(loading(cursor=cursor, under_way=0), NOW).bar(200)
    assert line.startswith(f"{bar} Loading items")


def test_a_bar_fits_its_columns_and_needs_the_number_of_rows():
    assert len(progress.of(loading(), NOW).bar(40)) < 40
    unknown = progress.of(loading(total_rows=None), NOW)
    assert unknown.fraction is None
    assert unknown.bar(200) == unknown.line()
