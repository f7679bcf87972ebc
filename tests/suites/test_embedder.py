"""What an embedder must do, asked of the real endpoint and of the fake."""

import numpy as np
import pytest

from indexes.errors import EmbeddingRejected, EmbeddingTimeout
from surfaces.wiring import stages
from tests.fakes.embedder import FakeEmbedder


@pytest.fixture(params=["fake", "real"])
def embed(request, endpoint_spec):
    door = FakeEmbedder().embed if request.param == "fake" else stages().embed

    def embed(text, timeout_ms=10_000):
        return door(endpoint_spec.model_copy(update={"timeout_ms": timeout_ms}), text)

    return embed


def test_a_vector_of_the_endpoints_dimension(embed):
    vector = embed("running shoes")
    assert vector.shape == (384,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)


def test_the_same_text_has_the_same_vector(embed):
    assert embed("running shoes") == pytest.approx(embed("running shoes"), abs=1e-5)


def test_like_texts_are_nearer_than_others(embed):
    one, like, other = map(embed, ("red running shoes", "running shoes", "toner cartridge"))
    assert one @ like > one @ other + 0.2


@pytest.mark.parametrize("text", ["", "日本語", "🛒" * 20, "x" * 1000, "a\x00b", "{|}@*\"'\\"])
def test_any_text_has_a_vector(embed, text):
    assert np.isfinite(embed(text)).all()


def test_no_time_left_is_a_timeout(embed):
    with pytest.raises(EmbeddingTimeout):
        embed("running shoes", 0)


def test_an_endpoint_that_does_not_exist(endpoint_spec):
    # The fake fails with this error when told to: the real one must do it by itself.
    gone = endpoint_spec.model_copy(update={"endpoint_name": "no-such-endpoint"})
    with pytest.raises(EmbeddingRejected):
        stages().embed(gone, "running shoes")
