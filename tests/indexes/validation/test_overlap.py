"""What changes beside items against the live build, and how it is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.models import EmbeddingEndpoint, GateResult
from indexes.validation import overlap
from indexes.validation.overlap import Compared
from tests.indexes.containers import refusal
from tests.indexes.validation.cases import built, gate
from tests.indexes.validation.words import embedder, meaning, texts_of

Outcome = GateResult.Outcome
RANKINGS = st.lists(st.sampled_from("abcdefghijklmnop"), max_size=10, unique=True)


@pytest.mark.parametrize(
    ("one", "other", "figure"),
    [
        ("abc", "abc", 1.0),
        ("abc", "xyz", 0.0),
        ("", "", 1.0),
        # By hand: agreements 0, 1, 2/3 at p 0.9: 2/3 · 0.729 + 0.1/0.9 · (0.81 + 0.486).
        ("abc", "bad", 0.486 + 0.144),
        # Agreements 1, 1/2: 0.5 · 0.81 + 0.1/0.9 · (0.9 + 0.405).
        ("ab", "ax", 0.405 + 0.145),
    ],
)
def test_rank_biased_overlap(one, other, figure):
    assert overlap.rank_biased(one, other) == pytest.approx(figure)


@given(RANKINGS, RANKINGS)
def test_it_lies_between_0_and_1_and_has_no_direction(one, other):
    figure = overlap.rank_biased(one, other)
    assert -1e-9 <= figure <= 1 + 1e-9
    assert figure == pytest.approx(overlap.rank_biased(other, one))
    assert overlap.rank_biased(one, one) == pytest.approx(1)


def test_a_change_at_the_top_weighs_more_than_one_at_the_end():
    before = list("abcdefghij")
    assert overlap.rank_biased(before, ["x", *before[1:]]) < overlap.rank_biased(
        before, [*before[:-1], "x"]
    )


def test_moves_add_up_over_queries():
    found = [
        Compared("q", list("abc"), list("bac")),
        Compared("r", list("abc"), list("bcx")),
    ]
    moved = overlap.moves(found)
    # a: from 0 to 1 and from 0 to out of the ten; b: from 1 to 0 twice; x: from out of them to 2.
    assert moved == {"a": -11, "b": 2, "c": 1, "x": 8}


def turned(text: str) -> np.ndarray:
    """A model that sees what the other does, but for tents."""
    return meaning(text, salt="tents") if "tent" in text else meaning(text)


def test_another_model_is_compared_without_asking_either(index, words):
    definition = index(120, min_overlap=0.99)
    live = built(definition)
    second = EmbeddingEndpoint.objects.create(
        slug="two", endpoint_name="two", dimension=16, model="two"
    )
    definition.endpoint = second
    definition.save()

    def respond(call):
        # The endpoint of what is live is gone.
        if "/words/" in call.path:
            return refusal(400, "ValidationError", "Endpoint words not found")
        return embedder(turned)(call)

    words.respond = respond
    words.calls.clear()
    build = built(definition)
    result = gate(build, "overlap")
    assert (result.outcome, result.threshold) == (Outcome.FAILED, 0.99)
    assert (build.verdict, definition.live_build) == ("blocked", live)
    assert 0.3 < result.figure < 0.99
    assert 0.3 < result.detail["rank_biased_overlap"] < 1
    # Named by their titles, the most changed first.
    first = result.detail["most_changed"][0]
    assert "tent number" in first["item"]
    assert first["item"] in result.message
    assert len(first["gone"]) == len(first["new"]) > 0
    assert all(" number " in title for title in first["gone"])
    assert result.detail["risen"][0]["places"] > 0
    assert result.detail["fallen"][0]["places"] > 0
    # Items once each, and the sample of self-retrieval.
    assert len(texts_of(words.calls)) <= 120 + 1 + 20


def test_nothing_in_common_is_nothing_to_compare(index, catalog_file):
    definition = index(min_overlap=0.5)
    built(definition)
    other = [{"id": f"other{n}", "title": f"thing {n}", "kind": "a"} for n in range(60)]
    definition.source.uri = str(catalog_file(other))
    definition.source.save()
    result = gate(built(definition), "overlap")
    assert result.outcome == Outcome.SKIPPED
    assert "None of 60 sampled items is in products-v1" in result.message
