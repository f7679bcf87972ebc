import json
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichment import dynamodb
from enrichment.errors import (
    EnrichmentError,
    EnrichmentRejected,
    EnrichmentThrottled,
    EnrichmentTimeout,
    EnrichmentUnavailable,
)
from tests.enrichment.conftest import Misbehave, Trouble, error

Table = Callable[..., str]
KEY = {"pk": "USER#u1"}


@pytest.fixture
def sorted_table(namespace: str) -> Any:
    """The name of a table with a sort key."""
    name = f"{namespace}-sorted"
    dynamodb.create_table(name, sort_key="sk")
    yield name
    dynamodb.delete_table(name)


def test_an_item_is_read_by_its_key(dynamodb_table: Table):
    item = {"pk": "USER#u1", "age": Decimal("41.5"), "tags": {"a", "b"}, "m": {"x": [1, None]}}
    table = dynamodb_table([item, {"pk": "USER#u2"}])

    assert dynamodb.get_item(table, KEY, timeout_ms=2000) == item
    assert dynamodb.get_item(table, {"pk": "USER#u3"}, timeout_ms=2000) is None


def test_only_the_named_attributes_are_read(dynamodb_table: Table):
    # Names reserved by DynamoDB and signs of its expressions are plain names here.
    item = {"pk": "USER#u1", "name": "x", "values": "y", "a-b": "z", "other": "-"}
    table = dynamodb_table([item])

    found = dynamodb.get_item(
        table, KEY, attributes=["name", "values", "a-b", "name", "missing"], timeout_ms=2000
    )

    assert found == {"name": "x", "values": "y", "a-b": "z"}


def test_an_item_with_a_sort_key_is_read_by_both(sorted_table: str):
    rows = [{"pk": "u1", "sk": sort, "n": number} for number, sort in enumerate("abc")]
    assert dynamodb.put_items(sorted_table, rows) == 3

    found = dynamodb.get_item(sorted_table, {"pk": "u1", "sk": "b"}, timeout_ms=2000)

    assert found == {"pk": "u1", "sk": "b", "n": Decimal(1)}


def test_creating_a_table_again_keeps_its_items(sorted_table: str):
    dynamodb.put_items(sorted_table, [{"pk": "a", "sk": "a"}])

    dynamodb.create_table(sorted_table, sort_key="sk")

    assert dynamodb.get_item(sorted_table, {"pk": "a", "sk": "a"}, timeout_ms=2000) is not None


def test_a_forked_process_makes_its_own_clients(misbehaving: Misbehave):
    trouble = Trouble(body=b"{}")
    region = misbehaving(trouble)
    dynamodb.get_item("t", KEY, region=region, timeout_ms=5000)
    # As when another thread is making a client at the moment of the fork.
    with dynamodb._session_lock:
        child = os.fork()
        if not child:
            # Only _exit: pytest must not run on in here.
            code = 1
            try:
                signal.alarm(20)
                dynamodb.get_item("t", KEY, region=region, timeout_ms=5000)
                dynamodb.get_item("t", KEY, region=f"{region}-2", timeout_ms=5000)
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(trouble.calls) == len(trouble.connections) == 3


def test_many_items_are_written_in_batches(dynamodb_table: Table):
    table = dynamodb_table([])
    rows = ({"pk": f"k{n}", "weight": n / 8, "map": {"x": [0.1, -2.5]}} for n in range(60))

    assert dynamodb.put_items(table, rows) == 60

    found = dynamodb.get_item(table, {"pk": "k59"}, timeout_ms=2000)
    assert found == {
        "pk": "k59",
        "weight": Decimal("7.375"),
        "map": {"x": [Decimal("0.1"), Decimal("-2.5")]},
    }


def test_writing_replaces_what_was_there(dynamodb_table: Table):
    table = dynamodb_table([{"pk": "k", "old": 1}])

    dynamodb.put_items(table, [{"pk": "k", "new": 2}])

    assert dynamodb.get_item(table, {"pk": "k"}, timeout_ms=2000) == {"pk": "k", "new": Decimal(2)}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
)
def test_any_text_is_a_key(shared_table: str, key: str):
    dynamodb.put_items(shared_table, [{"pk": key, "same": key}])

    found = dynamodb.get_item(shared_table, {"pk": key}, timeout_ms=2000)

    assert found == {"pk": key, "same": key}


@pytest.fixture
def shared_table(dynamodb_table: Table) -> str:
    return dynamodb_table([])


def test_a_table_that_does_not_exist_is_named_with_its_region():
    with pytest.raises(
        EnrichmentRejected, match=r"Table no-such-table not found in region us-west-2: correct"
    ):
        dynamodb.get_item("no-such-table", KEY, region="us-west-2", timeout_ms=2000)


def test_a_key_of_another_shape_is_explained(sorted_table: str):
    with pytest.raises(EnrichmentRejected, match="partition and sort key"):
        dynamodb.get_item(sorted_table, KEY, timeout_ms=2000)


