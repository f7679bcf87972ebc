"""What an enrichment source must do, asked of DynamoDB and of the fake."""

import pytest

from enrichment import sources
from enrichment.errors import EnrichmentRejected
from tests.fakes.sources import FakeSources
from tests.surfaces.builders import source

ITEM = {
    "brands": {"acme": 1, "zen": 2},
    "viewed": ["sku-2", "sku-1"],
    "age_n": 33,
    "odd": "a text",
    "deep": {"er": {"shoes": 1}},
}


@pytest.fixture(params=["fake", "real"])
def store(request, dynamodb_table):
    """The door, and the name of a table that holds ITEM for user u1."""
    if request.param == "fake":
        return FakeSources({"prefs": {"USER#u1": ITEM}}).fetch, "prefs"
    return sources.fetch, dynamodb_table([{"pk": "USER#u1", **ITEM}])


@pytest.fixture
def fetch(store):
    door, table = store

    def fetch(user="u1", *, table=table, attribute="", signals=("brands",)):
        spec = source("prefs", *signals, table=table)
        if attribute:
            [only] = spec.signals
            changed = only.model_copy(update={"attribute": attribute})
            spec = spec.model_copy(update={"signals": (changed,)})
        return door(spec, {"user_id": user})

    return fetch


def test_the_signals_of_a_known_key(fetch):
    assert fetch(signals=("brands", "viewed", "age_n")) == {
        "brands": {"acme": 1.0, "zen": 2.0},
        "viewed": {"sku-2": 1.0, "sku-1": 1.0},
        "age_n": 33.0,
    }


def test_an_unknown_key_has_none(fetch):
    assert fetch("stranger") == {}


def test_what_is_missing_or_no_signal_is_left_out(fetch):
    assert fetch(signals=("brands", "nosuch", "odd")) == {"brands": {"acme": 1.0, "zen": 2.0}}


def test_an_attribute_within_another(fetch):
    assert fetch(attribute="deep.er") == {"brands": {"shoes": 1.0}}


def test_a_table_that_does_not_exist(fetch):
    with pytest.raises(EnrichmentRejected):
        fetch(table="no-such-table")


def test_a_key_without_its_value(fetch):
    with pytest.raises(EnrichmentRejected):
        fetch("")
