"""The model behind an endpoint must be the same at the end of a load as at its start."""

import numpy as np
import pytest

from indexes.models import GateResult
from indexes.probe import cosine
from indexes.schema import PROBE_TEXT
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import embedder, meaning

Outcome = GateResult.Outcome


def test_a_model_replaced_during_the_load_holds_the_build_back(index, words):
    first = iter([True])

    def embed(text: str) -> np.ndarray:
        # The first probe is that before the load.
        changed = text == PROBE_TEXT and not next(first, False)
        return meaning(text, salt="new" if changed else "")

    words.respond = embedder(embed)
    build = built(index())
    result = gate(build, "probe")
    assert (result.outcome, build.verdict) == (Outcome.FAILED, "blocked")
    assert result.figure < result.threshold == 0.9
    assert "Build again" in result.message


def test_where_vectors_would_be_taken_over_another_name_of_the_model_is_asked_for(index, words):
    definition = index()
    words.respond = embedder()
    built(definition)
    words.respond = embedder(lambda text: meaning(text, salt="new"))
    # Other texts, so that the endpoint is called for them.
    definition.source.text_template = "{kind}: {title}"
    definition.source.save()

    build = built(definition)

    result = gate(build, "probe")
    assert (result.outcome, build.verdict) == (Outcome.FAILED, "blocked")
    assert 'Change "model" of endpoint "products-endpoint" and build again' in result.message


def test_the_same_model_passes(index):
    result = gate(built(index()), "probe")
    assert (result.outcome, result.figure) == (Outcome.PASSED, pytest.approx(1))


@pytest.mark.parametrize(
    ("one", "other", "figure"),
    [([1, 0], [2, 0], 1), ([1, 0], [0, 1], 0), ([1, 0], [0, 0], 0), ([1, 0], [1, 0, 0], 0)],
)
def test_cosine(one, other, figure):
    assert cosine(np.array(one, np.float32), np.array(other, np.float32)) == figure
