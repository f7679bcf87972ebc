import threading

import pytest

from enrichment.errors import EnrichmentThrottled
from indexes.errors import EmbeddingUnavailable
from surfaces.pool import Pool

pytestmark = pytest.mark.unit


def fail(error: Exception) -> None:
    raise error


def test_gives_the_value_and_when_it_ran():
    outcome = Pool(1).start("sum", lambda a, b: a + b, 1, 2).outcome(5)
    assert outcome.value == 3
    assert outcome.reason == ""
    assert outcome.started <= outcome.ended


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EmbeddingUnavailable("down"), "unavailable"),
        (EnrichmentThrottled("busy"), "throttled"),
        (KeyError("a fault"), "error"),
    ],
)
def test_a_failed_call_gives_its_reason(error, reason):
    outcome = Pool(1).start("stage", fail, error).outcome(5)
    assert (outcome.value, outcome.reason) == (None, reason)


def test_a_slow_call_is_abandoned_but_keeps_its_thread_until_it_ends():
    pool, gate = Pool(1), threading.Event()
    slow = pool.start("slow", gate.wait, 5)
    assert slow.outcome(0.01).reason == "timeout"
    assert pool.start("next", int).outcome(1).reason == "overloaded"
    gate.set()
    assert slow.outcome(5).value is True
    assert pool.start("next", int).outcome(5).value == 0


def test_never_queues():
    pool, gate = Pool(3), threading.Event()
    calls = [pool.start("slow", gate.wait, 5) for _ in range(10)]
    refused = [call for call in calls if call.outcome(0).reason == "overloaded"]
    gate.set()
    assert len(refused) == 7
    assert refused == calls[3:]


def test_a_failed_call_gives_its_thread_back():
    pool = Pool(1)
    for _ in range(3):
        assert pool.start("stage", fail, ValueError()).outcome(5).reason == "error"