def test_a_slow_answer_is_a_timeout_and_is_not_asked_for_again(misbehaving: Misbehave):
    trouble = Trouble(delay_s=3)
    region = misbehaving(trouble)
    dynamodb.warm(region=region, timeout_ms=80)
    started = time.monotonic()

    with pytest.raises(EnrichmentTimeout, match="table users"):
        dynamodb.get_item("users", KEY, region=region, timeout_ms=80)

    assert time.monotonic() - started < 1.5
    assert trouble.calls == ["GetItem"]


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        ("ProvisionedThroughputExceededException", EnrichmentThrottled, "raise its capacity"),
        ("ThrottlingException", EnrichmentThrottled, "raise its capacity"),
        ("RequestLimitExceeded", EnrichmentThrottled, "raise its capacity"),
        ("ResourceNotFoundException", EnrichmentRejected, "Table users not found"),
        ("ValidationException", EnrichmentRejected, "partition and sort key"),
        ("AccessDeniedException", EnrichmentRejected, "dynamodb:GetItem"),
        ("UnrecognizedClientException", EnrichmentRejected, "credentials"),
        ("ExpiredTokenException", EnrichmentRejected, "credentials"),
        ("SomethingNewException", EnrichmentRejected, "the server said so"),
    ],
)
def test_an_error_of_dynamodb_is_ours_and_is_not_retried(
    misbehaving: Misbehave, code: str, expected: type[EnrichmentError], said: str
):
    trouble = error(code)
    region = misbehaving(trouble)

    with pytest.raises(expected, match=said) as caught:
        dynamodb.get_item("users", KEY, region=region, timeout_ms=2000)

    assert type(caught.value) is expected
    assert trouble.calls == ["GetItem"]
    assert caught.value.retryable is (expected is EnrichmentThrottled)


@pytest.mark.parametrize(
    "trouble",
    [
        error("InternalServerError", status=500),
        Trouble(status=503, body=b"<html>busy</html>"),
        Trouble(hang_up=True),
    ],
    ids=["500", "503", "hangs up"],
)
def test_a_broken_server_is_unavailable(misbehaving: Misbehave, trouble: Trouble):
    region = misbehaving(trouble)

    with pytest.raises(EnrichmentUnavailable):
        dynamodb.get_item("users", KEY, region=region, timeout_ms=2000)

    assert trouble.calls == ["GetItem"]


def test_a_value_that_cannot_be_read_leaves_the_others(misbehaving: Misbehave):
    body = {"a": {"S": "x"}, "b": {"X": "a new type"}, "c": {"N": "1" * 50}}
    region = misbehaving(Trouble(body=json.dumps({"Item": body}).encode()))

    found = dynamodb.get_item("users", KEY, region=region, timeout_ms=2000)

    assert found == {"a": "x", "b": None, "c": None}


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch, namespace: str):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{port}")

    with pytest.raises(EnrichmentUnavailable, match="cannot be reached"):
        dynamodb.get_item("users", KEY, region=f"down-{namespace}", timeout_ms=500)


def test_missing_credentials_are_named(
    misbehaving: Misbehave, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    region = misbehaving(Trouble())
    monkeypatch.setattr(dynamodb, "_session", None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(EnrichmentRejected, match="AWS credentials"):
        dynamodb.get_item("users", KEY, region=region, timeout_ms=2000)


def test_many_threads_share_connections_that_stay_open(misbehaving: Misbehave):
    trouble = Trouble(delay_s=0.005)
    region = misbehaving(trouble)
    dynamodb.warm(region=region, timeout_ms=5000)

    def ask(_: int) -> Any:
        return dynamodb.get_item("users", KEY, region=region, timeout_ms=5000)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(80))) == [None] * 80

    assert len(trouble.calls) == 80
    assert len(trouble.connections) <= 8


def test_a_source_that_came_back_is_read_again(misbehaving: Misbehave):
    trouble = error("ThrottlingException")
    region = misbehaving(trouble)
    with pytest.raises(EnrichmentThrottled):
        dynamodb.get_item("users", KEY, region=region, timeout_ms=2000)

    trouble.status, trouble.body = 200, b'{"Item": {"pk": {"S": "USER#u1"}}}'

    assert dynamodb.get_item("users", KEY, region=region, timeout_ms=2000) == KEY


def test_a_table_that_keeps_refusing_items_says_so(
    misbehaving: Misbehave, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dynamodb, "BATCH_ATTEMPTS", 3)
    left = '{"UnprocessedItems": {"users": [{"PutRequest": {"Item": {"pk": {"S": "a"}}}}]}}'
    trouble = Trouble(body=left.encode())
    region = misbehaving(trouble)

    with pytest.raises(EnrichmentThrottled, match="1 items: raise its write capacity"):
        dynamodb.put_items("users", [{"pk": "a"}, {"pk": "b"}], region=region)

    assert trouble.calls == ["BatchWriteItem"] * 3
