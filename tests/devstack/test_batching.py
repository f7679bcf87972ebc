"""Batches: who shares one, who waits, and who is told of a failure."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from recplatform.devstack.batching import Batcher, QueueFull
from recplatform.devstack.model import Vectors

pytestmark = pytest.mark.unit
SOON = 5


class Gate:
    """A model that notes its batches, and can be held busy on one."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        self.entered.release()
        assert self.open.wait(SOON)
        if "broken" in texts:
            raise RuntimeError("the model broke")
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    def hold(self, batcher: Batcher) -> None:
        """Return once the model is busy with a text, until ``open`` is set."""
        self.open.clear()
        while self.entered.acquire(blocking=False):
            pass
        batcher.submit(["hold"])
        assert self.entered.acquire(timeout=SOON)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_rows_come_back_in_the_order_of_the_texts(gate: Gate) -> None:
    texts = ["x" * (i * 7 % 50) for i in range(100)]
    rows = Batcher(gate, batch=8, share=4).submit(texts).result(SOON)
    assert rows[:, 0].tolist() == [len(text) for text in texts]
    assert max(map(len, gate.batches)) == 8


def test_callers_that_arrive_while_the_model_is_busy_share_the_next_batch(gate: Gate) -> None:
    batcher = Batcher(gate)
    gate.hold(batcher)
    waiting = [batcher.submit([text]) for text in ("a", "bb", "ccc")]
    gate.open.set()
    assert [future.result(SOON)[0, 0] for future in waiting] == [1, 2, 3]
    assert gate.batches == [["hold"], ["a", "bb", "ccc"]]


def test_an_idle_model_starts_on_one_text_at_once(gate: Gate) -> None:
    Batcher(gate).submit(["alone"]).result(SOON)
    assert gate.batches == [["alone"]]


def test_a_query_does_not_wait_for_the_end_of_a_long_list(gate: Gate) -> None:
    batcher = Batcher(gate, batch=4, share=2)
    gate.hold(batcher)
    long = batcher.submit(["item"] * 40)
    query = batcher.submit(["query"])
    gate.open.set()
    assert query.result(SOON).shape == (1, 1)
    assert long.result(SOON).shape == (40, 1)
    assert "query" in gate.batches[1]


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(gate: Gate) -> None:
    batcher = Batcher(gate, capacity=3)
    gate.hold(batcher)
    waiting = batcher.submit(["a", "b", "c"])
    with pytest.raises(QueueFull):
        batcher.submit(["d"])
    gate.open.set()
    waiting.result(SOON)
    assert batcher.submit(["d"]).result(SOON).shape == (1, 1)


def test_an_idle_model_takes_a_list_longer_than_the_queue(gate: Gate) -> None:
    assert len(Batcher(gate, capacity=3).submit(["x"] * 50).result(SOON)) == 50


def test_a_failure_reaches_all_of_its_batch_and_nobody_else(gate: Gate) -> None:
    batcher = Batcher(gate, batch=4, share=2)
    gate.hold(batcher)
    long = batcher.submit(["broken"] * 20)
    beside = batcher.submit(["beside"])
    gate.open.set()
    for failed in (long, beside):
        with pytest.raises(RuntimeError, match="the model broke"):
            failed.result(SOON)
    assert batcher.submit(["later"]).result(SOON)[0, 0] == 5
    # The rest of the list was dropped, and no longer counts as waiting.
    assert sum(batch.count("broken") for batch in gate.batches) < 20
    gate.hold(batcher)
    batcher.submit(["x"] * 512)
    gate.open.set()
