"""What embedding containers answer: each shape over HTTP, and any bytes at all."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexes.embedding import embed_passages, embed_query, read_vectors
from indexes.errors import EmbeddingContract
from indexes.schema import EndpointSpec
from tests.indexes.containers import Container, answer

ENDPOINT = EndpointSpec(slug="test", endpoint_name="test", dimension=3, normalize=False)
A, B, C = [1, 2, 3], [3.5, 2, 7], [0, 0, -1e-3]
MEAN_AB = [2.25, 2, 5]


def endpoint(**changes: Any) -> EndpointSpec:
    return ENDPOINT.model_copy(update=changes)


# Shapes that containers are known to answer to one text.
ONE = {
    "pooled": [A],
    "flat": A,
    "tokens of one text": [[A, B]],
    "tokens, with the batch of one pipeline call": [[[A, B]]],
    "tokens without a batch": [A, B],
    "embeddings": {"embeddings": [A]},
    "embedding": {"embedding": A},
    "vectors": {"vectors": [A]},
    "predictions": {"predictions": [A]},
    "predictions as objects": {"predictions": [{"embeddings": A}]},
    "outputs": {"outputs": [[A, B]]},
    "OpenAI": {
        "object": "list",
        "data": [{"object": "embedding", "embedding": A, "index": 0}],
        "model": "m",
        "usage": {"total_tokens": 3},
    },
    "integers": [[4, 5, 6]],
}
ONE_EXPECTED = {
    "tokens of one text": MEAN_AB,
    "tokens, with the batch of one pipeline call": MEAN_AB,
    "tokens without a batch": MEAN_AB,
    "outputs": MEAN_AB,
    "integers": [4, 5, 6],
}
# … and to two.
TWO = {
    "pooled": [A, C],
    "tokens": [[A, A], [C, C]],
    "tokens of different lengths": [[A], [C, C, C]],
    "tokens of pipeline calls": [[[A, A]], [[C, C]]],
    "tokens of pipeline calls, of different lengths": [[[A, A]], [[C]]],
    "embeddings": {"embeddings": [A, C]},
    "vectors of tokens": {"vectors": [[A, A], [C]]},
    "OpenAI": {"data": [{"embedding": A, "index": 0}, {"embedding": C, "index": 1}]},
    "OpenAI in another order": {"data": [{"embedding": C, "index": 1}, {"embedding": A, "index": 0}]},
    "objects without an index": [{"embedding": A}, {"embedding": C}],
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_the_answer_to_one_text(container: Container, name: str):
    container.respond = lambda call: answer(ONE[name])
    vector = embed_query(ENDPOINT, "a")
    assert vector.dtype == np.float32
    assert vector.tolist() == ONE_EXPECTED.get(name, A)
    assert embed_passages(ENDPOINT, ["a"]).tolist() == [vector.tolist()]


@pytest.mark.parametrize("name", TWO)
def test_the_answer_to_two_texts(container: Container, name: str):
    container.respond = lambda call: answer(TWO[name])
    vectors = embed_passages(ENDPOINT, ["a", "b"])
    np.testing.assert_array_equal(vectors, np.array([A, C], np.float32))


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("result", {"result": [A]}),
        ("result.dense", {"result": {"dense": [A], "embeddings": "no"}}),
        ("result", {"result": {"embeddings": [A]}}),
        ("embedding", {"embeddings": "no", "embedding": [A]}),
    ],
)
def test_a_response_key_names_the_place(container: Container, key: str, body: Any):
    container.respond = lambda call: answer(body)
    assert embed_query(endpoint(response_key=key), "a").tolist() == A


@pytest.mark.parametrize(
    ("body", "count", "said"),
    [
        (b"", 1, "not JSON"),
        (b"<html>It works!</html>", 1, "It works!"),
        (b"[[NaN, 1, 2]]", 1, "not JSON.*NaN"),
        ([[1, 2]], 1, "vectors of 2 numbers, not 3. Set the dimension"),
        ([[1, 2, 3, 4]], 1, "vectors of 4 numbers, not 3"),
        ([A, B, C], 2, r"has the shape \[3, 3\] for 2 texts"),
        (A, 2, r"has the shape \[3\] for 2 texts"),
        ([[A, C]], 2, r"has the shape \[1, 2, 3\] for 2 texts"),
        ([[A], [C], [A, C]], 2, "holds 3 parts for 2 texts"),
        ([A, [1, 2]], 2, "different lengths"),
        ([], 1, "holds 0 parts for 1 text"),
        ([[]], 1, "something else"),
        ([[], A], 2, "something else"),
        ([["1", "2", "3"]], 1, "something else"),
        ([[1, None, 3]], 1, "something else"),
        ([[True, False, True]], 1, "something else"),
        ([[1e39, 0, 0]], 1, "not finite"),
        ("text", 1, "no list of numbers.*text"),
        (None, 1, "no list of numbers"),
        (5, 1, "no list of numbers"),
        ({"error": "model is loading"}, 1, "none of the keys.*model is loading"),
        ({"embeddings": {"error": "x"}}, 1, "none of the keys"),
        ({"data": [{"embedding": A, "index": 0}, {"embedding": C, "index": 0}]}, 2, "number"),
        ({"data": [{"embedding": A, "index": 1}, {"embedding": C, "index": 2}]}, 2, "number"),
        ({"data": [{"embedding": "AAAA", "index": 0}]}, 1, "something else"),
        ([[[[[A]]]]], 1, "something else"),
        (b'{"data":' * 900 + b"1" + b"}" * 900, 1, "too deeply"),
    ],
)
def test_anything_else_shows_what_came_back(container: Container, body: Any, count: int, said: str):
    container.respond = lambda call: answer(body)
    with pytest.raises(EmbeddingContract, match=said) as caught:
        embed_passages(ENDPOINT, ["x"] * count)
    assert '"test"' in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_response_key_is_named(container: Container):
    container.respond = lambda call: answer({"embeddings": [A]})
    with pytest.raises(EmbeddingContract, match=r'no "result\.dense", the response key'):
        embed_query(endpoint(response_key="result.dense"), "a")


def test_long_answers_are_cut(container: Container):
    container.respond = lambda call: answer({"message": "x" * 100_000})
    with pytest.raises(EmbeddingContract) as caught:
        embed_query(ENDPOINT, "a")
    assert len(str(caught.value)) < 500


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.sampled_from(["embeddings", "embedding", "data", "index", "outputs", "x"])
answers = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=20,
)


@given(
    st.binary(max_size=50) | answers.map(lambda value: json.dumps(value).encode()),
    st.integers(1, 3),
)
@example(b"[" * 5000, 1)
@example(b"[" * 200 + b"1" + b"]" * 200, 1)
@example(b'{"data":' * 900 + b"1" + b"}" * 900, 1)
@example(b"[[[1]],[[[2]]]]", 2)
@example(b"[[1e999,1,1]]", 1)
def test_any_bytes_are_vectors_or_a_contract_error(body: bytes, count: int):
    try:
        vectors = read_vectors(body, count=count, endpoint=ENDPOINT)
    except EmbeddingContract:
        return
    assert vectors.shape == (count, 3)
    assert np.isfinite(vectors).all()


@given(
    st.integers(1, 4).flatmap(
        lambda count: st.lists(
            st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4),
            min_size=count,
            max_size=count,
        )
    )
)
def test_tokens_are_averaged_whatever_their_number(tokens: list[list[list[float]]]):
    vectors = read_vectors(json.dumps(tokens).encode(), count=len(tokens), endpoint=ENDPOINT)
    expected = np.array([np.mean(np.array(text, np.float64), axis=0) for text in tokens])
    np.testing.assert_allclose(vectors, expected.astype(np.float32), rtol=1e-5)
