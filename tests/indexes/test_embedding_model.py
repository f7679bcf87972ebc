"""The text door on a real model. Apart from the tests whose containers take its address."""

import numpy as np

from indexes import embedding
from indexes.schema import EndpointSpec


def test_the_model_finds_what_is_alike(endpoint_spec: EndpointSpec):
    passages = embedding.embed_passages(
        endpoint_spec,
        ["moisturizer for dry skin", "gaming laptop with a fast screen", "USB-C cable"],
    )
    query = embedding.embed_query(endpoint_spec, "cream against dry skin")
    assert (passages.shape, query.shape) == ((3, 384), (384,))
    assert passages.dtype == query.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-5)
    assert np.argmax(passages @ query) == 0


def test_a_text_gets_the_same_vector_alone_and_in_a_batch(endpoint_spec: EndpointSpec):
    texts = [f"product number {n}" for n in range(5)]
    small = endpoint_spec.model_copy(update={"max_batch": 2})
    batch = embedding.embed_passages(small, texts)
    alone = np.stack([embedding.embed_query(endpoint_spec, text) for text in texts])
    # The model is quantised: the length of a batch's longest text moves the digits.
    assert (batch * alone).sum(axis=1).min() > 0.98
