from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from enrichment import dynamodb, sources
from enrichment.errors import EnrichmentRejected, EnrichmentTimeout
from enrichment.spec import SignalKind, SignalSpec, SourceSpec
from tests.enrichment.conftest import Misbehave, Trouble

Table = Callable[..., str]


def source(table: str, *signals: SignalSpec, **changes: Any) -> SourceSpec:
    values = {"slug": "tastes", "key_template": "USER#{user_id}", "timeout_ms": 2000}
    return SourceSpec(table=table, signals=signals, **(values | changes))


AFFINITIES = SignalSpec(name="affinities", attribute="likes.brand")
LOYALTY = SignalSpec(name="loyalty", attribute="loyalty", kind=SignalKind.NUMBER)
VIEWS = SignalSpec(name="views", attribute="recent")


def test_an_item_gives_its_typed_signals(dynamodb_table: Table):
    table = dynamodb_table(
        [
            {
                "pk": "USER#u1",
                "likes": {"brand": {"Volt": Decimal("0.9")}, "colour": {"red": 1}},
                "loyalty": "0.5",
                "recent": ["sku-1", "sku-2"],
            }
        ]
    )

    signals = sources.fetch(source(table, AFFINITIES, LOYALTY, VIEWS), {"user_id": "u1"})

    assert signals == {
        "affinities": {"Volt": 0.9},
        "loyalty": 0.5,
        "views": {"sku-1": 1.0, "sku-2": 1.0},
    }


def test_what_is_missing_or_of_another_type_is_absent(dynamodb_table: Table):
    table = dynamodb_table([{"pk": "USER#u1", "likes": "none", "loyalty": None, "recent": ["a"]}])

    signals = sources.fetch(source(table, AFFINITIES, LOYALTY, VIEWS), {"user_id": "u1"})

    assert signals == {"views": {"a": 1.0}}


def test_an_unknown_user_has_no_signals(dynamodb_table: Table):
    table = dynamodb_table([{"pk": "USER#u1", "recent": ["a"]}])

    assert sources.fetch(source(table, VIEWS), {"user_id": "nobody"}) == {}


def test_a_key_of_two_parts_finds_its_item(namespace: str):
    table = f"{namespace}-sorted"
    dynamodb.create_table(table, partition_key="user", sort_key="kind")
    try:
        dynamodb.put_items(
            table,
            [
                {"user": "U#u1", "kind": "us#DEALS", "recent": ["a"]},
                {"user": "U#u1", "kind": "eu#DEALS", "recent": ["b"]},
            ],
        )
        spec = source(
            table,
            VIEWS,
            partition_key="user",
            key_template="U#{user_id}",
            sort_key="kind",
            sort_key_template="{context.region}#DEALS",
        )

        assert sources.fetch(spec, {"user_id": "u1", "region": "eu"}) == {"views": {"b": 1.0}}
        assert sources.key_names(spec) == ("user_id", "region")
    finally:
        dynamodb.delete_table(table)


def test_a_missing_value_is_refused_before_the_store_is_asked(misbehaving: Misbehave):
    trouble = Trouble()
    region = misbehaving(trouble)

    with pytest.raises(EnrichmentRejected, match="user_id"):
        sources.fetch(source("users", VIEWS, region=region), {"session_id": "s"})

    assert trouble.calls == []


def test_the_sources_own_time_is_the_limit(misbehaving: Misbehave):
    region = misbehaving(Trouble(delay_s=2))

    with pytest.raises(EnrichmentTimeout) as caught:
        sources.fetch(source("users", VIEWS, region=region, timeout_ms=60), {"user_id": "u1"})

    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)


def test_warming_asks_nothing(misbehaving: Misbehave):
    trouble = Trouble()
    region = misbehaving(trouble)

    sources.warm(source("users", region=region))

    assert trouble.calls == []
