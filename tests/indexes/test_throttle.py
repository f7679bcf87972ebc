"""The pace of calls: turns that all workers share, and fewer calls at once while an endpoint is busy."""

import threading
import time

import pytest
from django.test import override_settings

from indexes import embedding, passages, throttle
from indexes.errors import EmbeddingThrottled, EmbeddingTimeout, SearchUnavailable
from indexes.passages import PassageCalls
from indexes.schema import EndpointSpec
from indexes.throttle import CALM, Gate, take_turn
from tests.indexes.containers import Call, Container, answer, refusal


def endpoint(name: str, **changes: object) -> EndpointSpec:
    return EndpointSpec.model_validate(
        {"slug": "test", "endpoint_name": name, "dimension": 2, "normalize": False, "max_batch": 1}
        | changes
    )


def lengths(call: Call):
    return answer([[len(call.body["inputs"]), 1]])


def test_turns_are_as_far_apart_as_the_limit_says(namespace: str):
    limited = endpoint(namespace, max_calls_per_second=0.5)
    waits = [take_turn(limited) for _ in range(5)]
    assert waits == pytest.approx([0, 2, 4, 6, 8], abs=0.5)
    # Of another endpoint, and of one without a limit.
    assert take_turn(endpoint(f"{namespace}o", max_calls_per_second=0.5)) == 0
    assert [take_turn(endpoint(namespace)) for _ in range(3)] == [0, 0, 0]


def test_workers_share_the_turns(namespace: str):
    limited = endpoint(namespace, max_calls_per_second=1)
    waits: list[float] = []
    workers = [threading.Thread(target=lambda: waits.append(take_turn(limited))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(waits) == pytest.approx(range(8), abs=0.5)


def test_a_turn_that_was_not_taken_is_forgotten(namespace: str, valkey):
    limited = endpoint(namespace, max_calls_per_second=1000)
    take_turn(limited)
    [key] = [key for key in valkey.scan_iter(match="*:turn:*") if namespace.encode() in key]
    assert 0 < valkey.pttl(key) <= 1001
    time.sleep(0.01)
    assert take_turn(limited) == 0


def test_without_valkey_there_is_no_turn(namespace: str):
    down = override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=False)
    with down, pytest.raises(SearchUnavailable) as caught:
        take_turn(endpoint(namespace, max_calls_per_second=1))
    assert caught.value.retryable


def test_calls_wait_for_their_turn(container: Container, namespace: str):
    container.respond = lengths
    limited = endpoint(namespace, max_calls_per_second=20, concurrency=4)
    started = time.monotonic()
    assert len(embedding.embed_passages(limited, ["x"] * 7)) == 7
    # The first goes at once, the seventh after six intervals.
    assert time.monotonic() - started >= 6 / 20


def test_a_worker_shows_that_it_is_alive_while_it_waits_for_its_turn(
    container: Container, namespace: str, monkeypatch
):
    monkeypatch.setattr(passages, "BEAT_S", 0.02)
    container.respond = lengths
    beats: list[int] = []
    limited = endpoint(namespace, max_calls_per_second=4)
    with embedding.passage_calls(limited, beat=lambda: beats.append(1)) as calls:
        list(calls.embed(["x", "y"]))
    assert len(beats) > 5


def test_leaving_does_not_wait_for_turns(container: Container, namespace: str):
    container.respond = lengths
    limited = endpoint(namespace, max_calls_per_second=0.01)
    started = time.monotonic()
    with embedding.passage_calls(limited) as calls:
        next(calls.embed(["x", "y"]))
    assert time.monotonic() - started < 20
    assert len(container.calls) == 1


def test_time_that_is_limited_ends_the_wait(container: Container, namespace: str):
    container.respond = lengths
    limited = endpoint(namespace, max_calls_per_second=0.01)
    with pytest.raises(EmbeddingTimeout, match="in time"):
        embedding.embed_passages(limited, ["x", "y"], within_s=0.2)


def test_as_many_calls_are_under_way_as_the_endpoint_allows(container: Container, namespace: str):
    meeting = threading.Barrier(5)

    def meet(call: Call):
        meeting.wait(10)
        return lengths(call)

    container.respond = meet
    assert len(embedding.embed_passages(endpoint(namespace, concurrency=5), ["x"] * 10)) == 10


def test_a_gate_halves_when_the_endpoint_is_busy_and_opens_again_slowly():
    gate = Gate(8, threading.Event())
    opened = []
    for _ in range(3):
        gate.throttled(0)
        opened.append(gate.open)
    assert opened == [4, 2, 1]
    gate.throttled(0)
    assert gate.open == 1
    for _ in range(CALM):
        gate.went_well()
    assert gate.open == 2
    for _ in range(2 * CALM - 1):
        gate.went_well()
    assert gate.open == 2
    for _ in range(1000):
        gate.went_well()
    assert gate.open == 8


def test_nobody_passes_a_gate_during_the_pause_or_beyond_its_places():
    gate = Gate(2, threading.Event())
    # One place is left.
    gate.throttled(0.2)
    started = time.monotonic()
    with gate.passed():
        assert time.monotonic() - started >= 0.2
        passed = threading.Event()

        def pass_gate() -> None:
            with gate.passed():
                passed.set()

        thread = threading.Thread(target=pass_gate)
        thread.start()
        assert not passed.wait(0.1)
    assert passed.wait(5)
    thread.join()


def test_a_throttled_endpoint_is_called_less_until_it_recovers(
    container: Container, namespace: str, monkeypatch
):
    monkeypatch.setattr(passages, "FIRST_PAUSE_S", 0.02)
    lock = threading.Lock()
    under_way = 0
    seen: list[int] = []

    def busy(call: Call):
        nonlocal under_way
        with lock:
            under_way += 1
            now = under_way
            seen.append(now)
        time.sleep(0.01)
        with lock:
            under_way -= 1
        if now > 2:
            return refusal(429, "ThrottlingException", "slow down")
        return lengths(call)

    container.respond = busy
    texts = ["x" * n for n in range(1, 41)]
    vectors = embedding.embed_passages(endpoint(namespace, concurrency=8), texts)
    assert vectors[:, 0].tolist() == list(range(1, 41))
    assert max(seen) > 2
    # Most calls are made at the pace that the endpoint bears, not at that of the setting.
    assert sum(now > 2 for now in seen) < len(seen) / 3


def test_an_endpoint_that_stays_busy_is_an_error_that_can_be_tried_again(monkeypatch):
    monkeypatch.setattr(passages, "FIRST_PAUSE_S", 0.001)
    calls: list[int] = []

    def busy(*_: object):
        calls.append(1)
        raise EmbeddingThrottled("slow down")

    with PassageCalls(endpoint("busy"), busy) as open_calls, pytest.raises(EmbeddingThrottled):
        list(open_calls.embed(["x"]))
    assert len(calls) == passages.THROTTLED_ATTEMPTS


def test_the_key_is_under_the_namespace(namespace: str, valkey, settings):
    settings.VALKEY_NAMESPACE = f"{namespace}own"
    throttle.take_turn(endpoint("any", max_calls_per_second=1))
    assert valkey.exists(f"{namespace}own:turn::any")
