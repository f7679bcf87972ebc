import time

import pytest

from surfaces.deadline import Deadline

pytestmark = pytest.mark.unit


def test_remaining_time_shrinks_and_stops_at_zero():
    deadline = Deadline(0.03)
    first = deadline.remaining()
    assert 0 < first <= 0.03
    time.sleep(0.035)
    assert deadline.remaining() == 0.0


def test_elapsed_time_goes_on_past_the_end():
    deadline = Deadline(0.0)
    time.sleep(0.002)
    assert deadline.elapsed_ms >= 2


def test_moments_are_told_from_the_start():
    before = time.perf_counter()
    deadline = Deadline(1.0)
    assert -1 < deadline.since_start_ms(before) <= 0
    assert 999 < deadline.since_start_ms(before + 1.0) <= 1000
