"""Search times against live: what is slow enough to be held back."""

import pytest

from indexes.models import GateResult
from indexes.validation import latency
from indexes.validation.latency import Times
from tests.indexes.validation.cases import built, gate

Outcome = GateResult.Outcome


@pytest.mark.parametrize(
    ("ours", "theirs", "slow"),
    [
        (Times(40, 90), Times(10, 20), True),
        (Times(20, 90), Times(10, 20), False),  # twice is allowed
        (Times(21, 90), Times(10, 20), True),
        (Times(9.9, 900), Times(0.1, 0.2), False),  # nobody notices, most of the time
        (Times(45, 49), Times(0.1, 0.2), False),
        (Times(11, 51), Times(0.1, 0.2), True),
    ],
)
def test_a_build_is_too_slow_when_it_is_noticed_and_slower_than_live(ours, theirs, slow):
    assert latency.too_slow(ours, theirs, most=2.0) is slow


def test_searches_take_turns_after_a_warm_up():
    calls: list[tuple[str, int]] = []
    own, other = latency.compare(
        [
            lambda number: calls.append(("own", number)),
            lambda number: calls.append(("live", number)),
        ],
        times=4,
    )
    assert calls == [(name, number) for number in range(-3, 4) for name in ("own", "live")]
    assert 0 <= own.p50 <= own.p99
    assert other.p50 >= 0


def test_it_searches_both_builds_with_their_fields(index):
    definition = index()
    alone = gate(built(definition), "latency")
    assert (alone.outcome, alone.threshold) == (Outcome.REPORTED, None)
    assert "for 60 items with their fields" in alone.message
    against = gate(built(definition), "latency")
    assert (against.outcome, against.threshold) == (Outcome.PASSED, 2.0)
    assert set(against.detail) == {"p50_ms", "p99_ms", "live_p50_ms", "live_p99_ms"}
    assert against.figure == pytest.approx(
        against.detail["p50_ms"] / against.detail["live_p50_ms"], rel=0.1
    )
