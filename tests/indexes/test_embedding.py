"""The text door, against a container that records what it is sent."""

import threading
import time

import numpy as np
import pytest

from indexes import embedding
from indexes.errors import (
    EmbeddingContract,
    EmbeddingRejected,
    EmbeddingTimeout,
    EmbeddingUnavailable,
)
from indexes.schema import EndpointSpec
from tests.indexes.containers import Call, Container, answer, refusal

ENDPOINT = EndpointSpec(
    slug="test", endpoint_name="test", dimension=2, normalize=False, max_batch=3, timeout_ms=1000
)


def changed(**changes: object) -> EndpointSpec:
    return ENDPOINT.model_copy(update=changes)


def lengths(call: Call):
    """Answer each text by the vector (its length, 1)."""
    texts = call.body["inputs"]
    return answer([[len(text), 1] for text in ([texts] if isinstance(texts, str) else texts)])


def test_one_text_goes_as_a_string_and_several_as_a_list(container: Container):
    container.respond = lengths
    assert embedding.embed_query(ENDPOINT, "abc").tolist() == [3, 1]
    assert embedding.embed_passages(ENDPOINT, ["abcd"]).tolist() == [[4, 1]]
    assert embedding.embed_passages(ENDPOINT, ["a", "bc"]).tolist() == [[1, 1], [2, 1]]
    assert [call.body for call in container.calls] == [
        {"inputs": "abc"},
        {"inputs": "abcd"},
        {"inputs": ["a", "bc"]},
    ]


def test_the_request_contract(container: Container):
    container.respond = lambda call: answer([[1, 1]])
    endpoint = changed(
        request_key="text",
        request_extra={"truncate": True, "text": "not this"},
        query_prefix="query: ",
        passage_prefix="passage: ",
    )
    embedding.embed_query(endpoint, "a")
    embedding.embed_passages(endpoint, ["b"])
    assert [call.body for call in container.calls] == [
        {"truncate": True, "text": "query: a"},
        {"truncate": True, "text": "passage: b"},
    ]


def test_batches_keep_the_order_and_the_size(container: Container):
    def slow_at_first(call):
        if len(container.calls) == 1:
            time.sleep(0.05)
        return lengths(call)

    container.respond = slow_at_first
    texts = ["x" * n for n in range(1, 9)]
    vectors = embedding.embed_passages(ENDPOINT, texts)
    assert vectors[:, 0].tolist() == list(range(1, 9))
    assert sorted(len(call.body["inputs"]) for call in container.calls) == [2, 3, 3]
    assert embedding.embed_passages(ENDPOINT, []).shape == (0, 2)


def test_two_batches_are_on_their_way_at_once(container: Container):
    meeting = threading.Barrier(2)

    def meet(call):
        meeting.wait(5)
        return lengths(call)

    container.respond = meet
    assert len(embedding.embed_passages(ENDPOINT, ["a"] * 12)) == 12


@pytest.mark.parametrize("text", ["half of a pair \ud800", "nul \x00", "", "日本 😀"])
def test_any_text_can_be_sent(container: Container, text: str):
    container.respond = lengths
    assert embedding.embed_query(ENDPOINT, text).tolist() == [len(text), 1]
    embedding.embed_passages(ENDPOINT, [text, text])


def test_normalising(container: Container):
    container.respond = lambda call: answer([[3, 4], [0, 0]])
    vectors = embedding.embed_passages(changed(normalize=True), ["a", "b"])
    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8], [0, 0]]), rtol=1e-6)
    assert embedding.embed_passages(ENDPOINT, ["a", "b"]).tolist() == [[3, 4], [0, 0]]


def test_passages_wait_for_an_endpoint_that_is_busy(container: Container):
    outcomes = [
        refusal(429, "ThrottlingException", "slow down"),
        refusal(503, "ServiceUnavailable", "restarting"),
        None,
    ]

    def recover(call):
        return outcomes.pop(0) if outcomes else lengths(call)

    container.respond = recover
    assert embedding.embed_passages(ENDPOINT, ["a", "b"]).tolist() == [[1, 1], [1, 1]]
    assert len(container.calls) == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (refusal(400, "ValidationError", "no such endpoint"), EmbeddingRejected),
        (answer({"result": "ok"}), EmbeddingContract),
    ],
)
def test_passages_do_not_repeat_what_cannot_succeed(container: Container, given, expected):
    container.respond = lambda call: given
    with pytest.raises(expected):
        embedding.embed_passages(ENDPOINT, ["a", "b"])
    assert len(container.calls) == 1


def test_a_query_is_not_repeated(container: Container):
    container.respond = lambda call: refusal(503, "ServiceUnavailable", "restarting")
    with pytest.raises(EmbeddingUnavailable):
        embedding.embed_query(ENDPOINT, "a")
    assert len(container.calls) == 1


@pytest.mark.parametrize(("limit", "timeout_ms"), [(0.05, 60_000), (None, 50), (60, 50)])
def test_a_query_takes_the_shorter_of_both_limits(container: Container, limit, timeout_ms):
    done = threading.Event()

    def wait(call):
        # Within the longer limit, so that waiting for it would bring the answer.
        done.wait(5)
        return lengths(call)

    container.respond = wait
    try:
        with pytest.raises(EmbeddingTimeout):
            embedding.embed_query(changed(timeout_ms=timeout_ms), "a", timeout_s=limit)
    finally:
        done.set()
