"""The embedding model: what its vectors are, for any text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recplatform.devstack.model import DIMENSION, MAX_TOKENS, MiniLM

pytestmark = pytest.mark.unit


def test_similar_meaning_is_closer_than_different_meaning(model: MiniLM) -> None:
    watch, near, far = model(["gps watch", "smartwatch with satellite navigation", "black toner"])
    assert watch @ near > 0.5
    assert watch @ near > watch @ far + 0.3


def test_a_text_gets_one_vector_whatever_it_is_batched_with(model: MiniLM) -> None:
    alone = model(["gps watch"])
    among = model(["a much longer text that needs padding of the others " * 3, "gps watch", ""])
    np.testing.assert_allclose(among[1], alone[0], atol=1e-5)


def test_a_text_is_read_up_to_its_256th_token(model: MiniLM) -> None:
    # Two of the tokens mark the start and the end.
    full = "watch " * (MAX_TOKENS - 2)
    longer, full_vector, shorter = model([full + "toner " * 5000, full, full[: -len("watch ")]])
    np.testing.assert_allclose(longer, full_vector, atol=1e-5)
    assert not np.allclose(shorter, full_vector, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_any_text_gets_a_vector_of_length_one(model: MiniLM, texts: list[str]) -> None:
    vectors = model(texts)
    assert vectors.shape == (len(texts), DIMENSION)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
